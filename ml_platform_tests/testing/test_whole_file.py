"""The test file in the documentation, run as a project runs it."""

import os
import re
import subprocess
import sys

import pytest

from ml_platform.testing.graph import VARIABLE
from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.testing.shop_project import ShopProject

PAGE = PROJECT_ROOT / "docs" / "how-to" / "testing.md"


def _run(project: ShopProject, **environment: str) -> str:
    """Write the page's first block of Python into the project's tests and run them; return what pytest says last."""
    (project.root / "tests").mkdir(exist_ok=True)
    block = re.search(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert block is not None
    (project.root / "tests" / "test_project.py").write_text(block[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests"],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": str(project.root), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def test_of_a_project_without_definitions_it_skips_what_has_nothing_to_check(new_project: ShopProject) -> None:
    said = _run(new_project, **{VARIABLE: "1"})
    assert "2 passed, 3 skipped" in said
    for name in ("table", "view", "model"):
        assert f"got empty parameter set for ({name})" in said


@pytest.mark.slow
def test_of_a_project_with_tables_a_view_and_a_model_it_checks_all(project: ShopProject) -> None:
    project.write_model()
    assert "6 passed" in _run(project, **{VARIABLE: "1"})
    assert "6 passed" in _run(project)
