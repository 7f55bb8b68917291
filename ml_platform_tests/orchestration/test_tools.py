"""Dagster's own tools work on the project: list, check, scaffold, validate. In a copy, since scaffolding writes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform_tests.paths import PROJECT_ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project's own files."""
    copy = tmp_path_factory.mktemp("copy") / "project"
    for name in ("ml_platform", "serving"):
        shutil.copytree(PROJECT_ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "workspace.yaml", "README.md"):
        shutil.copy(PROJECT_ROOT / name, copy)
    return copy


def tool(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run one of the tools of this Python in the copy, on the copy's code."""
    home = project / "dagster_home"
    home.mkdir(exist_ok=True)
    program = Path(sys.executable).with_name(command[0])
    environment = {**os.environ, "PYTHONPATH": str(project), "DAGSTER_HOME": str(home), "COLUMNS": "200"}
    return subprocess.run(
        [program, *command[1:]], cwd=project, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_dg_lists_the_definitions(project):
    done = tool(project, "dg", "list", "defs")
    assert done.returncode == 0, done.stderr
    for name in ("flight_delay/release", "raw/flights", "flight_delay_retrain", "flight_delay_retraining"):
        assert name in done.stdout


def test_a_scaffolded_model_is_checked_and_loads_and_a_mistake_in_it_is_named(project):
    model = "ml_platform.orchestration.TabularModel"
    done = tool(project, "dg", "scaffold", "defs", model, "churn", "--task", "binary", "--target", "left")
    assert done.returncode == 0, done.stderr
    defs = project / "ml_platform" / "defs" / "churn" / "defs.yaml"
    assert "target: left" in defs.read_text()
    assert tool(project, "dg", "check", "yaml").returncode == 0
    done = tool(project, "dagster", "definitions", "validate", "-w", "workspace.yaml")
    assert done.returncode == 0, done.stderr
    assert "churn/release" in tool(project, "dg", "list", "defs").stdout

    good = defs.read_text()
    defs.write_text(good.replace("task: binary", "task: binry"))
    done = tool(project, "dagster", "definitions", "validate", "-w", "workspace.yaml")
    defs.write_text(good)
    assert done.returncode != 0
    assert f"{defs}:6: task: unknown value 'binry'; did you mean 'binary'?" in done.stdout + done.stderr


def test_a_scaffolded_source_table_is_checked_and_loads(project):
    table = "ml_platform.orchestration.SourceTable"
    file = project / "orders.csv"
    file.write_text("id,amount\n1,2.5\n")
    done = tool(project, "dg", "scaffold", "defs", table, "orders", "--kind", "file", "--path", str(file))
    assert done.returncode == 0, done.stderr
    defs = project / "ml_platform" / "defs" / "orders" / "defs.yaml"
    assert "amount: {type: number}" in defs.read_text()
    assert tool(project, "dg", "check", "yaml").returncode == 0
    assert "raw/orders" in tool(project, "dg", "list", "defs").stdout
    code = (
        "from ml_platform.lake.sources import registry as r; print(r.declared_table('raw/orders').contract.columns())"
    )
    assert "amount" in tool(project, "python", "-c", code).stdout

    defs.write_text(defs.read_text().replace("type: number", "type: numbr"))
    assert tool(project, "dg", "check", "yaml").returncode != 0
    done = tool(project, "dagster", "definitions", "validate", "-w", "workspace.yaml")
    assert done.returncode != 0
    assert "numbr" in done.stdout + done.stderr
