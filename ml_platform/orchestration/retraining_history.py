"""What the runs that train a model say about the next one: whether one is under way, how the last ones ended."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG
from pydantic import BaseModel, Field

from ml_platform.features.views.view import FeatureView
from ml_platform.instants import bounded, later
from ml_platform.orchestration.json_io_manager import newest_document, read_document
from ml_platform.orchestration.model_asset import CHAIN, key
from ml_platform.orchestration.resources import Platform
from ml_platform.orchestration.run_workers import WorkerState, run_worker
from ml_platform.spec.model import ModelSpec

CHECK_TAG = "ml_platform/check"  # which evaluation of which check a run answers
LONGEST_FACTOR = 8
WAITING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]
RUNNING = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
RETRY_PATIENCE = timedelta(minutes=10)


class _TablesRead(BaseModel):
    """What is asked of a training set's document: an older version of the project may have written it."""

    tables: dict[str, int] = Field(description="Table read → its version.")


def definitions_digest(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> str:
    """Digest of all that a model is made by: its YAML, the SQL and Python beside it, the views that it looks up."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".sql", ".py"})
    parts = {
        "spec": spec.model_dump(mode="json"),
        "files": {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files},
        "views": {lookup.view: views[lookup.view].hash for lookup in spec.lookups},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def retrain_job(spec: ModelSpec) -> str:
    """Name of the job that trains and releases a model."""
    return f"{spec.name}_retrain"


@dataclass(frozen=True)
class Retraining:
    """One retraining: a run and the retries of it, by the newest of them."""

    run: dg.DagsterRun
    created: datetime
    promoted: bool | None
    """What the gate decided; None when the run came to no decision."""

    @property
    def status(self) -> dg.DagsterRunStatus:
        """How the newest try stands."""
        return self.run.status

    @property
    def is_retried(self) -> bool:
        """Whether a retry of it is announced and not there yet."""
        tags = self.run.tags
        announced = tags.get(WILL_RETRY_TAG) == "true" and AUTO_RETRY_RUN_ID_TAG not in tags
        return announced and datetime.now(UTC) - self.created < RETRY_PATIENCE


def retrainings(instance: dg.DagsterInstance, platform: Platform, spec: ModelSpec) -> Iterator[Retraining]:
    """Give the runs of a model's retraining job, newest first, whatever started them; retries count as one with it."""
    seen = set()
    for record in instance.get_run_records(dg.RunsFilter(job_name=retrain_job(spec)), limit=100):
        run = record.dagster_run
        root = run.root_run_id or run.run_id
        if root not in seen:
            seen.add(root)
            decision = read_document(platform.settings.handoff_dir, key(spec, "release"), run.run_id)
            promoted = None if decision is None else bool(decision.document["promoted"])
            yield Retraining(run, record.create_timestamp, promoted)


def training_under_way(instance: dg.DagsterInstance, spec: ModelSpec) -> str | None:
    """Say which run trains or releases the model, or waits to; None when none does."""
    for record in _training_runs(instance, spec, WAITING + RUNNING):
        run = record.dagster_run
        return f"run {run.run_id} is at it ({run.status.value.lower()})"
    return None


def earlier_training(instance: dg.DagsterInstance, spec: ModelSpec, run_id: str) -> str | None:
    """Return the run that trains or releases the model and began before this one; None when this is the first."""
    records = list(_training_runs(instance, spec, RUNNING))
    begun = {record.dagster_run.run_id: (record.start_time or 0, record.storage_id) for record in records}
    others = [other for other, began in begun.items() if other != run_id and began < begun.get(run_id, (0, 0))]
    return others[0] if others else None


def _training_runs(
    instance: dg.DagsterInstance, spec: ModelSpec, statuses: list[dg.DagsterRunStatus]
) -> Iterator[dg.RunRecord]:
    """The runs of these statuses that have assets of the model's chain; those whose process is gone do not count."""
    chain = {key(spec, name) for name in CHAIN}
    for record in instance.get_run_records(dg.RunsFilter(statuses=statuses)):
        run = record.dagster_run
        if run.job_name != retrain_job(spec) and not chain & set(run.asset_selection or ()):
            continue
        if run.status in WAITING or run_worker(instance, run).state is not WorkerState.GONE:
            yield record


def quiet_until(history: list[Retraining], cooldown: timedelta) -> tuple[datetime, str] | None:
    """Return until when no further run may be triggered, and why: longer after each that failed or was refused."""
    if not history:
        return None
    fruitless = 0
    for retraining in history:
        if retraining.promoted:
            break
        fruitless += 1
    factor = min(2**fruitless, LONGEST_FACTOR)
    newest = history[0]
    why = f"a run was started at {newest.created:%Y-%m-%d %H:%M} UTC"
    if fruitless:
        why += f", {fruitless} in a row released nothing, so the quiet time is {factor}-fold"
    return later(newest.created, factor * bounded(cooldown)), why


def unchanged_since_last(
    instance: dg.DagsterInstance, platform: Platform, spec: ModelSpec, definitions: str
) -> str | None:
    """Say that another training would see the rows and definitions of the last one; None when it would not.

    Parameters
    ----------
    definitions
        Digest of the model's definitions, which a training set records as its code version.
    """
    folder = platform.settings.handoff_dir
    release = newest_document(folder, key(spec, "release"), instance)
    if release is None or (run_id := release.made_from.get("training_set")) is None:
        return None
    stored, run = read_document(folder, key(spec, "training_set"), run_id), instance.get_run_by_id(run_id)
    if stored is None or run is None or _is_pinned(run, spec) or _code_version(instance, spec, run_id) != definitions:
        return None
    trained = _TablesRead.model_validate(stored.document).tables
    if not all(platform.lake.exists(table) for table in trained) or platform.lake.versions(trained) != trained:
        return None
    return (
        f"nothing has changed since run {run_id} trained it: the same definitions and the same versions of "
        f"{', '.join(sorted(trained))}"
    )


def _is_pinned(run: dg.DagsterRun, spec: ModelSpec) -> bool:
    """Whether somebody had a run train as of an instant of the past."""
    operations = run.run_config.get("ops", {}) if isinstance(run.run_config, dict) else {}
    return bool(operations.get(f"{spec.name}__training_set", {}).get("config", {}).get("as_of"))


def _code_version(instance: dg.DagsterInstance, spec: ModelSpec, run_id: str) -> str | None:
    """The definitions that a run's training set was made by, as Dagster recorded them."""
    materializations = instance.fetch_materializations(key(spec, "training_set"), limit=50)
    for record in materializations.records:
        materialization = record.event_log_entry.asset_materialization
        if record.run_id == run_id and materialization is not None:
            return (materialization.tags or {}).get("dagster/code_version")
    return None
