"""`ml-platform stream`: what it says when there is nothing to run, and what it exposes while it runs."""

import sys
import urllib.request

import pytest
import yaml
from typer.testing import CliRunner

from ml_platform.stream_scoring.cli import app
from ml_platform_tests.ports import free_port
from ml_platform_tests.stream_scoring.world import SPEC, flight


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose one model declares no stream."""
    model = tmp_path / "shop" / "defs" / "flight_delay"
    model.mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
    (model / "defs.yaml").write_text(yaml.safe_dump({"type": "x.TabularModel", "attributes": SPEC}))
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(tmp_path))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    return model / "defs.yaml"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["run", "flight_delay"], "flight_delay declares no stream: add `stream:` to"),
        (["run", "flight_dela"], "did you mean 'flight_delay'"),
        (["run", "flight_delay", "--worker", "3/2"], "--worker: wanted a number and how many there are, as 1/3"),
        (["dead-letters", "flight_delay"], "declares no stream"),
        (["dead-letters", "flight_delay", "--kind", "poison"], "wanted one of broken, contract"),
        (["replay", "flight_delay", "--all", "--kind", "late"], "wanted one of --place, --kind and --all"),
    ],
)
def test_what_cannot_be_done_is_told(project, command, told):
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert told.lower() in done.output.lower(), done.output


def test_mistakes_in_yaml_are_told_with_their_line(project):
    spec = {**SPEC, "stream": {"source": {"type": "kafka", "topic": "a"}, "sink": {"topic": "b"}}}
    project.write_text(yaml.safe_dump({"type": "x.TabularModel", "attributes": spec}))
    done = CliRunner().invoke(app, ["run", "flight_delay"])
    assert done.exit_code == 1
    assert "defs.yaml" in done.output
    assert "servers" in done.output


def test_an_extra_that_is_missing_is_told_without_a_traceback(make_world, monkeypatch):
    world = make_world()
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(world.project))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(world.settings.home))
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    for command in ("run", "dead-letters"):
        done = CliRunner().invoke(app, [command, "flight_delay"])
        assert (done.exit_code, type(done.exception)) == (1, SystemExit)
        assert "it belongs to the extra 'streaming'" in done.output


def test_no_worker_yet(project):
    done = CliRunner().invoke(app, ["status"])
    assert (done.exit_code, "No worker of a stream has run here yet" in done.output) == (0, True)


def test_metrics_are_exposed_on_a_port(make_world):
    world, port = make_world(table=True), free_port()
    world.send([flight(0), b"{"])
    worker = world.start("--metrics-port", str(port))
    world.wait_for(2)
    world.wait_until(lambda: world.status() is not None and world.status().answered == 1, "it is counted")
    world.wait_until(lambda: world.status("sink") is not None and world.status("sink").read == 2, "all is copied")
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
    for line in (
        'ml_platform_stream_messages_read_total{model="flight_delay"} 2.0',
        'ml_platform_stream_messages_answered_total{model="flight_delay"} 1.0',
        'ml_platform_stream_dead_letters_total{kind="broken",model="flight_delay"} 1.0',
        'ml_platform_stream_lag_messages{model="flight_delay",partition="0"} 0.0',
        'ml_platform_stream_running{model="flight_delay",part="scorer"} 1.0',
        'ml_platform_predictions_total{model="flight_delay",version="3"} 1.0',
    ):
        assert line in text, text
    assert world.status().metrics_port == port
    assert world.stop(worker) == 0
