"""Fixtures for tests of projects made from the template."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.template.baking import GIT, Bake, git


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clone of this repository, as it stands."""
    folder = tmp_path_factory.mktemp("template") / "origin.git"
    names = git(PROJECT_ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    for name in filter(None, names):
        if (PROJECT_ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT_ROOT / name, folder / name)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all of it")
    return folder


@pytest.fixture(scope="session")
def bake(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Bake:
    """Run cookiecutter on the template, or on another source of it."""
    home = tmp_path_factory.mktemp("home")

    def baked(
        output: Path, *answers: str, source: str | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cookiecutter", source or str(template), "--no-input", "-o", str(output)]
        environment = {**os.environ, **GIT, "HOME": str(home), "PWD": str(cwd or Path.cwd())}  # as a shell sets it
        return subprocess.run(
            [*command, *answers], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )

    return baked
