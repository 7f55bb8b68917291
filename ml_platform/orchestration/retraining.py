"""Starts a retraining run when a check on drift or on performance has failed, once per failure and never in a rush."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from ml_platform.spec import ModelSpec
from ml_platform.spec_types import duration

TRIGGER_TAG = "ml_platform/trigger"
REASON_TAG = "ml_platform/reason"


@dataclass(frozen=True)
class FinishedCheck:
    """The newest evaluation of a check that has come to an end."""

    failed: bool
    severity: dg.AssetCheckSeverity
    run_id: str
    description: str


def latest_finished(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> FinishedCheck | None:
    """Read a check's newest finished evaluation.

    A check that is planned or running hides the failure before it from the public "latest" call, so this reads the
    history, which Dagster does not export as an API; every use of it is here.
    """
    finished = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=finished)
    if not records or (evaluation := records[0].evaluation) is None:
        return None
    return FinishedCheck(
        failed=not evaluation.passed,
        severity=evaluation.severity,
        run_id=records[0].run_id,
        description=evaluation.description or key.name,
    )


def retraining_sensor(spec: ModelSpec, job_name: str) -> dg.SensorDefinition | None:
    """Build the sensor that retrains a model on drift or decay; None when its spec wants neither."""
    watched = {
        "drift": (spec.retraining.on_drift, dg.AssetCheckKey(dg.AssetKey([spec.name, "drift_report"]), "no_drift")),
        "performance": (
            spec.retraining.on_performance,
            dg.AssetCheckKey(dg.AssetKey([spec.name, "performance"]), "above_minimum"),
        ),
    }
    keys = {name: key for name, (wanted, key) in watched.items() if wanted}
    if not keys:
        return None

    @dg.sensor(
        name=f"{spec.name}_retraining",
        job_name=job_name,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            f"Retrains {spec.name} when the newest finished check on {' or '.join(keys)} failed with severity ERROR, "
            f"at most once per failure and once in {duration(spec.retraining.cooldown)}."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        quiet = []
        for name, key in keys.items():
            check = latest_finished(context.instance, key)
            if check is None:
                quiet.append(f"{key.name} has not been evaluated yet")
            elif not check.failed:
                quiet.append(f"{key.name} passed")
            elif check.severity != dg.AssetCheckSeverity.ERROR:
                quiet.append(f"{key.name} only warned: {check.description}")
            elif wait := _cooling_down(context.instance, spec):
                quiet.append(f"{key.name} failed, but {wait}")
            else:
                yield dg.RunRequest(
                    run_key=f"{key.name}:{check.run_id}",
                    tags={TRIGGER_TAG: f"{spec.name}/{name}", REASON_TAG: check.description[:250]},
                )
                return
        yield dg.SkipReason("; ".join(quiet))

    return sensor


def _cooling_down(instance: dg.DagsterInstance, spec: ModelSpec) -> str | None:
    """Say until when no further run may be triggered, from the runs that a trigger has started."""
    since = datetime.now(UTC) - spec.retraining.cooldown
    records = [
        record
        for trigger in ("drift", "performance")
        for record in instance.get_run_records(
            dg.RunsFilter(tags={TRIGGER_TAG: f"{spec.name}/{trigger}"}, created_after=since), limit=1
        )
    ]
    if not records:
        return None
    newest = max(record.create_timestamp for record in records)
    until = newest + spec.retraining.cooldown
    return f"a run was triggered at {newest:%Y-%m-%d %H:%M} UTC; quiet until {until:%Y-%m-%d %H:%M}"
