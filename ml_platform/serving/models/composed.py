"""Composed endpoints as a worker serves them: an immutable snapshot of all members, made anew when one changes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ml_platform.features.online.store import OnlineStore
from ml_platform.inference.composition.signature import composed_manifest, unknown_member
from ml_platform.inference.log_policy import LogPolicyFilter
from ml_platform.registry.composition import Composition, Pipeline, Route, cycle
from ml_platform.registry.manifest import Endpoint, Manifest, Target
from ml_platform.serving.inputs.feature_lookup import Lookups
from ml_platform.serving.inputs.request_decoder import RowDecoder, decoder_of
from ml_platform.serving.models.row_router import RowRouter
from ml_platform.serving.models.slots import EndpointState, ServedModel, ServingState, refusal


class MemberGone(Exception):
    """A composed endpoint cannot answer, since a member does not."""


@dataclass(frozen=True, slots=True)
class NoGraph:
    """Stands for the graph of a composed endpoint, which has none: its members do."""

    manifest: Manifest
    folder: Path | None = None

    def explainer(self) -> None:
        """No explanations of its own; where those of members add up, they are given."""
        return


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposedModel(ServedModel):
    """A composition together with the members that answer for it, as of one moment.

    A request reads it once, so all its rows are answered by the same versions, whatever is released meanwhile.
    """

    composition: Composition
    members: Mapping[str, EndpointState]  # whose versions pass over what only others read
    sources: Mapping[str, EndpointState]  # the same as they answer for themselves
    log_columns: tuple[str, ...]  # what the inference log has of the members, a score and a version of each
    router: RowRouter | None  # of a route

    @property
    def explains(self) -> bool:
        """Whether explanations of members can be given for its answers."""
        models = [slot.served for slot in self.members.values()]
        is_additive = isinstance(self.composition.of, Route) or (
            not isinstance(self.composition.of, Pipeline) and self.manifest.task == "regression"
        )
        return is_additive and all(explains(model) for served in models for model in served)


def explains(model: ServedModel) -> bool:
    """Whether a version's answers can be explained."""
    return model.explains if isinstance(model, ComposedModel) else model.scorer.explainer() is not None


def composed_state(
    composition: Composition,
    state: ServingState,
    slots: Mapping[str, EndpointState],
    online: OnlineStore,
    keys_dir: Path,
) -> EndpointState:
    """Make the state of a composed endpoint from its members' (raises MemberGone, CompositionRefused)."""
    of = composition.of
    assert of is not None
    members = {}
    for name in composition.members:
        slot = slots.get(name)
        if slot is not None and slot.served:
            members[name] = slot
        elif slot is not None:
            reason = slot.refused.reason if slot.refused else "its release is being loaded"
            raise MemberGone(f"its member '{name}' cannot answer: {reason}")
        else:
            gone = state.retirement(name)
            reason = f"its member '{name}' is not released: {gone or unknown_member(name, slots)}"
            raise MemberGone(reason)
    manifest = composed_manifest(composition, {name: _manifest(slot) for name, slot in members.items()})
    inputs = {one.name for one in manifest.inputs}
    decoders: list[RowDecoder] = []
    target = Target(version=composition.revision, digest=composition.digest)
    model = ComposedModel(
        name=composition.name,
        version=composition.revision,
        digest=composition.digest,
        manifest=manifest,
        scorer=NoGraph(manifest),  # type: ignore[arg-type]
        decoder=decoder_of(manifest),
        lookups=Lookups(manifest, online),
        columns=(),
        contract=None,
        own_features=(),
        log_filter=LogPolicyFilter.of(manifest, keys_dir),
        composition=composition,
        sources=members,
        members={name: _passing_over(slot, inputs, decoders) for name, slot in members.items()},
        log_columns=tuple(f"{name}__{what}" for name in composition.members for what in ("score", "version")),
        router=RowRouter(of, manifest.inputs) if isinstance(of, Route) else None,
    )
    endpoint = Endpoint(
        model=composition.name,
        revision=composition.revision,
        targets=(target,),
        updated_at=composition.updated_at,
        updated_by=composition.updated_by,
        reason=composition.reason,
    )
    return EndpointState(composition.name, endpoint, (model,), (1.0,), inputs=manifest.inputs)


def _manifest(slot: EndpointState) -> Manifest:
    """What a member takes and gives: the inputs of all its versions, and the answer of the first."""
    manifest = slot.served[0].manifest
    return msgspec.structs.replace(manifest, model=slot.name, inputs=slot.inputs if slot.is_mixed else manifest.inputs)


def _passing_over(slot: EndpointState, inputs: set[str], decoders: list[RowDecoder]) -> EndpointState:
    """A member whose versions pass over what only others read; those that want the same share a decoder."""

    def changed(model: ServedModel) -> ServedModel:
        own = {one.name for one in model.manifest.inputs}
        if isinstance(model, ComposedModel):
            members = {name: _passing_over(one, inputs, decoders) for name, one in model.members.items()}
            return replace(model, members=members, decoder=decoder_of(model.manifest, sorted(inputs - own)))
        return replace(model, decoder=decoder(model, tuple(sorted((inputs | set(model.decoder.others)) - own))))

    def decoder(model: ServedModel, others: tuple[str, ...]) -> RowDecoder:
        wanted = (model.manifest.inputs, others)
        known = next((one for one in decoders if (one.inputs, one.others) == wanted), None)
        if known is None:
            known = model.decoder if model.decoder.others == others else decoder_of(model.manifest, others)
            decoders.append(known)
        return known

    return replace(slot, served=tuple(map(changed, slot.served)), shadows=())


def composed_slots(
    slots: Mapping[str, EndpointState],
    compositions: Mapping[str, Composition],
    state: ServingState,
    online: OnlineStore,
    keys_dir: Path,
) -> dict[str, EndpointState]:
    """All slots, those of composed endpoints made anew where a member or the composition changed.

    Where members do not fit together any more, the composed endpoint keeps what it served, and says why; where one is
    not there, it does not answer.
    """
    made = {name: slot for name, slot in slots.items() if name not in compositions}
    for name, composition in compositions.items():
        if way := cycle(name, compositions):
            reason = f"it leads back to itself: {' → '.join(way)}"
            made[name] = EndpointState(name, None, refused=refusal(composition.revision, reason))

    def build(name: str) -> None:
        composition, known = compositions[name], state.slots.get(name)
        for member in composition.members:
            if member in compositions and member not in made:
                build(member)
        made[name] = known if known is not None and _is_current(known, composition, made) else anew(composition, known)

    def anew(composition: Composition, known: EndpointState | None) -> EndpointState:
        try:
            return composed_state(composition, state, made, online, keys_dir)
        except (MemberGone, ValueError, OSError) as error:
            refused = refusal(composition.revision, str(error))
            if known is None or isinstance(error, MemberGone):
                return EndpointState(composition.name, None, refused=refused)
            return replace(known, refused=refused)

    for name in compositions:
        if name not in made:
            build(name)
    return made


def _is_current(slot: EndpointState, composition: Composition, slots: Mapping[str, EndpointState]) -> bool:
    """Whether a composed endpoint serves just this document by the members as they are."""
    if not slot.served or slot.refused is not None:
        return False
    [model] = slot.served
    assert isinstance(model, ComposedModel)
    return model.composition == composition and all(
        model.sources[name] is slots.get(name) for name in composition.members
    )
