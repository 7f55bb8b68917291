"""Brings the registry to what the release store says: aliases, stages, and what people said of versions.

What serves is said by the endpoint documents alone. Aliases and stage tags are derived from them and from the stages
that people chose, from scratch and under a lock, so that neither a process killed halfway nor one that is slow can
leave an older state behind.
"""

from typing import TYPE_CHECKING

from ml_platform.atomic_files import locked
from ml_platform.promotion.shown_notes import show_notes
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stage_names import CHALLENGER, CHAMPION
from ml_platform.registry.stages import desired_state
from ml_platform.registry.tracking import Tracker

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

STAGE = "stage"  # tag that shows the words people know; MLflow's own stages are deprecated


def reconcile_registry(tracker: Tracker, model: str) -> list[str]:
    """Set aliases, stage tags, and what people said of a model and its versions, to what the release store says.

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
        histories = {name: store.history(name) for name in documents}
        wanted = desired_state(model, sorted(entries), histories, store.notes.chosen_stages(model))
        changes = []
        for version, stage in wanted.stages.items():
            if (before := entries[version].tags.get(STAGE)) != stage:
                client.set_model_version_tag(model, str(version), STAGE, stage)
                changes.append(f"version {version}: {before or 'no stage'} → {stage}")
        registered = client.get_registered_model(model)
        for notes in store.notes.all(model):
            entry = registered if notes.version is None else entries.get(notes.version)
            if entry is not None:
                changes += show_notes(client, notes, entry.tags, entry.description)
        actual = {alias: int(version) for alias, version in registered.aliases.items()}
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
