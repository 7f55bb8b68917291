"""Which MLflow runs an experiment may do without, and why each of the others stays; and their removal.

A removed run is deleted in MLflow, which hides it, and its files and those of its logged models are removed. The rows
of its metrics stay in MLflow's database until `mlflow gc` is called.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_platform.promotion.prune_item import PruneItem, Retention
from ml_platform.promotion.reconcile import versions_of
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stages import current_state
from ml_platform.registry.tracking import Tracker

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Run
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

_PRUNED = "pruned_by"
_AT_ONCE = 1000


def run_items(tracker: Tracker, retention: Retention, model: str | None = None) -> Iterator[PruneItem]:
    """Every run of a model's experiment, or of all experiments, with why it stays.

    A search and its trials, and an AutoML run with its own, stay or go together.
    """
    store = ReleaseStore(tracker.settings.releases_dir)
    for experiment in tracker.client.search_experiments():
        if model is not None and experiment.name != model:
            continue
        runs = {run.info.run_id: run for run in _pages(tracker, experiment.experiment_id, deleted=False)}
        models = _models_by_run(tracker, experiment.experiment_id)
        kept, of_versions = _kept_versions(tracker, store, experiment.name, retention)
        keeps = {run_id: _keep(run, of_versions, retention) for run_id, run in runs.items()}
        for run_id, reason in kept.items():  # what such a version came from stays whole
            for one in _family(run_id, runs):
                keeps[one] = keeps[one] or reason
        for run_id, run in runs.items():
            if not keeps[run_id] and any(keeps[one].startswith("younger") for one in _family(run_id, runs)):
                keeps[run_id] = "of one search with younger runs"
            size = sum(_size(tracker, location) for location in _locations(run, models.get(run_id, [])))
            yield PruneItem("run", run_id, experiment.name, run.info.run_name or "run", size, keeps[run_id])


def remove_run(tracker: Tracker, run_id: str, *, by: str) -> bool:
    """Delete a run, its files, and its logged models with theirs; what a kill leaves is finished by the next.

    False where there is none any more.
    """
    client = tracker.client
    if not tracker.has_run(run_id):
        return False
    run = client.get_run(run_id)
    client.set_tag(run_id, _PRUNED, by)
    client.delete_run(run_id)
    _remove_files(tracker, run)
    return True


def finish_runs(tracker: Tracker) -> int:
    """Remove what a killed removal has left of runs; returns the bytes."""
    freed = 0
    for experiment in tracker.client.search_experiments():
        for run in _pages(tracker, experiment.experiment_id, deleted=True):
            if _PRUNED in run.data.tags:
                freed += _remove_files(tracker, run)
    return freed


def _remove_files(tracker: Tracker, run: "Run") -> int:
    models = _models_by_run(tracker, run.info.experiment_id).get(run.info.run_id, [])
    freed = 0
    for location in _locations(run, models):
        if size := _size(tracker, location):
            _repository(tracker, location).delete_artifacts()
            freed += size
    for one in models:
        tracker.client.delete_logged_model(one.model_id)
    return freed


def _kept_versions(
    tracker: Tracker, store: ReleaseStore, model: str, retention: Retention
) -> tuple[dict[str, str], dict[str, str]]:
    """Runs of versions that stay with all that they came from, and runs of any version, each with why."""
    entries = {int(entry.version): entry for entry in versions_of(tracker, model)}
    if not entries:
        return {}, {}
    state = current_state(store, model)
    served = {
        target.version
        for name, document in store.documents().items()
        if document.model == model
        for past in store.history(name)
        for target in past.targets
    }
    newest = set(sorted(entries)[-retention.keep_last :]) if retention.keep_last else set()
    kept, every = {}, {}
    for version, entry in entries.items():
        if not entry.run_id:
            continue
        every[entry.run_id] = f"version {version} came from it"
        stage = state.stages.get(version)
        if stage in {"Production", "Staging"}:
            kept[entry.run_id] = f"version {version} came from it ({stage})"
        elif version in newest:
            kept[entry.run_id] = f"version {version} came from it, of the last {retention.keep_last}"
        elif version in served and not retention.served:
            kept[entry.run_id] = f"version {version} came from it, which has served"
    return kept, every


def _keep(run: "Run", of_versions: dict[str, str], retention: Retention) -> str:
    if run.info.run_id in of_versions:
        return of_versions[run.info.run_id]
    if run.info.status == "RUNNING":
        return "it is open"
    started = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    if datetime.now(UTC) - started < retention.younger_than:
        return f"younger than {retention.younger_than.days} days"
    return ""


def _family(run_id: str, runs: "dict[str, Run]") -> set[str]:
    """A run with those above it, below it, and linked to it."""
    near: dict[str, set[str]] = {}
    for one, run in runs.items():
        for other in run.data.tags.values():  # its parent, its search, the run of which it is the refit
            if other in runs:
                near.setdefault(one, set()).add(other)
                near.setdefault(other, set()).add(one)
    family, waiting = set[str](), [run_id] if run_id in runs else []
    while waiting:
        one = waiting.pop()
        if one not in family:
            family.add(one)
            waiting += near.get(one, ())
    return family


def _pages(tracker: Tracker, experiment: str, *, deleted: bool) -> "Iterator[Run]":
    from mlflow.entities import ViewType

    kind, token = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY, None
    while True:
        page = tracker.client.search_runs([experiment], "", kind, _AT_ONCE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _models_by_run(tracker: Tracker, experiment: str) -> "dict[str, list[LoggedModel]]":
    runs: dict[str, list[Any]] = {}
    token = None
    while True:
        page = tracker.client.search_logged_models([experiment], page_token=token)
        for one in page:
            runs.setdefault(one.source_run_id or "", []).append(one)
        token = page.token
        if not token:
            return runs


def _locations(run: "Run", models: "list[LoggedModel]") -> list[str]:
    return [run.info.artifact_uri, *(one.artifact_location for one in models)]


def _size(tracker: Tracker, location: str) -> int:
    repository = _repository(tracker, location)
    size, waiting = 0, [""]
    while waiting:
        for item in repository.list_artifacts(waiting.pop() or None):
            if item.is_dir:
                waiting.append(item.path)
            else:
                size += item.file_size or 0
    return size


def _repository(tracker: Tracker, location: str) -> "ArtifactRepository":
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    uri = tracker.settings.tracking_uri
    return get_artifact_repository(location, tracking_uri=uri, registry_uri=uri)
