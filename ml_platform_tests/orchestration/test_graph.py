"""The graph of assets, checks, jobs, sensors and schedules is held as a snapshot: a change of it is meant or a mistake.

`UPDATE_SNAPSHOTS=1 make test` writes the snapshot anew; read the difference before you commit it.
"""

import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.workspace.autodiscovery import loadable_targets_from_python_module

from ml_platform.definitions import defs
from ml_platform_tests.paths import PROJECT_ROOT

SNAPSHOT = Path(__file__).with_name("graph_snapshot.json")


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


def describe(definitions: dg.Definitions) -> dict[str, Any]:
    graph = definitions.resolve_asset_graph()
    nodes = {key.to_user_string(): graph.get(key) for key in graph.get_all_asset_keys()}
    return {
        "assets": {
            name: {
                "parents": sorted(parent.to_user_string() for parent in node.parent_keys),
                "group": node.group_name,
                "partitioned": node.partitions_def is not None,
                "checks": sorted(check.name for check in node.check_keys),
            }
            for name, node in sorted(nodes.items())
        },
        "jobs": sorted(job.name for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")),
        "sensors": sorted(sensor.name for sensor in definitions.sensors or ()),
        "schedules": sorted(schedule.name for schedule in definitions.schedules or ()),
    }


def test_the_graph_is_as_it_was(definitions):
    found = describe(definitions)
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_every_asset_is_described_owned_and_of_a_kind(definitions):
    graph = definitions.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.owners, key
        assert node.kinds, key


def test_every_job_sensor_and_schedule_is_described(definitions):
    jobs = [job for job in definitions.resolve_all_job_defs() if not job.name.startswith("__")]
    for what in (*jobs, *definitions.sensors, *definitions.schedules):
        assert what.description, what.name


def test_both_models_have_the_same_life(definitions):
    """The second model is its folder alone: it gets every asset and check that the first has."""
    assets = describe(definitions)["assets"]
    lives = {
        model: {
            name.removeprefix(f"{model}/"): node["checks"]
            for name, node in assets.items()
            if name.startswith(f"{model}/")
        }
        for model in ("flight_delay", "arrival_minutes")
    }
    assert lives["flight_delay"] == lives["arrival_minutes"]
    assert set(lives["flight_delay"]) == {
        *("training_set", "candidates", "trained_model", "evaluation"),
        *("refitted_model", "registered_version", "release"),
        *("predictions", "inference_log", "performance", "drift_report"),
    }


def test_dagster_finds_the_definitions_by_one_name():
    """As its code server looks for them: `dg check defs` is content with what that one refuses."""
    (target,) = loadable_targets_from_python_module("ml_platform.definitions", str(PROJECT_ROOT))
    assert target.attribute == "defs"
