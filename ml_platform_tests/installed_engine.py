"""The engine as others install it: its wheel, in environments that hold what some extras require and nothing else."""

import importlib.metadata
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ml_platform.distribution import DISTRIBUTION
from ml_platform_tests.paths import PROJECT_ROOT


def build_wheel(folder: Path, source: Path = PROJECT_ROOT) -> Path:
    """Build the engine's wheel into a folder, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    return path


def required_by(*extras: str) -> set[str]:
    """Canonical names of the installed distributions that the engine with these extras requires, directly or not."""
    resolved: dict[str, set[str]] = {}
    waiting = [(DISTRIBUTION, {"", *extras})]
    while waiting:
        name, wanted = waiting.pop()
        new = wanted - resolved.setdefault(canonicalize_name(name), set())
        resolved[canonicalize_name(name)] |= new
        for requirement in map(Requirement, importlib.metadata.requires(name) or []):
            marker = requirement.marker
            if any(marker is None or marker.evaluate({"extra": one}) for one in new):
                waiting.append((requirement.name, {"", *requirement.extras}))
    return set(resolved) - {canonicalize_name(DISTRIBUTION)}


def make_environment(folder: Path, wheel: Path, *extras: str) -> Path:
    """Make an environment with the wheel and what these extras require, and return its Python.

    The libraries are links to those of this environment: nothing is downloaded.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    [site_packages] = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site_packages)
    for name in required_by(*extras):
        distribution = importlib.metadata.distribution(name)
        for part in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            link = site_packages / part
            if not link.exists():  # several distributions may share a namespace
                link.symlink_to(Path(str(distribution.locate_file(part))))
    return folder / "bin" / "python"


def run(python: Path, arguments: Iterable[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an environment's Python in a folder, without the variables that would show it this repository."""
    ours = ("PYTHON", "ML_PLATFORM_", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    command = [str(python), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
