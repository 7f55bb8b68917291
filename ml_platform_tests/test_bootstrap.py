"""The set-up says in one line what keeps it from working, and an interrupted one is not taken for a finished one."""

import ast
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ml_platform_tests.paths import PROJECT_ROOT

SOURCE = PROJECT_ROOT / "ml_platform" / "bootstrap.py"


@pytest.fixture
def bootstrap(tmp_path: Path) -> ModuleType:
    """The script as loaded from a project of its own."""
    script = tmp_path / "ml_platform" / "bootstrap.py"
    script.parent.mkdir()
    shutil.copy(SOURCE, script)
    (tmp_path / "requirements.lock").write_text("polars==2.1.0\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finish(bootstrap: ModuleType) -> None:
    """Leave what a finished set-up leaves."""
    python = Path(bootstrap.VENV_PYTHON)
    python.parent.mkdir(parents=True)
    python.touch()
    stamp = {"fingerprint": bootstrap.fingerprint(), "python": sys.version, "root": bootstrap.ROOT}
    Path(bootstrap.STAMP).write_text(json.dumps(stamp))


def test_an_old_python_can_read_it():
    ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_a_python_that_is_too_old_is_told_so_in_one_line(bootstrap, capsys):
    bootstrap.OLDEST = bootstrap.NEWEST = (3, 99)
    assert bootstrap.main() == 1
    said = capsys.readouterr().err
    version = "{}.{}".format(*sys.version_info)
    assert said.startswith(f"setup: Python {version} is too old: 3.99–3.99 wanted, set PYTHON=…")
    assert said.count("\n") == 1


def test_a_disk_that_is_too_small_is_told_in_one_line(bootstrap):
    with pytest.raises(bootstrap.SetupError, match=r"GiB free on the disk of .*, 953674316\.4 GiB wanted: free some"):
        bootstrap.check_disk(needed=1024 * 10**15)


def test_a_disk_that_fills_up_on_the_way_is_named(bootstrap, capsys):
    Path(bootstrap.VENV).mkdir()
    command = [sys.executable, "-c", "import sys; sys.exit('OSError: [Errno 28] No space left on device')"]
    with pytest.raises(bootstrap.SetupError, match="the disk is full: free some space, then run make again"):
        bootstrap.step("installing", command, "look at the network")
    assert "No space left on device" in capsys.readouterr().err


def test_a_step_that_fails_shows_its_last_lines_and_what_to_do(bootstrap, capsys):
    Path(bootstrap.VENV).mkdir()
    command = [sys.executable, "-c", "for n in range(20): print('line', n)\nraise SystemExit(3)"]
    with pytest.raises(bootstrap.SetupError, match=r"installing failed \(exit code 3; .*\): look at the network"):
        bootstrap.step("installing", command, "look at the network")
    said = capsys.readouterr().err
    assert "line 19" in said
    assert "line 11" not in said


def test_a_finished_set_up_returns_at_once(bootstrap):
    finish(bootstrap)
    assert bootstrap.main() == 0


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml"])
def test_a_changed_file_sets_up_again(bootstrap, changed):
    finish(bootstrap)
    assert bootstrap.is_current(bootstrap.fingerprint())
    with Path(bootstrap.ROOT, changed).open("a") as file:
        file.write("# changed\n")
    assert not bootstrap.is_current(bootstrap.fingerprint())


def test_an_interrupted_set_up_is_made_anew(bootstrap):
    finish(bootstrap)
    assert bootstrap.can_reuse()
    Path(bootstrap.UNFINISHED).touch()
    assert not bootstrap.can_reuse()
