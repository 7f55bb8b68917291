"""Which commit of the engine an environment has, however it was installed."""

import json
import subprocess
from pathlib import Path

from ml_platform.code_version import version_with_commit


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_wheel_has_the_commit_in_its_version():
    assert version_with_commit("0.2.0+g1a2b", None) == "0.2.0+g1a2b"
    source = {"url": "file:///project/vendor/engine.whl", "archive_info": {}}
    assert version_with_commit("0.2.0+g1a2b", json.dumps(source)) == "0.2.0+g1a2b"


def test_a_checkout_that_is_installed_in_place_has_its_commit_and_says_if_it_was_changed(tmp_path: Path):
    folder = tmp_path / "my engine"
    folder.mkdir()
    source = json.dumps({"url": folder.as_uri(), "dir_info": {"editable": True}})
    assert version_with_commit("0.2.0", source) == "0.2.0"
    git(folder, "init", "-q")
    (folder / "module.py").write_text("1")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    commit = git(folder, "rev-parse", "HEAD")[:12]
    assert version_with_commit("0.2.0", source) == f"0.2.0+g{commit}"
    (folder / "module.py").write_text("2")
    assert version_with_commit("0.2.0", source) == f"0.2.0+g{commit}-dirty"
