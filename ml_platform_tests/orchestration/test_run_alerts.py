"""Failed and stuck runs reach the alerts, each once, under the name of their model."""

import json
from datetime import timedelta

import dagster as dg
import pytest

from ml_platform.orchestration import run_alerts
from ml_platform.orchestration.resources import build_resources
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
    (found,) = [each for each in run_alerts.run_alerts(MODELS).sensors if each.name == name]
    return found


@pytest.mark.parametrize("retried", [False, True])
def test_a_failed_run_is_told_with_its_step_and_reason(instance, settings, sent, retried):
    @dg.asset(key=["toy", "release"])
    def release() -> None:
        raise ValueError("no rows")

    result = dg.materialize([release], instance=instance, raise_on_error=False)
    if retried:
        instance.add_run_tags(result.run_id, {"dagster/will_retry": "true"})
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_runs",
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        resources={"platform": build_resources(settings)["platform"]},
    ).for_run_failure()
    sensor("failed_runs")(context)
    (alert,) = sent()
    assert (alert["model"], alert["kind"]) == ("platform", "run_failed")  # the whole job of a test has no model's name
    assert alert["severity"] == ("warning" if retried else "error")
    assert alert["title"].endswith("failed and is retried" if retried else "failed")
    assert alert["facts"]["failed steps"] == "toy__release"
    assert alert["facts"]["run"] == result.run_id


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
