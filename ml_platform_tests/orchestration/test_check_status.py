"""A run that waits, works or was canceled does not hide what a check has found: a real webserver, by GraphQL."""

from collections.abc import Iterator

import dagster as dg
import pytest

from ml_platform_tests.orchestration.webserver_process import Dagster, serve

FAILING = """
import dagster as dg

@dg.asset(check_specs=[dg.AssetCheckSpec("no_drift", asset="report")])
def report() -> dg.MaterializeResult:
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False, description="two columns drifted")])

defs = dg.Definitions(assets=[report], jobs=[dg.define_asset_job("watch", selection=[report])],
                      executor=dg.in_process_executor)
"""
KEY = dg.AssetCheckKey(dg.AssetKey("report"), "no_drift")
STATUS = """{ assetChecksOrError: assetNodeOrError(assetKey: {path: ["report"]}) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { executionForLatestMaterialization {
    status runId evaluation { success description } } } } } } } }"""
LAUNCH = """mutation { launchRun(executionParams: {selector: {repositoryLocationName: "small",
  repositoryName: "__repository__", jobName: "watch"}}) { ... on LaunchRunSuccess { run { runId } } } }"""


def shown(server: Dagster) -> tuple[str, str | None]:
    """What the UI says of the check, and the description of the evaluation that it shows."""
    (check,) = server.ask(STATUS)["assetChecksOrError"]["assetChecksOrError"]["checks"]
    execution = check["executionForLatestMaterialization"]
    return execution["status"], execution["evaluation"] and execution["evaluation"]["description"]


def fail_the_check(server: Dagster) -> None:
    """Evaluate it by a run in this process, on the server's instance."""
    namespace: dict[str, dg.Definitions] = {}
    exec(FAILING, namespace)
    job = namespace["defs"].resolve_job_def("watch")
    assert job.execute_in_process(instance=server.instance).success


def enqueue(server: Dagster) -> dg.DagsterRun:
    """Put a run that is to evaluate the check into the queue, where it stays: no daemon is there."""
    run_id = server.ask(LAUNCH)["launchRun"]["run"]["runId"]
    run = server.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.QUEUED
    newest = server.instance.event_log_storage.get_latest_asset_check_execution_by_key([KEY])[KEY]
    assert newest.run_id == run_id
    assert newest.status.value == "PLANNED"
    return run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    folder = tmp_path_factory.mktemp("checks")
    yield from serve(folder, "ml_platform.orchestration.webserver", code=FAILING)


@pytest.mark.timeout(600)
def test_the_last_evaluation_is_shown_until_there_is_another(server: Dagster):
    first = enqueue(server)
    assert shown(server) == ("IN_PROGRESS", None), "there is no evaluation to show yet"
    server.instance.report_run_canceled(first)
    assert shown(server) == ("SKIPPED", None)
    fail_the_check(server)
    failed = ("FAILED", "two columns drifted")
    assert shown(server) == failed

    run = enqueue(server)
    assert shown(server) == failed, "a queued run"
    server.instance.handle_run_event(run.run_id, started(run))
    started_run = server.instance.get_run_by_id(run.run_id)
    assert started_run is not None
    assert started_run.status == dg.DagsterRunStatus.STARTED
    assert shown(server) == failed, "a run that works, or is stuck"
    server.instance.report_run_canceled(run)
    assert shown(server) == failed, "a run that was canceled before it came to the check"
    server.instance.report_run_failed(enqueue(server), "the machine went down")
    assert shown(server) == ("EXECUTION_FAILED", None), "a run that failed before it came to the check"
    enqueue(server)
    assert shown(server) == failed, "its retry in the queue"
    server.instance.delete_run(server.instance.get_runs(limit=1)[0].run_id)
    fail_the_check(server)
    assert shown(server) == failed


def started(run: dg.DagsterRun) -> dg.DagsterEvent:
    return dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_START.value, job_name=run.job_name)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_dagsters_own_webserver_hides_it(tmp_path_factory: pytest.TempPathFactory):
    """The control: without this the same queue shows no failure."""
    for server in serve(tmp_path_factory.mktemp("plain"), "dagster_webserver", code=FAILING):
        fail_the_check(server)
        assert shown(server) == ("FAILED", "two columns drifted")
        enqueue(server)
        assert shown(server) == ("IN_PROGRESS", None)
