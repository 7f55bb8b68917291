"""Asks again for the retries that Dagster gave up because the code server did not answer when they were due.

Dagster's daemon tries once to make a retry. Where the code server went down with the run, or before a run of the queue
could be launched, that one try fails, and the run would stay failed for good. A sensor is evaluated on the code server:
when this one is, the retry can be made.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.errors import DagsterCodeLocationLoadError, DagsterUserCodeUnreachableError
from dagster._core.events import DagsterEventType, JobFailureData, RunFailureReason
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, RUN_FAILURE_REASON_TAG, WILL_RETRY_TAG

DROPPED = "Failed to retry run"  # Dagster's own words, which a test holds
NO_ANSWER = {DagsterUserCodeUnreachableError.__name__, DagsterCodeLocationLoadError.__name__}
ATTEMPTS = 5  # of one retry; a code server that never stays up for one is somebody's to look at
LOOK_BACK = timedelta(days=1)


def dropped_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int | None:
    """Say how often a run's retry was given up for want of a code server; None when there is none to ask for.

    There is none when the run is retried or was given up for another reason, when somebody re-executed it, or when it
    was asked for `ATTEMPTS` times.
    """
    if run.status != dg.DagsterRunStatus.FAILURE or run.tags.get(WILL_RETRY_TAG) != "false":
        return None
    events = [
        event
        for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
        if (event := entry.get_dagster_event()).message == DROPPED
    ]
    error = events[-1].engine_event_data.error if events else None
    if error is None or error.cls_name not in NO_ANSWER or len(events) >= ATTEMPTS:
        return None
    if instance.get_runs(dg.RunsFilter(tags={PARENT_RUN_ID_TAG: run.run_id}), limit=1):
        return None
    return len(events)


def ask_again(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    """Report the failure of each run anew whose retry was given up: Dagster makes retries of failures it is told of."""
    filters = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.FAILURE],
        tags={WILL_RETRY_TAG: "false"},
        updated_after=datetime.now(UTC) - LOOK_BACK,
    )
    for run in instance.get_runs(filters):
        attempt = dropped_retry(instance, run)
        if attempt is None:
            continue
        reason = run.tags.get(RUN_FAILURE_REASON_TAG)
        failure = JobFailureData(error=None, failure_reason=RunFailureReason(reason) if reason else None)
        message = f"The code server did not answer when the retry was due; it is asked for again ({attempt})."
        instance.report_run_failed(run, message, failure)
        yield run


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks again for retries that were given up because the code server did not answer.",
)
def dropped_retries(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Ask again for every retry that was given up; Dagster's daemon makes them."""
    asked = [run.run_id for run in ask_again(context.instance)]
    return dg.SkipReason(f"retries asked for again: {', '.join(asked)}" if asked else "no retry was given up")
