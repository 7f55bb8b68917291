"""Composed endpoints as a worker serves them: an immutable snapshot of all members, made anew when one changes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ml_platform.features.online.store import OnlineStore
from ml_platform.inference.composition.signature import composed_manifest, hidden_members, unknown_member
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
    hidden: frozenset[str]  # members of which it has neither, see `hidden_members`
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


def leaves(model: ComposedModel) -> Iterator[ServedModel]:
    """Every version of every model that answers for a composed endpoint, those of composed members too."""
    for slot in model.members.values():
        for one in slot.served:
            if isinstance(one, ComposedModel):
                yield from leaves(one)
            else:
                yield one


def endpoint_of(composition: Composition) -> Endpoint:
    """The document of a composed endpoint in the form of a model's: its revision is the only version."""
    target = Target(version=composition.revision, digest=composition.digest)
    return Endpoint(
        model=composition.name,
        revision=composition.revision,
        targets=(target,),
        updated_at=composition.updated_at,
        updated_by=composition.updated_by,
        reason=composition.reason,
    )


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
    manifest = composed_manifest(
        composition,
        {name: _manifest(slot) for name, slot in members.items()},
        {
            name: {model.version: msgspec.structs.replace(model.manifest, model=name) for model in slot.served}
            for name, slot in members.items()
            if len(slot.served) > 1
        },
    )
    inputs = {one.name for one in manifest.inputs}
    decoders: list[RowDecoder] = []
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
        hidden=hidden_members(composition, manifest),
        router=RowRouter(of, manifest.inputs) if isinstance(of, Route) else None,
    )
    return EndpointState(composition.name, endpoint_of(composition), (model,), (1.0,), inputs=manifest.inputs)


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
    *,
    build: Callable[[Composition, Mapping[str, EndpointState]], EndpointState],
    last_good: Callable[[str, Mapping[str, EndpointState]], EndpointState | None],
    damaged: Mapping[str, str],
) -> dict[str, EndpointState]:
    """All slots, those of composed endpoints made anew where a member or the composition changed.

    Where members do not fit together any more, the composed endpoint keeps what it served, and says why; where one is
    not there, it does not answer.

    Parameters
    ----------
    slots
        Of all models; those of composed endpoints are passed over.
    compositions
        What is composed now, by name.
    state
        What serves until now.
    build
        Makes a composed endpoint from its members, see `composed_state`.
    last_good
        What a composed endpoint that served nothing yet may answer by in the place of what is refused.
    damaged
        Why the newest documents of some cannot be read: these keep what they served.
    """
    made = {name: slot for name, slot in slots.items() if name not in compositions and name not in damaged}

    def kept(name: str, revision: int, reason: str) -> EndpointState:
        known = state.slots.get(name)
        if known is None or not known.served:
            known = last_good(name, made) or known or EndpointState(name, None)
        return _refused(known, revision, reason)

    def make(name: str) -> None:
        composition, known = compositions[name], state.slots.get(name)
        for member in composition.members:
            if member in compositions and member not in made:
                make(member)
        made[name] = known if known is not None and _is_current(known, composition, made) else anew(composition, known)

    def anew(composition: Composition, known: EndpointState | None) -> EndpointState:
        try:
            return build(composition, made)
        except MemberGone as error:
            without = known if known is not None and not known.served else EndpointState(composition.name, None)
            return _refused(without, composition.revision, str(error))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one composition, the other endpoints go on
            return kept(composition.name, composition.revision, str(error) or type(error).__name__)

    for name, reason in damaged.items():
        made[name] = kept(name, 0, reason)
    for name, composition in compositions.items():
        if name not in made and (way := cycle(name, compositions)):
            made[name] = kept(name, composition.revision, f"it leads back to itself: {' → '.join(way)}")
    for name in compositions:
        if name not in made:
            make(name)
    return made


def _refused(slot: EndpointState, revision: int, reason: str) -> EndpointState:
    """The slot with a refusal, itself where it says so already: since when is not told anew."""
    known = slot.refused
    if known is not None and (known.revision, known.reason) == (revision, reason):
        return slot
    return replace(slot, refused=refusal(revision, reason))


def _is_current(slot: EndpointState, composition: Composition, slots: Mapping[str, EndpointState]) -> bool:
    """Whether a composed endpoint serves just this document by the members as they are."""
    if not slot.served or slot.refused is not None:
        return False
    [model] = slot.served
    assert isinstance(model, ComposedModel)
    return model.composition == composition and all(
        model.sources[name] is slots.get(name) for name in composition.members
    )
