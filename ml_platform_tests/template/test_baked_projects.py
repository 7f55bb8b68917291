"""Projects made from the template pass their own tests, and the one with the example runs the demo."""

import pytest

from ml_platform_tests.ports import free_port
from ml_platform_tests.template.baking import make

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def test_a_project_without_the_example_passes_its_own_tests(bake, tmp_path):
    done = bake(tmp_path, "project_name=Churn Lab", "example=none")
    assert done.returncode == 0, done.stderr
    project = tmp_path / "churn-lab"
    make(project, "test")
    assert "Rolling aggregates" in make(project, "--eval=page: ; @.venv/bin/ml-platform docs rolling", "page")


def test_a_project_with_the_example_passes_its_own_tests_and_runs_the_demo(bake, tmp_path):
    done = bake(tmp_path, "project_name=Zebra Lab")  # sorted after the engine, unlike the other
    assert done.returncode == 0, done.stderr
    project = tmp_path / "zebra-lab"
    make(project, "test")
    ports = {f"ML_PLATFORM_{name}_PORT": str(free_port()) for name in ("DAGSTER", "SERVING", "MLFLOW")}
    said = make(project, "demo", "ONESHOT=1", **ports)
    assert "in truth: it landed" in said
