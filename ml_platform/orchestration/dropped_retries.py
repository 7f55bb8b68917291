"""Asks again for the retries that Dagster means to make and never does.

Dagster's daemon looks once at a run that failed, and then makes its retry. Two things lose a retry for good:

- The code server does not answer: it went down with the run, or before a run of the queue could be launched. The daemon
  gives the retry up. A sensor is evaluated on the code server: when this one is, the retry can be made.
- The daemon looks too early. A failure is stored as an event first and as the status of the run after it; in between
  the daemon sees a run that has not failed, passes on, and never comes back. It is milliseconds, and on a busy machine
  more.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.errors import DagsterCodeLocationLoadError, DagsterUserCodeUnreachableError
from dagster._core.events import DagsterEventType, JobFailureData, RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.tags import (
    AUTO_RETRY_RUN_ID_TAG,
    PARENT_RUN_ID_TAG,
    RUN_FAILURE_REASON_TAG,
    WILL_RETRY_TAG,
)

# Dagster's own words and the name of its daemon's cursor, which tests hold.
DROPPED, REFUSED = "Failed to retry run", "Not retrying run"
CURSOR = f"EVENT_LOG_CONSUMER_CURSOR-{DagsterEventType.RUN_FAILURE.value}"
NO_ANSWER = {DagsterUserCodeUnreachableError.__name__, DagsterCodeLocationLoadError.__name__}
ATTEMPTS = 5  # of one retry; a code server that never stays up for one is somebody's to look at
LOOK_BACK = timedelta(days=1)


def will_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether Dagster means to retry a run whose failure was reported.

    The tag that says so is the last thing to be written of a failure; while it is missing, Dagster's rule decides.
    """
    tag = run.tags.get(WILL_RETRY_TAG)
    if tag is not None or not instance.run_retries_enabled:
        return tag == "true"
    reason = run.tags.get(RUN_FAILURE_REASON_TAG)
    failed = run.with_status(dg.DagsterRunStatus.FAILURE)
    return auto_reexecution_should_retry_run(instance, failed, RunFailureReason(reason) if reason else None)


def dropped_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int | None:
    """Say how often a run's retry was given up for want of a code server; None when there is none to ask for.

    There is none when the run is retried or was given up for another reason, when somebody re-executed it, or when it
    was asked for `ATTEMPTS` times.
    """
    if run.status != dg.DagsterRunStatus.FAILURE or run.tags.get(WILL_RETRY_TAG) != "false":
        return None
    events = [event for event in _engine_events(instance, run) if event.message == DROPPED]
    error = events[-1].engine_event_data.error if events else None
    if error is None or error.cls_name not in NO_ANSWER or len(events) >= ATTEMPTS or _executed_again(instance, run):
        return None
    return len(events)


def overlooked_retries(instance: dg.DagsterInstance, failed: Sequence[dg.DagsterRun]) -> list[dg.DagsterRun]:
    """Select the runs that are to be retried, but that Dagster's daemon has passed on without a retry.

    Parameters
    ----------
    instance
        Its daemon's cursor says which failures the daemon has looked at.
    failed
        Runs that failed, read before: the daemon may have retried some since, but not overlooked others.
    """
    cursor = instance.daemon_cursor_storage.get_cursor_values({CURSOR}).get(CURSOR)
    if cursor is None:
        return []  # the daemon has not looked at anything yet
    log = instance.event_log_storage
    pending = log.get_logs_for_all_runs_by_log_id(int(cursor), DagsterEventType.RUN_FAILURE).values()
    not_yet = {entry.run_id for entry in pending}
    return [run for run in failed if run.run_id not in not_yet and _is_owed_a_retry(instance, run)]


def ask_again(instance: dg.DagsterInstance) -> Iterator[dg.DagsterRun]:
    """Report the failure of each run anew whose retry was lost: Dagster makes retries of failures it is told of."""
    since = datetime.now(UTC) - LOOK_BACK
    failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since))
    for run in failed:
        attempt = dropped_retry(instance, run)
        if attempt is not None:
            why = f"The code server did not answer when the retry was due; it is asked for again ({attempt})."
            yield _report_anew(instance, run, why)
    for run in overlooked_retries(instance, failed):
        yield _report_anew(instance, run, "Dagster's daemon did not make the retry that is due; it is asked for again.")


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks again for retries that Dagster gave up because the code server did not answer, or overlooked.",
)
def dropped_retries(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Ask again for every retry that was lost; Dagster's daemon makes them."""
    run_ids = [run.run_id for run in ask_again(context.instance)]
    return dg.SkipReason(f"retries asked for again: {', '.join(run_ids)}" if run_ids else "no retry was lost")


def _is_owed_a_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    if AUTO_RETRY_RUN_ID_TAG in run.tags or not will_retry(instance, run) or _executed_again(instance, run):
        return False
    if any((event.message or "").startswith(REFUSED) for event in _engine_events(instance, run)):
        return False  # of a backfill that has ended
    return len(instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_FAILURE)) < ATTEMPTS


def _executed_again(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    return bool(instance.get_runs(dg.RunsFilter(tags={PARENT_RUN_ID_TAG: run.run_id}), limit=1))


def _engine_events(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[dg.DagsterEvent]:
    return [entry.get_dagster_event() for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)]


def _report_anew(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> dg.DagsterRun:
    reason = run.tags.get(RUN_FAILURE_REASON_TAG)
    failure = JobFailureData(error=None, failure_reason=RunFailureReason(reason) if reason else None)
    instance.report_run_failed(run, message, failure)
    return run
