"""Other people's software to compare with: each in a virtual environment of its own, from the package registry."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def peers_folder(kept: Path | None) -> Iterator[Path]:
    """Folder for environments: one that stays, so that the next run need not install, or one for this run."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="peers-") as folder:
            yield Path(folder)


def environment(folder: Path, name: str, packages: Sequence[str]) -> Path:
    """Give the Python of an environment that holds `packages`, which is made when it is not there yet.

    Raises
    ------
    subprocess.CalledProcessError
        When the registry does not give the packages; what it said is printed.
    """
    home = folder / name
    python, wanted = home / "bin" / "python", home / "wanted.txt"
    if not wanted.exists() or wanted.read_text(encoding="utf-8").split("\n") != list(packages):
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)], check=True)
        subprocess.run([*uv, "pip", "install", "--quiet", "--python", str(python), *packages], check=True)
        wanted.write_text("\n".join(packages), encoding="utf-8")
    return python


def versions(python: Path, names: Sequence[str]) -> str:
    """Installed versions of an environment's distributions: `feast 0.67.0, pandas 2.3.3`."""
    asked = "import importlib.metadata as m, json, sys; print(json.dumps([m.version(n) for n in sys.argv[1:]]))"
    done = subprocess.run([python, "-c", asked, *names], check=True, capture_output=True, text=True)
    return ", ".join(f"{name} {found}" for name, found in zip(names, json.loads(done.stdout), strict=True))
