"""A project made from the template without the example: all its own tests pass."""

import pytest

from ml_platform_tests.template.baking import make


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_project_without_the_example_passes_its_own_tests(bake, tmp_path):
    done = bake(tmp_path, "project_name=Churn Lab", "example=none")
    assert done.returncode == 0, done.stderr
    make(tmp_path / "churn-lab", "test")
