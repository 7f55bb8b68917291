"""A retry that Dagster gave up because no code server answered is asked for again; Dagster's own daemon gives it up."""

import logging
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEventType, EngineEventData, JobFailureData, RunFailureReason
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import consume_new_runs_for_automatic_reexecution
from dagster._utils.error import SerializableErrorInfo

from ml_platform.orchestration.dropped_retries import ATTEMPTS, DROPPED, ask_again, dropped_retries
from ml_platform.orchestration.run_alerts import run_alerts
from ml_platform_tests.ports import free_port

PORT = free_port()
RETRIES = {"run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=RETRIES) as local:
        yield local


def killed_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A run of a code server that is away, which Dagster means to retry."""
    server = GrpcServerCodeLocationOrigin(host="127.0.0.1", port=PORT, location_name="toy")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(server, "__repository__"), "toy_retrain")
    run = dg.DagsterRun(
        job_name="toy_retrain",
        status=dg.DagsterRunStatus.STARTED,
        remote_job_origin=origin,
        job_code_origin=None,
    )
    instance.add_run(run)
    fail(instance, run)
    return run


def fail(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    data = JobFailureData(error=None, failure_reason=RunFailureReason.UNEXPECTED_TERMINATION)
    instance.report_run_failed(run, "The run was killed.", data)


def daemon_retries(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Let Dagster's daemon look at a failed run, with no code server there."""
    target = GrpcServerTarget(host="127.0.0.1", port=PORT, socket=None, location_name="toy")
    record = instance.get_run_record_by_id(run.run_id)
    with pytest.warns(UserWarning, match="Error loading repository location toy"):
        workspace = WorkspaceProcessContext(instance, target)
    with workspace:
        list(consume_new_runs_for_automatic_reexecution(workspace, [record], logging.getLogger("daemon")))


def will_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    return instance.get_run_by_id(run.run_id).tags["dagster/will_retry"]


def give_up(instance: dg.DagsterInstance, run: dg.DagsterRun, error: str) -> None:
    """Report what Dagster reports when it gives a retry up."""
    info = SerializableErrorInfo("no answer", [], error)
    instance.report_engine_event(DROPPED, run, EngineEventData(error=info))
    instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})


def test_what_dagster_gave_up_is_asked_for_again(instance):
    run = killed_run(instance)
    assert will_retry(instance, run) == "true"
    assert list(ask_again(instance)) == []  # Dagster has yet to try
    daemon_retries(instance, run)
    assert will_retry(instance, run) == "false"  # for good, without us

    context = dg.build_sensor_context(instance=instance)
    tick = dropped_retries.evaluate_tick(context)
    assert tick.skip_message == f"retries asked for again: {run.run_id}"
    assert will_retry(instance, run) == "true"
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
    assert will_retry(instance, run) == "false"
    assert list(ask_again(instance)) == []


def test_the_sensor_is_among_the_platform_s():
    assert dropped_retries in run_alerts(frozenset()).sensors
