"""The set-up says in one line what keeps it from working, and an interrupted one is not taken for a finished one."""

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
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
    (tmp_path / "pyproject.toml").write_text("[project.optional-dependencies]\nplatform = []\ndev = []\n")
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finish(bootstrap: ModuleType, *extras: str) -> None:
    """Leave what a finished set-up with these extras leaves."""
    python = Path(bootstrap.VENV_PYTHON)
    python.parent.mkdir(parents=True)
    python.touch()
    stamp = {
        "fingerprint": bootstrap.fingerprint(),
        "extras": extras,
        "python": sys.version,
        "root": bootstrap.ROOT,
    }
    Path(bootstrap.STAMP).write_text(json.dumps(stamp))


def test_an_old_python_can_read_it():
    ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_a_python_that_is_too_old_is_told_so_in_one_line(bootstrap, capsys):
    bootstrap.OLDEST = bootstrap.NEWEST = (3, 99)
    assert bootstrap.main([]) == 1
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
    finish(bootstrap, "dev", "platform")
    assert bootstrap.main(["platform"]) == bootstrap.main(["platform", "dev"]) == bootstrap.main([]) == 0


def test_a_new_extra_is_installed(bootstrap):
    finish(bootstrap, "platform")
    assert not bootstrap.is_current(bootstrap.fingerprint(), ["dev", "platform"])


def test_an_extra_that_is_not_declared_is_told_in_one_line(bootstrap, capsys):
    assert bootstrap.main(["platform", "postgres"]) == 1
    assert capsys.readouterr().err == (
        f"setup: no extra postgres in {bootstrap.PYPROJECT}, which declares: dev, platform\n"
    )


@pytest.mark.parametrize("changed", ["requirements.lock", "pyproject.toml", "vendor/engine-1.0-py3-none-any.whl"])
def test_a_changed_file_sets_up_again(bootstrap, changed):
    finish(bootstrap)
    assert bootstrap.is_current(bootstrap.fingerprint(), [])
    path = Path(bootstrap.ROOT, changed)
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write("# changed\n")
    assert not bootstrap.is_current(bootstrap.fingerprint(), [])


def test_an_interrupted_set_up_is_made_anew(bootstrap):
    finish(bootstrap)
    assert bootstrap.can_reuse()
    Path(bootstrap.UNFINISHED).touch()
    assert not bootstrap.can_reuse()


@pytest.mark.parametrize(
    ("target", "has_tools"),
    [("setup", False), ("demo", False), ("dev", False), ("check", True), ("test", True), ("bench", True)],
)
def test_only_targets_that_test_install_the_tools_for_it(target: str, has_tools: bool) -> None:
    command = ["make", "--dry-run", target]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    [extras] = re.findall(r"bootstrap\.py (.*)", done.stdout)
    assert extras.split() == ["platform", "example", *(["dev"] if has_tools else [])]


def test_a_folder_without_a_project_is_told_so(tmp_path):
    script = shutil.copy(SOURCE, tmp_path)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.stderr == f"setup: no pyproject.toml in {tmp_path} or a folder above it\n"
    assert done.returncode == 1


def tiny_wheel(folder: Path, name: str, requires: str = "") -> None:
    """Write a wheel of one empty module."""
    folder.mkdir(exist_ok=True)
    files = {
        f"{name}.py": "",
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}",
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "".join(f"{path},,\n" for path in [*files, "RECORD"]))


PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "project-of-its-own"
version = "1.0"
dependencies = ["tiny_engine[platform]==1.0"]
optional-dependencies = {dev = ["tiny_tests"]}
[tool.hatch.build.targets.wheel]
packages = ["package"]
"""


@pytest.mark.slow  # installs uv and hatchling from the index
def test_a_project_with_the_engine_in_vendor_is_set_up_and_extras_are_added(tmp_path):
    for folder in ("package", "scripts"):
        (tmp_path / folder).mkdir()
    script = shutil.copy(SOURCE, tmp_path / "scripts")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "requirements.lock").write_text("tiny-engine==1.0\ntiny-library==1.0\ntiny-tests==1.0\n")
    vendor = tmp_path / "vendor"
    tiny_wheel(vendor, "tiny_engine", "Provides-Extra: platform\nRequires-Dist: tiny_library; extra == 'platform'\n")
    tiny_wheel(vendor, "tiny_library")
    tiny_wheel(vendor, "tiny_tests")

    def set_up(*extras: str) -> str:
        done = subprocess.run([sys.executable, script, *extras], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def installed() -> set[str]:
        return {path.stem for path in tmp_path.glob(".venv/lib/python*/site-packages/tiny_*.py")}

    assert "making .venv" in set_up()
    assert installed() == {"tiny_engine", "tiny_library"}
    marker = next(tmp_path.glob(".venv/lib/python*/site-packages")) / "still_there"
    marker.touch()
    assert "with dev" in set_up("dev")
    assert installed() == {"tiny_engine", "tiny_library", "tiny_tests"}
    assert set_up() == set_up("dev") == ""
    tiny_wheel(vendor, "tiny_more")
    assert "with dev" in set_up()  # what was installed once is kept up to date
    assert marker.exists()
