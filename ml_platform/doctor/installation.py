"""Checks of what is installed: Python, the engine and its pin, the lock, the extras."""

import importlib.metadata
import importlib.util
import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_platform.distribution import DISTRIBUTION, engine_version
from ml_platform.doctor.findings import Finding, error, ok, warning
from ml_platform.settings import Settings

_PIN = re.compile(
    rf"{DISTRIBUTION}(?:\[(?P<extras>[\w\s,.-]*)\])?\s*(?:==\s*(?P<version>\S+?)|@\s*(?P<url>\S+?))\s*(?:;|$)"
)
_SHOWN = 5


def python() -> Iterator[Finding]:
    """Check that this Python is one that the engine supports."""
    supported = importlib.metadata.metadata(DISTRIBUTION)["Requires-Python"]
    oldest, too_new = (re.search(rf"{sign}\s*3\.(\d+)", supported) for sign in (">=", "<(?!=)"))
    found = sys.version_info[:2]
    text = f"{found[0]}.{found[1]}, supported are {supported}"
    if (oldest and found < (3, int(oldest[1]))) or (too_new and found >= (3, int(too_new[1]))):
        yield error("Python", text, "make clean setup PYTHON=<a supported one>")
    else:
        yield ok("Python", text)


def engine(root: Path) -> Iterator[Finding]:
    """Check that the engine which runs is the one that the project pins."""
    pin = _pin(root)
    if pin is None:
        yield ok("engine", f"{engine_version()}, of a project without a pin of its own")
        return
    wanted = pin["version"] or pin["url"].rpartition("@")[2]
    installed = engine_version() if pin["version"] else _installed_commit() or "a version of another origin"
    if wanted == installed:
        yield ok("engine", f"{engine_version()}, as pyproject.toml pins it")
    elif _is_editable():
        yield warning("engine", f"a checkout is installed in place of the pinned {wanted}", "make clean setup")
    else:
        yield error("engine", f"pyproject.toml pins {wanted}, installed is {installed}", "make setup")


def lock(root: Path) -> Iterator[Finding]:
    """Check that installed packages have the versions of the lock; what is not installed is no difference."""
    path = root / "requirements.lock"
    if not path.is_file():
        yield error("lock", f"{path} is missing", "git checkout requirements.lock, or make lock")
        return
    pinned = dict(re.findall(r"^([\w.-]+)==([^\s;]+)\s*$", path.read_text("utf-8"), re.MULTILINE))
    different = []
    for name, version in pinned.items():
        if name == DISTRIBUTION:
            continue  # the check of the engine tells
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if installed != version:
            different.append(f"{name} {installed} in place of {version}")
    if different:
        more = f", and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        yield warning("lock", f"not as locked: {', '.join(different[:_SHOWN])}{more}", "make clean setup")
    else:
        yield ok("lock", f"all packages have the versions of {path.name}")


def extras(root: Path, settings: Settings | None) -> Iterator[Finding]:
    """Check that what the project's extras and its settings need is installed."""
    pin = _pin(root)
    wanted = set(re.split(r"[\s,]+", pin["extras"].strip())) if pin and pin["extras"] else set()
    if settings is not None and settings.tracking_uri.startswith("postgres"):
        wanted.add("postgres")
    missing = {name: lacking for name in sorted(wanted) if (lacking := missing_packages(name))}
    for name, lacking in missing.items():
        yield error(
            "extras",
            f"the extra '{name}' is wanted, and {', '.join(lacking)} is not installed",
            f"add {name} to the brackets behind {DISTRIBUTION} in pyproject.toml, then make setup",
        )
    if not missing:
        yield ok("extras", ", ".join(sorted(wanted)) or "none")


def missing_packages(extra: str) -> list[str]:
    """Return the packages of one of the engine's extras that are not installed, those of extras in it too."""
    missing = []
    for line in importlib.metadata.requires(DISTRIBUTION) or ():
        marked = re.search(r"extra\s*==\s*[\"']([\w.-]+)[\"']", line)
        if marked is None or marked[1].replace("_", "-") != extra.replace("_", "-") or "sys_platform" in line:
            continue
        name = re.split(r"[\s\[<>=!~;(]", line, maxsplit=1)[0]
        if name == DISTRIBUTION:
            inner = re.search(r"\[([^\]]*)\]", line)
            missing += [package for one in (inner[1].split(",") if inner else ()) for package in missing_packages(one)]
        elif not _is_installed(name):
            missing.append(name)
    return missing


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _pin(root: Path) -> Mapping[str, Any] | None:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8")).get("project", {})
    matches = (_PIN.match(line) for line in project.get("dependencies", ()))
    return next((match.groupdict() for match in matches if match), None)


def _origin() -> dict[str, Any]:
    text = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    return json.loads(text) if text else {}


def _installed_commit() -> str | None:
    return _origin().get("vcs_info", {}).get("commit_id")


def _is_editable() -> bool:
    return bool(_origin().get("dir_info", {}).get("editable"))
