"""The engine works for the project that it is started in, not for the folder that its code is in."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.project import ProjectNotFound, current_project
from ml_platform_tests.paths import PROJECT_ROOT

LOADED = """
import json
from {package}.definitions import defs
from ml_platform.lake.sources.registry import declared_tables
from ml_platform.settings import Settings
keys = sorted(key.to_user_string() for key in defs().resolve_asset_graph().get_all_asset_keys())
print(json.dumps([str(Settings().home), sorted(declared_tables()), [key for key in keys if key.startswith("raw/")]]))
"""


def make_project(folder: Path, package: str, table: str = "orders") -> Path:
    """Make a project of a package of its own with one source table."""
    defs = folder / package / "defs" / table
    defs.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        f'[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "{package}"\n'
    )
    for init in (folder / package, folder / package / "defs"):
        (init / "__init__.py").touch()
    (folder / package / "definitions.py").write_text(
        "from ml_platform.orchestration.project_definitions import project_definitions\n\ndefs = project_definitions\n"
    )
    (folder / "data").mkdir()
    (folder / "data" / f"{table}.csv").write_text("order,amount\n1,2.5\n")
    (defs / "defs.yaml").write_text(
        f"type: ml_platform.orchestration.SourceTable\nattributes:\n  name: raw/{table}\n  owner: a@example.com\n"
        f"  description: A table.\n  file: {{path: data/{table}.csv}}\n"
        "  columns:\n    order: {type: integer, key: true}\n    amount: {type: number}\n"
    )
    return folder


def load(project: Path, package: str, **environment: str) -> list[object]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(package=package)],
        cwd=project, capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("ML_PLATFORM_")} | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded: list[object] = json.loads(done.stdout.splitlines()[-1])
    return loaded


def test_two_projects_with_one_engine_do_not_touch_each_other(tmp_path: Path) -> None:
    for package, table in (("alpha", "orders"), ("beta_shop", "visits")):
        project = make_project(tmp_path / package, package, table)
        assert load(project, package) == [str(project / "data"), [f"raw/{table}"], [f"raw/{table}"]]


def test_the_project_is_that_of_the_working_directory_or_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "alpha", "alpha")
    monkeypatch.delenv("ML_PLATFORM_PROJECT", raising=False)
    monkeypatch.chdir(project / "alpha" / "defs")
    found = current_project()
    assert (found.root, found.package, found.location) == (project, "alpha", "alpha")
    assert found.definitions == "alpha.definitions"
    assert found.defs == project / "alpha" / "defs"


def test_elsewhere_it_is_the_one_around_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "alpha", "alpha")
    monkeypatch.delenv("ML_PLATFORM_PROJECT", raising=False)
    monkeypatch.setattr(sys, "prefix", str(project / ".venv"))
    monkeypatch.chdir(tmp_path)
    assert current_project().root == project


def test_the_variable_comes_first_and_names_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "alpha", "alpha")
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(project))
    assert current_project().root == project
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(tmp_path))
    with pytest.raises(ProjectNotFound, match=rf"ML_PLATFORM_PROJECT: wanted a folder .* found {tmp_path}"):
        current_project()


def test_the_environment_of_another_project_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("ML_PLATFORM_PROJECT", raising=False)
    here, other = make_project(tmp_path / "alpha", "alpha"), make_project(tmp_path / "beta", "beta")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "prefix", str(other / ".venv"))
    with caplog.at_level(logging.WARNING):
        assert current_project().root == here
    assert str(here) in caplog.text
    assert str(other) in caplog.text


def test_no_project_and_wrong_ones_are_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ML_PLATFORM_PROJECT", raising=False)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProjectNotFound, match="change into the project, or name it by ML_PLATFORM_PROJECT"):
        current_project()
    for number, text in enumerate(("[tool.dg.project]\nroot_module = 'no name'", "[tool.dg.project]", "[tool")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "pyproject.toml").write_text(text)
        monkeypatch.chdir(folder)
        with pytest.raises(ProjectNotFound, match=r"is no TOML|root_module: wanted"):
            current_project()


def test_a_folder_without_a_project_of_its_own_is_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ML_PLATFORM_PROJECT", raising=False)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'library'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(PROJECT_ROOT / ".venv"))
    assert current_project().root == PROJECT_ROOT
