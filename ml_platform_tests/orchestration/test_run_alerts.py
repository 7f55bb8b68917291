"""Failed and stuck runs reach the alerts, each once, under the name of their model."""

import json
import os
import signal
from datetime import timedelta

import dagster as dg
import pytest
from dagster._grpc.server import DagsterApiServer
from dagster._utils import get_run_crash_explanation

from ml_platform.orchestration import run_alerts
from ml_platform.orchestration.resources import build_resources
from ml_platform.orchestration.run_workers import Worker, WorkerState, killed_because, mark_killed
from ml_platform.settings import Settings

MODELS = frozenset({"toy", "toy_two"})


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def sent(settings: Settings):
    def _sent() -> list[dict]:
        file = settings.alerts_dir / "alerts.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    return _sent


def sensor(name: str) -> dg.SensorDefinition:
    (found,) = [each for each in run_alerts.run_alerts(MODELS).sensors or () if each.name == name]
    return found


def failed_release() -> dg.AssetsDefinition:
    @dg.asset(key=["toy", "release"])
    def release() -> None:
        raise ValueError("no rows")

    return release


def tell(instance: dg.DagsterInstance, settings: Settings, run_id: str) -> None:
    """Evaluate the sensor for the newest failure that a run has reported."""
    failure = instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)[-1].get_dagster_event()
    run = instance.get_run_by_id(run_id)
    assert run is not None
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_runs",
        dagster_event=failure,
        dagster_instance=instance,
        dagster_run=run,
        resources={"platform": build_resources(settings)["platform"]},
    ).for_run_failure()
    sensor("failed_runs")(context)


@pytest.mark.parametrize("retried", [False, True])
def test_a_failed_run_is_told_with_its_step_and_reason(instance, settings, sent, retried):
    result = dg.materialize([failed_release()], instance=instance, raise_on_error=False)
    if retried:
        instance.add_run_tags(result.run_id, {"dagster/will_retry": "true"})
    tell(instance, settings, result.run_id)
    (alert,) = sent()
    assert (alert["model"], alert["kind"]) == ("platform", "run_failed")  # the whole job of a test has no model's name
    assert alert["severity"] == ("warning" if retried else "error")
    assert alert["title"].endswith("failed and is retried" if retried else "failed")
    assert alert["facts"]["failed steps"] == "toy__release"
    assert alert["facts"]["run"] == result.run_id
    assert alert["body"].startswith("toy__release: ValueError: no rows\n")


def test_a_failure_that_is_reported_anew_is_told_again_only_when_it_has_become_worse(instance, settings, sent):
    run_id = dg.materialize([failed_release()], instance=instance, raise_on_error=False).run_id
    for retried in ("true", "true", "false", "false"):
        instance.add_run_tags(run_id, {"dagster/will_retry": retried})
        instance.report_run_failed(instance.get_run_by_id(run_id), "The retry is asked for again.")
        instance.add_run_tags(run_id, {"dagster/will_retry": retried})
        tell(instance, settings, run_id)
    assert [alert["severity"] for alert in sent()] == ["warning", "error"]


@pytest.mark.parametrize("retried", [False, True])
def test_a_killed_run_is_told_as_killed(instance, settings, sent, retried):
    run = dg.DagsterRun(job_name="toy_retrain", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(run)
    mark_killed(instance, run, Worker(WorkerState.GONE, "its process on here (pid 12) is gone"))
    instance.report_run_failed(run, "Marking the run as failed.")
    instance.add_run_tags(run.run_id, {"dagster/will_retry": str(retried).lower()})
    (failure,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_runs",
        dagster_event=failure.get_dagster_event(),
        dagster_instance=instance,
        dagster_run=run,
        resources={"platform": build_resources(settings)["platform"]},
    ).for_run_failure()
    sensor("failed_runs")(context)
    (alert,) = sent()
    assert (alert["model"], alert["severity"]) == ("toy", "warning" if retried else "error")
    assert alert["title"] == f"run {run.run_id[:8]} of toy_retrain was killed" + (" and is retried" if retried else "")
    assert alert["body"].startswith("Its process on here (pid 12) is gone. ")
    assert "memory" in alert["body"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [(-9, "its process was terminated by signal 9 (SIGKILL)"), (3, "its process unexpectedly exited with code 3")],
)
def test_what_the_code_server_says_of_a_run_is_understood(instance, code, reason):
    run = dg.DagsterRun(job_name="toy_retrain", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(run)
    prefix = f"Run execution process for {run.run_id}"  # as in DagsterApiServer._check_for_orphaned_runs
    instance.report_engine_event(get_run_crash_explanation(prefix, code), run, cls=DagsterApiServer)
    assert killed_because(instance, run.run_id) == reason


@dg.asset(key=["toy", "release"])
def killed_release() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dg.asset(key=["toy", "ended"])
def ended_release() -> None:
    os._exit(3)


def releases() -> dg.JobDefinition:
    assets = [killed_release, ended_release]
    definitions = dg.Definitions(assets=assets, jobs=[dg.define_asset_job("releases", selection=assets)])
    return definitions.resolve_job_def("releases")


@pytest.mark.parametrize(
    ("name", "killed"),
    [("release", "the process of its step toy__release was terminated by signal 9 (SIGKILL)"), ("ended", None)],
)
def test_a_step_that_was_killed_is_known(tmp_path, name, killed):
    """By Dagster's own executor, whose words and class of error are read."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as local:
        selection = [dg.AssetKey(["toy", name])]
        result = dg.execute_job(dg.reconstructable(releases), local, asset_selection=selection)
        assert not result.success
        assert killed_because(local, result.run_id) == killed


def test_a_stuck_run_is_told_once(instance, settings, sent, monkeypatch):
    monkeypatch.setitem(run_alerts.LIMITS, dg.DagsterRunStatus.STARTED, timedelta(0))
    run = dg.DagsterRun(job_name="toy_retrain", status=dg.DagsterRunStatus.STARTED)
    instance.add_run(run)
    instance.add_run(dg.DagsterRun(job_name="toy_retrain", status=dg.DagsterRunStatus.SUCCESS))
    cursor = None
    for _ in range(3):
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=build_resources(settings))
        tick = sensor("stuck_runs").evaluate_tick(context)
        cursor = tick.cursor
        assert tick.skip_message == "1 runs make no progress"
    (alert,) = sent()
    assert (alert["model"], alert["kind"], alert["facts"]["run"]) == ("toy", "run_stuck", run.run_id)
    assert "has been started for 0 minutes" in alert["title"]


@pytest.mark.parametrize(
    ("job", "assets", "model"),
    [
        ("toy_retrain", None, "toy"),
        ("toy_two_retrain", None, "toy_two"),
        ("__ASSET_JOB", [["toy", "release"]], "toy"),
        ("__ASSET_JOB", [["toy", "release"], ["toy_two", "release"]], "platform"),
        ("maintenance", [["maintenance", "lake"]], "platform"),
    ],
)
def test_the_model_of_a_run(job, assets, model):
    keys = frozenset(map(dg.AssetKey, assets)) if assets else None
    assert run_alerts.model_of(dg.DagsterRun(job_name=job, asset_selection=keys), MODELS) == model
