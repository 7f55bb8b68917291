"""State is its user's alone: what is made, and what was made before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.private_files import UMASK_VARIABLE, make_private, private_umask
from ml_platform_tests.paths import PROJECT_ROOT


@pytest.fixture(autouse=True)
def umask_of_the_tests():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o777


def test_a_home_is_made_private_and_so_is_what_comes_into_it(tmp_path):
    home = tmp_path / "data"
    assert make_private(home) == 0
    (home / "lake").mkdir()
    (home / "lake" / "rows").write_text("1")
    assert (mode(home), mode(home / "lake"), mode(home / "lake" / "rows")) == (0o700, 0o700, 0o600)


def test_a_home_of_before_is_mended_once_and_links_are_left_alone(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("not the platform's")
    home = tmp_path / "data"
    (home / "lake").mkdir(parents=True)
    (home / "lake" / "rows").write_text("1")
    (home / "run").write_text("#!/bin/sh")
    (home / "run").chmod(0o755)
    (home / "link").symlink_to(outside)
    assert make_private(home) == 4
    assert (mode(home), mode(home / "lake"), mode(home / "lake" / "rows"), mode(home / "run")) == (
        *(0o700, 0o700, 0o600, 0o700),
    )
    assert mode(outside) == 0o644
    assert make_private(home) == 0


def test_a_group_can_be_let_in(tmp_path, monkeypatch):
    monkeypatch.setenv(UMASK_VARIABLE, "007")
    make_private(tmp_path / "data")
    assert mode(tmp_path / "data") == 0o770


@pytest.mark.parametrize("text", ["8", "rwx", "0o77", "1777", "-1", " "])
def test_a_wrong_umask_is_named(monkeypatch, text):
    monkeypatch.setenv(UMASK_VARIABLE, text)
    with pytest.raises(ValueError, match="ML_PLATFORM_UMASK: an octal umask such as 077 or 007 is wanted"):
        private_umask()


def test_a_command_of_the_terminal_writes_nothing_that_others_can_read(tmp_path):
    """Whatever the terminal's own umask says: here a key is made, which writes key store and audit log."""
    home = tmp_path / "data"
    command = [sys.executable, "-m", "ml_platform.cli", "keys", "create", "tests", "--role", "predict"]
    code = "import sys; from ml_platform.cli import main; sys.argv = sys.argv[1:]; main()"
    command = [sys.executable, "-c", code, "ml-platform", *command[3:]]
    environment = {**os.environ, "ML_PLATFORM_HOME": str(home)}
    subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=True, capture_output=True)
    made = [path for path in home.rglob("*") if not path.is_symlink()]
    assert made
    assert [path for path in made if mode(path) & 0o077] == []
