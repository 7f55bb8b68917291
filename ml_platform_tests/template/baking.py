"""Makes a copy of the template as its users do, and runs `make` in it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

Bake = Callable[..., subprocess.CompletedProcess]
JINJA_LIKE = "a: ${{ secrets.TOKEN }}\r\n{% raw %}{{ x }}{# note #}\n{%- endraw %} naïve\t\n\n"
GIT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def git(folder: Path, *arguments: str) -> str:
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


def make(project: Path, *arguments: str, **environment: str) -> None:
    """Run `make` in a project as its user would, who has none of this run's variables."""
    ours = ("ML_PLATFORM_", "PYTEST_", "MAKE", "MFLAGS")
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
