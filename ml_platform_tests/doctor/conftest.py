"""A project of a test's own, for which this process works."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Make a project with this `environments.yaml` ("" for none), the one that this process works for from then on."""

    def make(environments: str = "") -> Path:
        root = tmp_path / "project"
        root.mkdir()
        (root / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
        if environments:
            (root / "environments.yaml").write_text(textwrap.dedent(environments).lstrip())
        monkeypatch.setenv("ML_PLATFORM_PROJECT", str(root))
        for variable in ("ML_PLATFORM_HOME", "ML_PLATFORM_ENVIRONMENT"):
            monkeypatch.delenv(variable, raising=False)
        return root.resolve()

    return make
