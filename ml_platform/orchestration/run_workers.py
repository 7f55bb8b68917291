"""Whether the process behind a run is still there, and what to do with runs whose process is gone.

A run that was killed stays "started" in Dagster's storage and holds its place in the queue for good. Its worker is
known by the host on which it was launched (a tag) and by the pid that it reported, with the time of the report: a
process that began later is another one that got the same number.
"""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import dagster as dg
from dagster._core.events import DagsterEventType, EngineEventData, JobFailureData, RunFailureReason

from ml_platform.processes import table

HOST_TAG = "ml_platform/host"
KILLED = "ml_platform/killed"  # in the metadata of an event: how it was found that a run's process is gone
# Dagster's own words, which tests hold: of its code server when a run's process ends without a word, and of its
# executor when a step's does.
RUN_ENDED = "Run execution process for"
CRASH, SIGNALLED = "ChildProcessCrashException", "was terminated by signal "
CLOCK_SLACK = 2.0  # seconds; the machine's start is known to one
IN_PROGRESS = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


class WorkerState(Enum):
    """What is known of a run's process."""

    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Worker:
    """A run's process, as far as it is known, and in words."""

    state: WorkerState
    reason: str


def run_worker(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Worker:
    """Look for a run's process on this machine; what cannot be told is `UNKNOWN`, never `GONE`."""
    here = socket.gethostname()
    if (elsewhere := _launched_elsewhere(instance, run, here)) is not None:
        return Worker(WorkerState.UNKNOWN, elsewhere)
    reported = _reported(instance, run)
    if reported is None:
        if run.status != dg.DagsterRunStatus.STARTED and _starting_here():
            return Worker(WorkerState.UNKNOWN, "its process is starting")
        return Worker(WorkerState.GONE, "no process has reported for it, and none is starting")
    pid, at = reported
    began = table.started_at(pid)
    if began is None or began > at + CLOCK_SLACK:
        return Worker(WorkerState.GONE, f"its process on {here} (pid {pid}) is gone")
    return Worker(WorkerState.ALIVE, f"its process on {here} has pid {pid}")


def _launched_elsewhere(instance: dg.DagsterInstance, run: dg.DagsterRun, here: str) -> str | None:
    """Why a run's process cannot be looked for on this machine; None when it can."""
    if not table.PROC.is_dir():
        return "this system has no /proc to look for its process"
    host = run.tags.get(HOST_TAG)
    if host is not None:
        return None if host == here else f"it was launched on {host}, this is {here}"
    from dagster._core.storage.runs import SqliteRunStorage  # brings SQLAlchemy and Alembic

    # SQLite is not shared between machines: whoever wrote the run there was here.
    return None if isinstance(instance.run_storage, SqliteRunStorage) else "its host is not known"


def reap_orphans(instance: dg.DagsterInstance) -> list[tuple[dg.DagsterRun, str]]:
    """End every run of this machine whose process is gone: failed, or canceled where that was asked for.

    What such a run left, steps that outlived it, is ended first, so that a retry has the model to itself.

    Returns
    -------
    list of (run, reason)
        The runs that were ended.
    """
    reaped = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=IN_PROGRESS)):
        run = record.dagster_run
        worker = run_worker(instance, run)
        if worker.state is not WorkerState.GONE:
            continue
        end_orphaned_steps()
        current = instance.get_run_by_id(run.run_id)
        if current is None or current.status not in IN_PROGRESS:  # it came to its end meanwhile
            continue
        if current.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(current, f"Canceled: {worker.reason}.")
        else:
            mark_killed(instance, current, worker)
            failure = JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION)
            instance.report_run_failed(current, f"The run was killed: {worker.reason}.", failure)
        reaped.append((current, worker.reason))
    return reaped


def mark_killed(instance: dg.DagsterInstance, run: dg.DagsterRun, worker: Worker) -> None:
    """Note in a run's log that its process is gone; a tag would be handed on to its retry, which may fail by itself."""
    data = EngineEventData(metadata={KILLED: dg.MetadataValue.text(worker.reason)})
    instance.report_engine_event(f"The run was killed: {worker.reason}.", run, data)


def killed_because(instance: dg.DagsterInstance, run_id: str) -> str | None:
    """Say how it is known that the process of a run, or of a step, was killed; None when the run failed by itself.

    Examples
    --------
    >>> with dg.DagsterInstance.ephemeral() as instance:
    ...     run = dg.DagsterRun(job_name="toy")
    ...     _ = instance.add_run(run)
    ...     print(killed_because(instance, run.run_id))
    ...     mark_killed(instance, run, Worker(WorkerState.GONE, "its process on here (pid 12) is gone"))
    ...     print(killed_because(instance, run.run_id))
    None
    its process on here (pid 12) is gone
    """
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
        event = entry.get_dagster_event()
        data, message = event.engine_event_data, event.message or ""
        if (reason := data.metadata.get(KILLED)) is not None:
            return str(reason.value)
        if how := message.partition(f"{RUN_ENDED} {run_id} ")[2].partition(".")[0]:
            return f"its process {how}"
        how = message.partition(SIGNALLED)[2].partition(".")[0]
        if event.step_key is not None and data.error is not None and data.error.cls_name == CRASH and how:
            return f"the process of its step {event.step_key} {SIGNALLED}{how}"
    return None


def end_orphaned_steps() -> None:
    """End the step processes on this Dagster home that have lost their run: they would write on beside its retry."""
    table.end(_orphaned_steps())


def _orphaned_steps() -> Iterator[int]:
    home = {"DAGSTER_HOME": os.environ.get("DAGSTER_HOME", "")}
    family = {*table.marked(home), os.getpid()}
    for pid in family:
        if "multiprocessing.forkserver" in table.command(pid) and table.parent(pid) not in family:
            yield pid


def _starting_here() -> bool:
    """Whether a process that could be a run's, not yet reported, is on this Dagster home: code servers spawn them."""
    home = {"DAGSTER_HOME": os.environ.get("DAGSTER_HOME", "")}
    return any("--multiprocessing-fork" in table.command(pid) for pid in table.marked(home))


def _reported(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[int, float] | None:
    """The pid that a run's own process has reported last, and when."""
    for entry in reversed(instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)):
        event = entry.dagster_event
        if event is None or event.step_key is not None:
            continue
        value = event.engine_event_data.metadata.get("pid")
        if value is not None and str(value.value).isdigit():
            return int(str(value.value)), entry.timestamp
    return None
