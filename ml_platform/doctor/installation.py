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
from ml_platform.project import Project
from ml_platform.settings import Settings
from ml_platform.spec.families import BUILT_IN, FamilyInfo
from ml_platform.yaml_documents import Location, SpecError, documents

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


def extras(project: Project, settings: Settings | None) -> Iterator[Finding]:
    """Check that what the project's pin, its settings and its `defs.yaml` need is installed."""
    pin = _pin(project.root)
    wanted = dict.fromkeys(re.split(r"[\s,]+", pin["extras"].strip()), "is wanted") if pin and pin["extras"] else {}
    if settings is not None and settings.tracking_uri.startswith("postgres"):
        wanted.setdefault("postgres", "is wanted")
    try:
        for extra, reason in declared_extras(project.defs):
            wanted.setdefault(extra, reason)
    except SpecError as problem:
        yield error("extras", str(problem), "dg check defs names file, line and key")
    missing = {name: lacking for name in sorted(wanted) if (lacking := missing_packages(name))}
    for name, lacking in missing.items():
        yield error(
            "extras",
            f"the extra '{name}' {wanted[name]}, and {', '.join(lacking)} is not installed",
            f"add {name} to the brackets behind {DISTRIBUTION} in pyproject.toml, then make setup",
        )
    if not missing:
        yield ok("extras", ", ".join(sorted(wanted)) or "none")


def declared_extras(defs: Path) -> Iterator[tuple[str, str]]:
    """Yield the extras that the `defs.yaml` below a folder need, each with the line that needs it.

    Raises
    ------
    SpecError
        When a file is not YAML.
    """
    for path in sorted(defs.rglob("defs.yaml")):
        for document in documents(path):
            attributes = document.data.get("attributes") if isinstance(document.data, dict) else None
            for location, extra in _extras_of(document.component, attributes if isinstance(attributes, dict) else {}):
                line = document.problem(("attributes", *location), "").line
                yield extra, f"is needed by {path.parent.name}/{path.name}:{line}"


def _extras_of(component: str, attributes: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    """Extras that a component needs, with the keys that say so; what is declared wrongly is another check's."""
    if component == "SourceTable" and "sql" in attributes:
        yield ("sql",), "postgres"
    if component != "TabularModel":
        return
    families, tuning = attributes.get("families"), attributes.get("tuning")
    for index, name in enumerate(families if isinstance(families, list) else ()):
        family = BUILT_IN.get(name) if isinstance(name, str) else None
        if family is not None and family.extra and not _has_library(family):
            yield ("families", index), family.extra
    if isinstance(tuning, dict) and tuning.get("executor") == "ray":
        yield ("tuning", "executor"), "ray"


def _has_library(family: FamilyInfo) -> bool:
    """Whether a family's library is there, from whichever distribution: XGBoost's for GPUs is another."""
    return family.library is None or importlib.util.find_spec(family.library) is not None


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
