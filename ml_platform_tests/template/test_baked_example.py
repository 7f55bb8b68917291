"""A project made from the template with the example: the tests of the example pass, and its demo runs."""

import pytest

from ml_platform_tests.ports import free_port
from ml_platform_tests.template.baking import make


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_project_with_the_example_passes_the_tests_of_the_example_and_runs_the_demo(bake, tmp_path):
    for example in ("flights", "none"):
        done = bake(tmp_path / example, "project_name=Churn Lab", f"example={example}")
        assert done.returncode == 0, done.stderr
    project, without = tmp_path / "flights" / "churn-lab", tmp_path / "none" / "churn-lab"
    tests = [path.relative_to(project) for path in sorted(project.glob("churn_lab_tests/**/test_*.py"))]
    of_example = [  # the others run in the copy without the example
        str(path)
        for path in tests
        if not (without / path).exists() or (without / path).read_bytes() != (project / path).read_bytes()
    ]
    assert "churn_lab_tests/defs/test_flights.py" in of_example
    make(project, "test", f"PYTEST_ARGS=-n 2 --dist loadfile {' '.join(of_example)}")
    ports = {f"CHURN_LAB_{name}_PORT": str(free_port()) for name in ("DAGSTER", "SERVING", "MLFLOW")}
    make(project, "demo", "ONESHOT=1", **ports)
