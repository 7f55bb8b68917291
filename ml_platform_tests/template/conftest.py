"""Fixtures for tests of projects made from the template."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.template.baking import GIT, JINJA_LIKE, Bake, git


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clone of this project, as it stands, with some files that Jinja would like to get at."""
    folder = tmp_path_factory.mktemp("template") / "origin.git"
    names = git(PROJECT_ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, names):
        if (PROJECT_ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT_ROOT / name, folder / name)
    (folder / "docs").mkdir(exist_ok=True)
    (folder / "docs" / "jinja.yml").write_bytes(JINJA_LIKE.encode())
    (folder / "docs" / "binary.bin").write_bytes(b"\0\xffml_platform{{ x }}")
    (folder / "docs" / "ml_platform.sh").write_text("#!/bin/sh\necho ML_PLATFORM_HOME ml-platform\n")
    (folder / "docs" / "ml_platform.sh").chmod(0o755)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all of it")
    return folder


@pytest.fixture(scope="module")
def bake(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    home = tmp_path_factory.mktemp("home")

    def baked(output: Path, *answers: str, source: str | None = None) -> subprocess.CompletedProcess:
        command = [
            sys.executable,
            "-m",
            "cookiecutter",
            source or str(template),
            "--no-input",
            "-o",
            str(output),
            *answers,
        ]
        environment = {**os.environ, **GIT, "HOME": str(home)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return baked
