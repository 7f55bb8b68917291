"""Makes projects from the template as its users do, and runs `make` in them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Bake = Callable[..., subprocess.CompletedProcess[str]]
GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder, as somebody, and return what it prints; 1 is how `git grep` says that there is nothing."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    # A commit may leave upkeep running behind it, whose lock comes and goes while the template is copied.
    alone = ["-c", "maintenance.auto=false", "-c", "gc.auto=0"]
    done = subprocess.run(
        ["git", *identity, *alone, *arguments],
        cwd=folder,
        env={**os.environ, **GIT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def make(project: Path, *arguments: str, **environment: str) -> str:
    """Run `make` in a project as its user would, who has none of this run's variables, and return its output."""
    ours = ("ML_PLATFORM_", "PYTEST_", "MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTHONPATH")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    done = subprocess.run(
        ["make", f"PYTHON={sys._base_executable}", *arguments],  # type: ignore[attr-defined]
        cwd=project,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
    return done.stdout


def engine_pin(project: Path) -> str:
    """What follows the engine's name in a project's lock."""
    lines = (project / "requirements.lock").read_text("utf-8").splitlines()
    [line] = [line for line in lines if line.startswith("dagster-ml-platform")]
    pin = line.removeprefix("dagster-ml-platform")
    assert f'"dagster-ml-platform[platform]{pin}"' in (project / "pyproject.toml").read_text("utf-8")
    return pin
