"""A run's cost is that of all that it started: measured by the kernel, in a process above it."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from ml_platform.cost.budgets import DeclaredBudget, budget_states
from ml_platform.cost.config import CostConfig
from ml_platform.cost.use_table import ingest_costs, read_costs
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform.spec.budget import Budget
from ml_platform_tests.paths import PROJECT_ROOT

SECONDS = 600


def run(home: Path, *assets: str) -> float:
    """Run assets; return the CPU seconds of all processes."""
    dagster_home = home / "dagster_home"
    dagster_home.mkdir()
    (dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    done = subprocess.run(
        [sys.executable, "-m", "ml_platform_tests.cost.measured_project", ",".join(assets)],
        env={**os.environ, "ML_PLATFORM_HOME": str(home), "DAGSTER_HOME": str(dagster_home)},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["cpu_seconds"])


def by_step(uses: pl.DataFrame) -> dict[str, float]:
    return dict(uses.group_by("step").agg(pl.sum("cpu_seconds")).iter_rows())


def instance(home: Path) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(home / "dagster_home"))


@pytest.mark.slow
def test_the_parts_of_a_run_add_up_to_its_processes(tmp_path: Path) -> None:
    kernel = run(tmp_path, "in_the_step", "in_children", "killed", "longer")
    settings = Settings(home=tmp_path)
    lake = Lake(settings.lake_uri)
    before = read_costs(lake, settings)
    assert ingest_costs(lake, settings).rows == before.height
    assert ingest_costs(lake, settings).rows == 0
    uses = read_costs(lake, settings)
    assert uses.equals(before)
    steps = by_step(uses)
    assert abs(sum(steps.values()) - kernel) <= 0.05 * kernel, (steps, kernel)
    assert 3.0 <= steps["in_the_step"] < 4.5
    assert steps["in_children"] >= 2.0  # what left the tree before it was looked at is the run's
    assert 2.0 <= steps["killed"] < 3.5, "a step that was killed counts until its end"
    assert set(uses.filter(pl.col("step") == "in_the_step")["model"]) == {"toy"}
    assert set(uses.filter(pl.col("step") == "in_the_step")["team"]) == {"team:hot"}
    assert max(uses["peak_bytes"].to_list()) > 50 * 2**20
    now = datetime.now(UTC)
    declared = DeclaredBudget("toy", Budget(cpu_hours=1 / 3600), "here", model="toy")
    [state] = budget_states([declared], uses, CostConfig(), now)
    assert state.is_used_up
    with instance(tmp_path) as dagster:
        [observed] = dagster.fetch_observations(dg.AssetKey("in_the_step"), limit=10).records
        event = observed.asset_observation
        assert event is not None
        seconds = event.metadata["cost/CPU seconds"].value
    assert seconds == pytest.approx(steps["in_the_step"], abs=0.5)


@pytest.mark.slow
def test_a_step_over_a_limit_fails_and_says_which(tmp_path: Path) -> None:
    run(tmp_path, "over_its_limit", "over_its_memory")
    with instance(tmp_path) as dagster:
        [record] = dagster.get_run_records()
        failures = {
            event.step_key: str(event.step_failure_data.error_display_string)
            for event in (entry.dagster_event for entry in dagster.all_logs(record.dagster_run.run_id))
            if event is not None and event.is_step_failure
        }
    assert "1 second of CPU time. Change `budget.step` in the defs.yaml of toy" in failures["over_its_limit"]
    assert "may use 0.2 GiB of memory" in failures["over_its_memory"]
    assert by_step(read_costs(Lake(Settings(home=tmp_path).lake_uri), Settings(home=tmp_path)))["over_its_limit"] < 60
    assert not list((tmp_path / "cost" / "stops").iterdir()), "requests that were answered are gone"
