"""Tells the people behind the alerts of runs that failed, and of runs that wait or work far too long."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.orchestration.dropped_retries import dropped_retries, dropped_retry, will_retry
from ml_platform.orchestration.resources import Platform
from ml_platform.orchestration.run_workers import killed_because, run_worker

if TYPE_CHECKING:
    from ml_platform.monitoring.alerts.alert import Alert

TOLD_TAG = "ml_platform/failure_told"  # of a run: the severity of its alert
PLATFORM = "platform"  # stands for the model in alerts of runs that belong to none
LIMITS = {
    dg.DagsterRunStatus.QUEUED: timedelta(minutes=30),
    dg.DagsterRunStatus.NOT_STARTED: timedelta(minutes=15),
    dg.DagsterRunStatus.STARTING: timedelta(minutes=15),
    dg.DagsterRunStatus.STARTED: timedelta(hours=3),
    dg.DagsterRunStatus.CANCELING: timedelta(minutes=15),
}


def model_of(run: dg.DagsterRun, models: frozenset[str]) -> str:
    """The model that a run works on, by its assets or its job's name; `platform` when it is none or several.

    Examples
    --------
    >>> model_of(dg.DagsterRun(job_name="flight_delay_retrain"), frozenset({"flight_delay", "flight"}))
    'flight_delay'
    """
    by_asset = {asset.path[0] for asset in run.asset_selection or ()} & models
    by_name = sorted((model for model in models if run.job_name.startswith(f"{model}_")), key=len, reverse=True)
    if len(by_asset) == 1:
        return by_asset.pop()
    return by_name[0] if by_name and not by_asset else PLATFORM


def failure_alert(
    run: dg.DagsterRun,
    message: str,
    steps: Mapping[str, str],
    models: frozenset[str],
    *,
    retried: bool = False,
    killed: str | None = None,
) -> "Alert":
    """Say which run failed or was killed, where and why, and whether it is retried.

    Parameters
    ----------
    run
        The run.
    message
        What Dagster says of the failure.
    steps
        Step that failed → its error.
    models
        Names of the project's models.
    retried
        Whether Dagster means to retry it.
    killed
        How it is known that a process of the run was killed; None when it failed by itself.

    Examples
    --------
    >>> run = dg.DagsterRun(job_name="toy_retrain", run_id="0a1b2c3d-0000-0000-0000-000000000000")
    >>> alert = failure_alert(run, "", {}, frozenset({"toy"}), killed="its process on here (pid 12) is gone")
    >>> alert.title
    'run 0a1b2c3d of toy_retrain was killed'
    """
    from ml_platform.monitoring.alerts.alert import Alert

    reasons = [f"{step}: {error}" for step, error in steps.items()]
    if killed is not None:
        reasons = [
            f"{killed[:1].upper()}{killed[1:]}. Somebody ended it, or the machine did, as it does when memory runs "
            "out, or the machine itself went down."
        ]
    return Alert(
        model=model_of(run, models),
        kind="run_failed",
        severity="warning" if retried else "error",
        title=f"run {run.run_id[:8]} of {run.job_name} {'failed' if killed is None else 'was killed'}"
        + (" and is retried" if retried else ""),
        body="\n".join([*reasons, message])[:1000],
        facts={"run": run.run_id, "job": run.job_name, "failed steps": ", ".join(steps) or "none: the run itself"},
    )


def _errors(events: Sequence[dg.DagsterEvent]) -> dict[str, str]:
    """Each failed step's own error, without what Dagster wraps it in."""
    errors = {}
    for event in events:
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        if event.step_key is not None:
            errors[event.step_key] = error.message.strip() if error is not None else "failed"
    return errors


def stuck_alert(record: dg.RunRecord, waited: timedelta, why: str, models: frozenset[str]) -> "Alert":
    """Say which run makes no progress, since when, and what to do."""
    from ml_platform.monitoring.alerts.alert import Alert

    run = record.dagster_run
    status = run.status.value.lower().replace("_", " ")
    return Alert(
        model=model_of(run, models),
        kind="run_stuck",
        severity="warning",
        title=f"run {run.run_id[:8]} of {run.job_name} has been {status} for {waited.total_seconds() / 60:.0f} minutes",
        body=f"{why} Look at the run in Dagster and terminate it if it should not go on.",
        facts={"run": run.run_id, "job": run.job_name, "status": run.status.value},
    )


def run_alerts(models: frozenset[str]) -> dg.Definitions:
    """Build the sensors that watch all runs of the instance.

    Parameters
    ----------
    models
        Names of the project's models.
    """

    @dg.run_failure_sensor(
        name="failed_runs",
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Sends an alert for every run that failed, those included that a kill left and monitoring ended.",
    )
    def failed_runs(context: dg.RunFailureSensorContext, platform: Platform) -> None:
        from ml_platform.monitoring.alerts.alert import record_alert

        run = context.instance.get_run_by_id(context.dagster_run.run_id) or context.dagster_run  # with its newest tags
        newest = context.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)[-1].get_dagster_event()
        if newest != context.failure_event or dropped_retry(context.instance, run) is not None:
            return  # the retry was or is asked for again, by a failure that is told in place of this one
        steps = _errors(context.get_step_failure_events())
        message, killed = context.failure_event.message or "", killed_because(context.instance, run.run_id)
        retried = will_retry(context.instance, run)
        alert = failure_alert(run, message, steps, models, retried=retried, killed=killed)
        if run.tags.get(TOLD_TAG) == alert.severity:
            return  # its failure was reported anew, because the retry that was told then was given up meanwhile
        record_alert(platform.settings, alert)
        context.instance.add_run_tags(run.run_id, {TOLD_TAG: alert.severity})

    @dg.sensor(
        name="stuck_runs",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends one alert for each run that waits or works far longer than runs do.",
    )
    def stuck_runs(context: dg.SensorEvaluationContext, platform: Platform) -> dg.SkipReason:
        from ml_platform.monitoring.alerts.alert import record_alert

        alerted = set(json.loads(context.cursor or "[]"))
        stuck = {f"{record.dagster_run.run_id}/{record.dagster_run.status.value}": record for record in _stuck(context)}
        for name in sorted(stuck.keys() - alerted):
            record = stuck[name]
            why = run_worker(context.instance, record.dagster_run).reason
            record_alert(
                platform.settings, stuck_alert(record, _waited(record), f"{why[:1].upper()}{why[1:]}.", models)
            )
        context.update_cursor(json.dumps(sorted(stuck)))
        return dg.SkipReason(f"{len(stuck)} runs make no progress" if stuck else "every run makes progress")

    return dg.Definitions(sensors=[failed_runs, stuck_runs, dropped_retries])


def _stuck(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRecord]:
    for record in context.instance.get_run_records(dg.RunsFilter(statuses=list(LIMITS))):
        if _waited(record) > LIMITS[record.dagster_run.status]:
            yield record


def _waited(record: dg.RunRecord) -> timedelta:
    """How long a run has been in its present status."""
    return datetime.now(UTC) - record.update_timestamp.astimezone(UTC)
