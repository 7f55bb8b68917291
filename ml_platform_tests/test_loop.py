"""The whole loop on real months: trained on winter, drift in September, retrained, promoted, served, rolled back."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.definitions import defs
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.model_asset import CHAIN
from ml_platform.orchestration.resources import build_resources
from ml_platform.orchestration.retraining import REASON_TAG, TRIGGER_TAG
from ml_platform.settings import Settings
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.ports import free_port
from ml_platform_tests.serving.conftest import answering

pytestmark = pytest.mark.slow

MODEL = "flight_delay"
PATIENCE = 120  # seconds: serving looks several times a second, a busy machine need not
FLIGHT = {
    "flight_id": "2013-10-01:UA1545:EWR:0515",
    "carrier": "UA",
    "origin": "EWR",
    "dest": "IAH",
    "tailnum": "N14228",
    "scheduled_departure": "2013-10-01T09:15:00Z",
    "scheduled_arrival": "2013-10-01T13:19:00Z",
    "distance": 1400,
}


class World:
    """A Dagster instance and a project whose state is all in one folder."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.definitions = defs()
        self.job = self.definitions.resolve_implicit_global_asset_job_def()
        self.graph = self.definitions.resolve_asset_graph()

    def materialise(self, *names: str, days: tuple[str, str] | None = None, config: dict | None = None, tags=None):
        keys = [dg.AssetKey(name.split("/")) for name in names]
        between = dict(zip(("start", "end"), days, strict=True)) if days else {}
        ranged = {f"dagster/asset_partition_range_{edge}": day for edge, day in between.items()}
        result = self.job.execute_in_process(
            instance=self.instance, asset_selection=keys, tags={**ranged, **(tags or {})}, run_config=config or {}
        )
        assert result.success
        return result

    def group(self, name: str) -> list[str]:
        return [key.to_user_string() for key in self.graph.materializable_asset_keys if key.path[0] == name]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("loop")
    before = os.environ.get("ML_PLATFORM_HOME")
    os.environ["ML_PLATFORM_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["ML_PLATFORM_HOME"]
    else:
        os.environ["ML_PLATFORM_HOME"] = before


@pytest.fixture(scope="module")
def world(home) -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance)


@pytest.fixture(scope="module")
def ask(home) -> Iterator:
    """A real server on a free port; gives a function that asks it for the flight."""
    port = free_port()
    server = subprocess.Popen([sys.executable, "-m", "ml_platform.serving", "--port", str(port)], cwd=PROJECT_ROOT)
    url = f"http://127.0.0.1:{port}"

    def _ask() -> dict:
        request = urllib.request.Request(
            f"{url}/predict/{MODEL}", json.dumps(FLIGHT).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)

    try:
        answering(f"{url}/health/live")
        yield _ask
    finally:
        server.terminate()
        server.wait(120)


def first_answer(ask) -> dict:
    """Ask until there is an answer; until then it must be the 503 of a server without a release."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except urllib.error.HTTPError as error:
            refused = json.load(error)["error"]["code"]
        assert refused == "no_release"
        assert time.monotonic() < deadline, f"still no release after {PATIENCE} s"
        time.sleep(0.02)


def answer_of(ask, wanted: int) -> dict:
    """Ask until the wanted version answers; every answer on the way must be a good one."""
    deadline = time.monotonic() + PATIENCE
    while (answer := ask())["version"] != wanted:
        assert time.monotonic() < deadline, f"after {PATIENCE} s version {answer['version']} still answers"
        time.sleep(0.02)
    return answer


def check(world: World, asset: str, name: str) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(dg.AssetKey([MODEL, asset]), name)
    record = world.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.evaluation is not None
    return record.evaluation


def test_drift_in_september_retrains_promotes_and_serves(world, ask, home):
    chain = [f"{MODEL}/{name}" for name in CHAIN]

    # Everything until the end of September is known; the model is trained as one would have on the first of April.
    world.materialise("raw/planes", "raw/airports", "raw/airlines")
    world.materialise("raw/flights", "raw/weather", days=("2013-01-01", "2013-09-30"))
    world.materialise(*world.group("features"))
    world.materialise(*world.group("online"))
    winter = {"ops": {f"{MODEL}__training_set": {"config": {"as_of": "2013-04-01T00:00:00+00:00"}}}}
    world.materialise(*chain, config=winter)
    assert check(world, "evaluation", "beats_reference").passed
    first = first_answer(ask)
    assert first["version"] == 1
    assert 0 < first["predictions"][0]["probability"] < 1

    # It scores the last week of September. Drift is found, and it is an error.
    world.materialise(f"{MODEL}/predictions", days=("2013-09-24", "2013-09-30"))
    world.materialise(f"{MODEL}/inference_log")
    world.materialise(f"{MODEL}/performance", f"{MODEL}/drift_report")
    drift = check(world, "drift_report", "no_drift")
    assert not drift.passed
    assert drift.severity == dg.AssetCheckSeverity.ERROR

    # The sensor turns that into one run, with its reason.
    sensor = world.definitions.resolve_sensor_def(f"{MODEL}_retraining")
    tick = dg.build_sensor_context(instance=world.instance, resources=build_resources())
    request = sensor.evaluate_tick(tick).run_requests[0]
    assert request.tags[TRIGGER_TAG] == f"{MODEL}/drift"
    assert "drifted" in request.tags[REASON_TAG]
    retrain = world.definitions.resolve_job_def(f"{MODEL}_retrain")
    assert retrain.execute_in_process(instance=world.instance, tags=request.tags).success
    again = sensor.evaluate_tick(tick)
    assert not again.run_requests
    assert "has answered this failure" in again.skip_message

    # The gate let it through, and serving follows.
    assert check(world, "evaluation", "beats_reference").passed
    second = answer_of(ask, 2)
    assert second["predictions"][0]["probability"] != first["predictions"][0]["probability"]

    # One job goes back.
    rollback = world.definitions.resolve_job_def(f"{MODEL}_rollback")
    assert rollback.execute_in_process(instance=world.instance).success
    assert answer_of(ask, 1)["predictions"] == first["predictions"]

    # Every answer reached the table, once, with the version that gave it.
    world.materialise(f"{MODEL}/inference_log")
    world.materialise(f"{MODEL}/inference_log")
    log = Lake(Settings().lake_uri).read(f"inference_log/{MODEL}").collect()
    assert log["request_id"].n_unique() == log.height
    assert {first["request_id"], second["request_id"]} <= set(log["request_id"])
    assert set(log["model_version"]) == {1, 2}
