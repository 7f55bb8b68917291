"""A retry that Dagster gave up or overlooked is asked for again; it is Dagster's own daemon that loses them here."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEventType, EngineEventData, JobFailureData, RunFailureReason
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import consume_new_runs_for_automatic_reexecution
from dagster._daemon.auto_run_reexecution.event_log_consumer import EventLogConsumerDaemon
from dagster_shared.error import SerializableErrorInfo

from ml_platform.orchestration.dropped_retries import (
    ATTEMPTS,
    CURSOR,
    DROPPED,
    REFUSED,
    ask_again,
    dropped_retries,
    will_retry,
)
from ml_platform.orchestration.run_alerts import run_alerts
from ml_platform_tests.ports import free_port

PORT = free_port()
RETRIES = {"run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=RETRIES) as local:
        yield local


def killed_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A failed run of a code server that is away, which Dagster means to retry."""
    run = running(instance)
    fail(instance, run)
    return run


def running(instance: dg.DagsterInstance) -> dg.DagsterRun:
    server = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=PORT, location_name="toy")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(server, "__repository__"), "toy_retrain")
    run = dg.DagsterRun(
        job_name="toy_retrain",
        status=dg.DagsterRunStatus.STARTED,
        remote_job_origin=origin,
        job_code_origin=None,
    )
    instance.add_run(run)
    return run


def fail(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    data = JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION)
    instance.report_run_failed(run, "The run was killed.", data)


@contextmanager
def workspace_without_server(instance: dg.DagsterInstance) -> Iterator[WorkspaceProcessContext]:
    """What Dagster's daemon works with while no code server is there."""
    target = GrpcServerTarget(host="127.0.0.1", port=PORT, socket=None, location_name="toy")
    with pytest.warns(UserWarning, match="Error loading repository location toy"):
        workspace = WorkspaceProcessContext(instance, target)
    with workspace:
        yield workspace


def daemon_retries(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Let Dagster's daemon look at a failed run, with no code server there."""
    record = instance.get_run_record_by_id(run.run_id)
    assert record is not None
    with workspace_without_server(instance) as workspace:
        list(consume_new_runs_for_automatic_reexecution(workspace, [record], logging.getLogger("daemon")))


def daemon_passes(instance: dg.DagsterInstance) -> None:
    """Let the daemon look at all events that are new to it, as it does every few seconds."""
    with workspace_without_server(instance) as workspace:
        list(EventLogConsumerDaemon().run_iteration(workspace))


def fail_under_the_daemon_s_eyes(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Report a failure as Dagster does, while its daemon looks between the two writes: of the event, of the status."""
    daemon_passes(instance)  # it starts from here
    storage, store = instance.event_log_storage, instance.event_log_storage.store_event

    def store_and_look(entry: dg.EventLogEntry) -> None:
        store(entry)
        if entry.is_dagster_event and entry.get_dagster_event().is_run_failure:
            daemon_passes(instance)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "store_event", store_and_look)
        fail(instance, run)


def tagged_to_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    stored = instance.get_run_by_id(run.run_id)
    assert stored is not None
    return stored.tags["dagster/will_retry"]


def give_up(instance: dg.DagsterInstance, run: dg.DagsterRun, error: str) -> None:
    """Report what Dagster reports when it gives a retry up."""
    info = SerializableErrorInfo("no answer", [], error)
    instance.report_engine_event(DROPPED, run, EngineEventData(error=info))
    instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})


def test_what_dagster_gave_up_is_asked_for_again(instance):
    run = killed_run(instance)
    assert tagged_to_retry(instance, run) == "true"
    assert list(ask_again(instance)) == []  # Dagster has yet to try
    daemon_retries(instance, run)
    assert tagged_to_retry(instance, run) == "false"  # for good, without us

    context = dg.build_sensor_context(instance=instance)
    tick = dropped_retries.evaluate_tick(context)
    assert tick.skip_message == f"retries asked for again: {run.run_id}"
    assert tagged_to_retry(instance, run) == "true"
    failures = instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_FAILURE)  # each of which Dagster looks at
    assert len(failures) == 2
    assert instance.get_run_by_id(run.run_id).tags["dagster/failure_reason"] == "UNEXPECTED_TERMINATION"
    assert list(ask_again(instance)) == []


def test_a_retry_is_asked_for_a_few_times_only(instance):
    run = killed_run(instance)
    for _ in range(ATTEMPTS - 1):
        give_up(instance, run, "DagsterUserCodeUnreachableError")
        assert [asked.run_id for asked in ask_again(instance)] == [run.run_id]
    give_up(instance, run, "DagsterUserCodeUnreachableError")
    assert list(ask_again(instance)) == []


def test_what_was_given_up_for_another_reason_stays_so(instance):
    run = killed_run(instance)
    give_up(instance, run, "DagsterInvalidConfigError")
    assert list(ask_again(instance)) == []


def test_a_run_that_somebody_has_executed_again_is_left_alone(instance):
    run = killed_run(instance)
    give_up(instance, run, "DagsterCodeLocationLoadError")
    tags = {"dagster/parent_run_id": run.run_id, "dagster/root_run_id": run.run_id}
    instance.add_run(dg.DagsterRun(job_name="toy_retrain", parent_run_id=run.run_id, root_run_id=run.run_id, tags=tags))
    assert list(ask_again(instance)) == []


def test_a_run_that_failed_by_itself_is_left_alone(instance):
    run = dg.DagsterRun(job_name="toy_retrain", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(run)
    failed = JobFailureData(error=None, failure_reason=RunFailureReason.STEP_FAILURE)
    instance.report_run_failed(run, "A step failed.", failed)
    assert tagged_to_retry(instance, run) == "false"
    assert list(ask_again(instance)) == []


def test_a_retry_that_the_daemon_overlooked_is_asked_for_again(instance):
    run = running(instance)
    fail_under_the_daemon_s_eyes(instance, run)
    daemon_passes(instance)
    assert tagged_to_retry(instance, run) == "true"
    assert gave_up(instance, run) == 0  # it has not even tried, and never would

    assert [asked.run_id for asked in ask_again(instance)] == [run.run_id]
    assert list(ask_again(instance)) == []  # the daemon has yet to look
    daemon_passes(instance)
    assert gave_up(instance, run) == 1  # now it tries; that no code server is there is another story
    assert instance.get_run_by_id(run.run_id).tags["dagster/failure_reason"] == "UNEXPECTED_TERMINATION"


def test_a_retry_that_is_under_way_is_not_asked_for_again(instance):
    run = running(instance)
    fail_under_the_daemon_s_eyes(instance, run)
    instance.add_run_tags(run.run_id, {"dagster/auto_retry_run_id": "the-retry"})
    assert list(ask_again(instance)) == []


def test_an_overlooked_retry_that_somebody_has_made_is_left_alone(instance):
    run = running(instance)
    fail_under_the_daemon_s_eyes(instance, run)
    tags = {"dagster/parent_run_id": run.run_id, "dagster/root_run_id": run.run_id}
    instance.add_run(dg.DagsterRun(job_name="toy_retrain", parent_run_id=run.run_id, root_run_id=run.run_id, tags=tags))
    assert list(ask_again(instance)) == []


def test_a_retry_that_dagster_refused_is_not_asked_for_again(instance):
    """The run belongs to a backfill that was deleted."""
    run = running(instance)
    instance.add_run_tags(run.run_id, {"dagster/backfill": "deleted"})
    fail_under_the_daemon_s_eyes(instance, run)
    assert [asked.run_id for asked in ask_again(instance)] == [run.run_id]
    daemon_passes(instance)
    assert any(message.startswith(REFUSED) for message in engine_messages(instance, run))
    assert list(ask_again(instance)) == []


def test_an_overlooked_retry_is_asked_for_a_few_times_only(instance):
    run = killed_run(instance)
    instance.daemon_cursor_storage.set_cursor_values({CURSOR: "1000000"})  # whatever is reported, it has passed on
    for _ in range(ATTEMPTS - 1):
        assert [asked.run_id for asked in ask_again(instance)] == [run.run_id]
    assert list(ask_again(instance)) == []


def test_whether_a_run_is_retried_is_known_before_its_tag_is_written(instance):
    run = running(instance)
    assert will_retry(instance, run)
    by_itself = run.with_tags({"dagster/failure_reason": "STEP_FAILURE"})
    assert not will_retry(instance, by_itself)
    assert will_retry(instance, by_itself.with_tags({"dagster/will_retry": "true"}))


def engine_messages(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    entries = instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    return [entry.get_dagster_event().message or "" for entry in entries]


def gave_up(instance: dg.DagsterInstance, run: dg.DagsterRun) -> int:
    return engine_messages(instance, run).count(DROPPED)


def test_the_sensor_is_among_the_platform_s():
    assert dropped_retries in (run_alerts(frozenset()).sensors or ())
