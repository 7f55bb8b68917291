"""Brings the registry to what the endpoint documents say: aliases and stages, and runs that nobody will end any more.

What serves is said by the endpoint documents alone. Aliases and stage tags are derived from them, from scratch and
under a lock, so that neither a process killed halfway nor one that is slow can leave an older state behind.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from ml_platform.atomic_files import locked
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.spec.types import Strict

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
CHALLENGER = "challenger"
STAGE = "stage"  # tag that shows the words people know; MLflow's own stages are deprecated
STAGING, PRODUCTION, ARCHIVED = "Staging", "Production", "Archived"


class RegistryState(Strict):
    """Aliases and stages of a model's versions."""

    stages: dict[int, str] = Field(description="Version → stage: Production, Staging or Archived.")
    aliases: dict[str, int] = Field(description="Alias → version.")


def desired_state(model: str, versions: Sequence[int], histories: Mapping[str, Sequence[Endpoint]]) -> RegistryState:
    """Derive aliases and stages from what serves and has served.

    Parameters
    ----------
    model
        Whose endpoint names the champion.
    versions
        Numbers of the registered versions.
    histories
        Endpoint → its documents, oldest first, of every endpoint of the model.

    Returns
    -------
    RegistryState
        Production is what answers requests on any endpoint. Staging is what runs as a shadow, and the newest version if
        it never served: that is the challenger, too. All others are archived, and all of a model that was retired.
    """
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
    challenger = latest if latest is not None and latest not in served and not is_retired else None
    champion = newest[model].champion if model in newest else None
    aliases = {CHAMPION: champion.version if champion else None, CHALLENGER: challenger}

    def stage(version: int) -> str:
        if version in live:
            return PRODUCTION
        return STAGING if version in shadows or version == challenger else ARCHIVED

    return RegistryState(
        stages={version: stage(version) for version in sorted(versions)},
        aliases={alias: version for alias, version in aliases.items() if version in versions},
    )


def reconcile_registry(tracker: Tracker, model: str) -> list[str]:
    """Set aliases and stage tags of a model to what its endpoint documents say.

    Returns
    -------
    list[str]
        What was changed, in words; empty when all was right.

    Raises
    ------
    LookupError
        When the registry does not have the version that serves: it was deleted or renamed by hand, or is another one.
    """
    store, client = ReleaseStore(tracker.settings.releases_dir), tracker.client
    with locked(store.folder / "locks" / f"{model}.registry.lock"):
        entries = {int(entry.version): entry for entry in versions_of(tracker, model)}
        documents = {name: document for name, document in store.documents().items() if document.model == model}
        champion = documents[model].champion if model in documents else None
        if champion is not None and champion.version not in entries:
            raise LookupError(
                f"{model}: version {champion.version} serves, and the registry has {sorted(entries) or 'no version'}; "
                "restore it there, or promote a version that is registered"
            )
        if not entries:
            return []
        wanted = desired_state(model, sorted(entries), {name: store.history(name) for name in documents})
        changes = []
        for version, stage in wanted.stages.items():
            if (before := entries[version].tags.get(STAGE)) != stage:
                client.set_model_version_tag(model, str(version), STAGE, stage)
                changes.append(f"version {version}: {before or 'no stage'} → {stage}")
        actual = {alias: int(version) for alias, version in client.get_registered_model(model).aliases.items()}
        for alias in (CHAMPION, CHALLENGER):
            before, after = actual.get(alias), wanted.aliases.get(alias)
            if before == after:
                continue
            if after is None:
                client.delete_registered_model_alias(model, alias)
            else:
                client.set_registered_model_alias(model, alias, str(after))
            changes.append(f"{alias}: {_version(before)} → {_version(after)}")
        return changes


def versions_of(tracker: Tracker, model: str) -> list["ModelVersion"]:
    """Every registered version of a model; none where the registry does not know it."""
    page, versions = None, list["ModelVersion"]()
    while page is None or page.token:
        page = tracker.client.search_model_versions(f"name = '{model}'", page_token=page.token if page else None)
        versions += page
    return versions


def _version(version: int | None) -> str:
    return "none" if version is None else f"version {version}"
