"""Where each version of a model stands: derived from what serves and has served, and from what people chose.

Production is what answers requests, whatever anybody says of it. A person may put any other version into Staging, into
the archive, or into none of them; an archived version cannot be released until it is taken out again.

Imports no more than the release store does: serving answers with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_platform.registry.manifest import Endpoint, Target, describe_targets
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stage_names import (
    ARCHIVED,
    CHALLENGER,
    CHAMPION,
    NONE,
    PRODUCTION,
    STAGING,
    Stage,
)
from ml_platform.registry.version_notes import Notes, NoteWish


class StageRefused(ValueError):
    """A version cannot be put into a stage: the message says what stands against it, and what to do."""


@dataclass(frozen=True)
class RegistryState:
    """Aliases and stages of a model's versions.

    Attributes
    ----------
    stages
        Version → stage.
    aliases
        Alias → version.
    """

    stages: dict[int, Stage]
    aliases: dict[str, int]


def desired_state(
    model: str,
    versions: Sequence[int],
    histories: Mapping[str, Sequence[Endpoint]],
    chosen: Mapping[int, Stage] | None = None,
) -> RegistryState:
    """Derive aliases and stages.

    Parameters
    ----------
    model
        Whose endpoint names the champion.
    versions
        Numbers of the registered versions.
    histories
        Endpoint → its documents, oldest first, of every endpoint of the model.
    chosen
        Version → stage that a person chose.

    Returns
    -------
    RegistryState
        Production is what answers requests on any endpoint. Staging is what runs as a shadow, what a person put there,
        and the newest version if it never served. Archived is what served before, what a person archived, and every
        version of a model that was retired; None are the others. The challenger is the newest version in Staging that
        never served.
    """
    chosen = chosen or {}
    newest = {name: documents[-1] for name, documents in histories.items() if documents}
    live = {target.version for document in newest.values() for target in document.targets if target.mode == "live"}
    shadows = {target.version for document in newest.values() for target in document.targets if target.mode != "live"}
    served = {
        target.version
        for documents in histories.values()
        for document in documents
        for target in document.targets
        if target.mode == "live"
    }
    latest = max(versions, default=None)
    is_retired = model in newest and newest[model].is_retired
    champion = newest[model].champion if model in newest else None

    def stage(version: int) -> Stage:
        if version in live:
            return PRODUCTION
        if version in shadows:
            return STAGING
        if is_retired:
            return ARCHIVED
        if version in chosen and chosen[version] != PRODUCTION:
            return chosen[version]
        if version in served:
            return ARCHIVED
        return STAGING if version == latest else NONE

    stages = {version: stage(version) for version in sorted(versions)}
    waiting = [
        version
        for version, one in stages.items()
        if one == STAGING and version not in served and (version == latest or chosen.get(version) == STAGING)
    ]
    aliases = {}
    if champion is not None and champion.version in versions:
        aliases[CHAMPION] = champion.version
    if waiting:
        aliases[CHALLENGER] = max(waiting)
    return RegistryState(stages=stages, aliases=aliases)


def current_state(store: ReleaseStore, model: str) -> RegistryState:
    """Aliases and stages of a model's versions, as the release store knows them now."""
    names = [name for name, document in store.documents().items() if document.model == model]
    histories = {name: store.history(name) for name in names}
    return desired_state(model, list(store.versions(model)), histories, store.notes.chosen_stages(model))


def choose_stage(
    store: ReleaseStore, model: str, version: int, stage: Stage, *, by: str, reason: str, force: bool = False
) -> Notes:
    """Put a version into a stage, because a person says so; where it stands there already by choice, nothing changes.

    Parameters
    ----------
    store
        The release store.
    model, version
        Which.
    stage
        Where to. Not Production: what serves is changed by a promotion.
    by, reason
        Who, and why, for the ledger.
    force
        Archive it even though a rollback would go back to it.

    Raises
    ------
    LookupError
        When there is no such version, or it has no bundle and is to be Staging.
    StageRefused
        When it serves, is a shadow, waits for an approval, or is what a rollback goes back to; with what to do.
    ValueError
        Without a reason.
    """
    store.check_version(model, version)
    with store.notes.stages_alone(model):
        notes = store.notes.load(model, version)
        state = current_state(store, model)
        present = state.stages[version]
        if stage == PRODUCTION:
            if present == PRODUCTION:
                return notes
            raise StageRefused(
                f"{model} version {version} is {present}. Production is what answers requests; to let it: "
                f'ml-platform promote {model} {version} --reason "…"'
            )
        if present == stage and (notes.stage is not None and notes.stage.name == stage):
            return notes
        if blocking := standing_against(store, model, version, stage, force=force):
            raise StageRefused(f"{model} version {version} cannot be {_into(stage)}: {'; '.join(blocking)}")
        if stage == STAGING and not store.bundle_path(store.versions(model)[version]).is_dir():
            raise LookupError(f"{model} version {version} has no bundle any more, and cannot be put into Staging")
        return store.notes.add(model, version, [NoteWish(action="stage", name=stage, text=reason)], by=by)


def standing_against(store: ReleaseStore, model: str, version: int, stage: Stage, *, force: bool = False) -> list[str]:
    """What stands against a version's leaving service, each with what to do; nothing where it may.

    Parameters
    ----------
    store
        The release store.
    model, version
        Which.
    stage
        Where it is to go.
    force
        Pass over what a rollback would go back to.
    """
    blocking = []
    for name, document in store.documents().items():
        targets = [target for target in document.targets if target.version == version and document.model == model]
        for target in targets:
            if target.mode == "live":
                blocking.append(
                    f"it answers requests of {name} ({describe_targets(document.targets)}): promote another version, "
                    f"or ml-platform traffic {name} without it, first"
                )
            elif stage != STAGING:
                blocking.append(f"it is a shadow of {name}: ml-platform traffic {name} without it, first")
        if stage == ARCHIVED and not targets and not force and _goes_back_to(store, name, model, version):
            blocking.append(f"a rollback of {name} goes back to it: archive it all the same with --force")
    request = store.approvals.get(model, version)
    if stage == ARCHIVED and request is not None and request.is_open():
        blocking.append(
            f"it waits for an approval, asked for by {request.requested_by}: "
            f'ml-platform approvals reject {model} {version} --comment "…" first'
        )
    return blocking


def _goes_back_to(store: ReleaseStore, name: str, model: str, version: int) -> bool:
    earlier = rollback_state(store.history(name))
    return earlier is not None and earlier.model == model and version in {one.version for one in earlier.targets}


def rollback_state(documents: Sequence[Endpoint]) -> Endpoint | None:
    """The last document whose state differs from the newest one's; None without one.

    No withdrawal, and no step of a canary.
    """
    if not documents:
        return None
    present = _state(documents[-1])
    steady = [one for one in documents if one.targets and one.walk is None]
    return next((one for one in reversed(steady) if _state(one) != present), None)


def _state(document: Endpoint) -> tuple[tuple[Target, ...], str | None]:
    return document.targets, document.key


def _into(stage: Stage) -> str:
    return {ARCHIVED: "archived", STAGING: "put into Staging"}.get(stage, "put into no stage")
