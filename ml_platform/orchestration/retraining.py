"""Starts a retraining run when a check on drift or on performance has failed, or on schedule; never twice for nothing.

The sensor answers each failed evaluation once, keeps quiet after a run (whatever started it), longer after runs that
released nothing, and like the schedule skips what is under way already and what would see nothing new.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from ml_platform.orchestration.automation import schedule_status, sensor_status
from ml_platform.orchestration.resources import Platform
from ml_platform.orchestration.retraining_history import (
    CHECK_TAG,
    Retraining,
    quiet_until,
    retrainings,
    training_under_way,
    unchanged_since_last,
)
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import duration

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


def retraining_sensor(spec: ModelSpec, job_name: str, definitions: str) -> dg.SensorDefinition | None:
    """Build the sensor that retrains a model on drift or decay; None when its spec wants neither.

    Parameters
    ----------
    spec
        The model.
    job_name
        What it starts.
    definitions
        Digest of what the model is made by, as its training sets record it.
    """
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
        default_status=sensor_status(),
        description=(
            f"Retrains {spec.name} when the newest finished check on {' or '.join(keys)} failed with severity ERROR, "
            f"at most once per failure and once in {duration(spec.retraining.cooldown)}, more seldom after runs that "
            "released nothing, and never on unchanged data."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext, platform: Platform) -> Iterator[dg.RunRequest | dg.SkipReason]:
        quiet = []
        history = list(retrainings(context.instance, platform, spec))
        for name, key in keys.items():
            check = latest_finished(context.instance, key)
            if check is None:
                quiet.append(f"{key.name} has not been evaluated yet")
            elif not check.failed:
                quiet.append(f"{key.name} passed")
            elif check.severity != dg.AssetCheckSeverity.ERROR:
                quiet.append(f"{key.name} only warned: {check.description}")
            elif wait := _why_not_now(
                context.instance, platform, spec, history=history, check=check, definitions=definitions
            ):
                quiet.append(f"{key.name} failed, but {wait}")
            else:
                tries = len(_answers(history, check))
                yield dg.RunRequest(
                    run_key=f"{key.name}:{check.run_id}" + (f":{tries}" if tries else ""),
                    tags={
                        TRIGGER_TAG: f"{spec.name}/{name}",
                        REASON_TAG: check.description[:250],
                        CHECK_TAG: check.run_id,
                    },
                )
                return
        yield dg.SkipReason("; ".join(quiet))

    return sensor


def _answers(history: list[Retraining], check: FinishedCheck) -> list[Retraining]:
    """The retrainings that this evaluation of a check has started."""
    return [retraining for retraining in history if retraining.run.tags.get(CHECK_TAG) == check.run_id]


def _why_not_now(
    instance: dg.DagsterInstance,
    platform: Platform,
    spec: ModelSpec,
    *,
    history: list[Retraining],
    check: FinishedCheck,
    definitions: str,
) -> str | None:
    """Why a failed check starts no run now; None when it does."""
    if busy := training_under_way(instance, spec):
        return busy
    if history and history[0].is_retried:
        return f"run {history[0].run.run_id} failed and is retried"
    answers = _answers(history, check)
    if answers and answers[0].status == dg.DagsterRunStatus.SUCCESS:
        return f"run {answers[0].run.run_id} has answered this failure; the next evaluation decides"
    quiet = quiet_until(history, spec.retraining.cooldown)
    if quiet is not None and datetime.now(UTC) < quiet[0]:
        return f"{quiet[1]}; quiet until {quiet[0]:%Y-%m-%d %H:%M}"
    return unchanged_since_last(instance, platform, spec, definitions)


def retraining_schedule(spec: ModelSpec, job_name: str, definitions: str) -> list[dg.ScheduleDefinition]:
    """Build the schedule that retrains a model at its hours; none when its spec wants none."""
    if spec.retraining.schedule is None:
        return []

    @dg.schedule(
        name=f"{spec.name}_retraining_schedule",
        job_name=job_name,
        cron_schedule=spec.retraining.schedule,
        description=f"Starts {job_name}, unless one is under way or nothing has changed since the last.",
        default_status=schedule_status(),
    )
    def schedule(context: dg.ScheduleEvaluationContext, platform: Platform) -> dg.RunRequest | dg.SkipReason:
        reason = training_under_way(context.instance, spec) or unchanged_since_last(
            context.instance, platform, spec, definitions
        )
        return dg.SkipReason(reason) if reason else dg.RunRequest(tags={TRIGGER_TAG: f"{spec.name}/schedule"})

    return [schedule]
