"""Pins the engine in a project: to a wheel of this checkout, built into the project's `vendor/`, or to a commit by URL.

    python hooks/engine_wheel.py PROJECT

builds the wheel of this checkout and pins PROJECT to it; `make setup` there installs it. A wheel is a zip file with
metadata, so the standard library is enough: no build environment, no network. What goes in is what `pyproject.toml`
says under `[tool.hatch.build.targets.wheel]`.
"""

import base64
import hashlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

DISTRIBUTION = "dagster-ml-platform"
FILE_NAME = DISTRIBUTION.replace("-", "_")
PIN = re.compile(rf"({DISTRIBUTION}(?:\[[\w,-]+\])?)(?:==[\w.+]+| @ [^\"\s]+)")
WHEEL = "Wheel-Version: 1.0\nGenerator: engine_wheel\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def pin_wheel(repository: Path, project: Path) -> str:
    """Build the repository's wheel into `vendor/` of a project, pin the project to it, and return its version."""
    vendor = project / "vendor"
    vendor.mkdir(exist_ok=True)
    for replaced in vendor.glob(f"{FILE_NAME}-*.whl"):
        replaced.unlink()
    version = build(repository, vendor)
    pin(project, f"=={version}")
    return version


def pin(project: Path, requirement: str) -> None:
    """Write what follows the engine's name, ` @ <URL>` or `==<version>`, into a project's `pyproject.toml` and lock.

    Raises
    ------
    ValueError
        When `pyproject.toml` does not name the engine.
    """
    path, lock = project / "pyproject.toml", project / "requirements.lock"
    text, count = PIN.subn(lambda match: match[1] + requirement, path.read_text("utf-8"))
    if not count:
        raise ValueError(f"{path}: wanted a dependency on {DISTRIBUTION} with its version, found none; add one")
    path.write_text(text, "utf-8")
    locked, count = PIN.subn(lambda match: match[1] + requirement, lock.read_text("utf-8"))
    lock.write_text(locked if count else f"{locked}{DISTRIBUTION}{requirement}\n", "utf-8")


def build(repository: Path, folder: Path) -> str:
    """Write the engine's wheel into a folder and return its version, which no other content has."""
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))
    contents = files(repository, project["tool"]["hatch"]["build"]["targets"]["wheel"])
    version = f"{project['project']['version']}+{revision(repository, contents)}"
    info = f"{FILE_NAME}-{version}.dist-info"
    contents |= {
        f"{info}/METADATA": metadata(project["project"], version).encode(),
        f"{info}/WHEEL": WHEEL.encode(),
        f"{info}/entry_points.txt": entry_points(project["project"]).encode(),
        f"{info}/licenses/LICENSE": (repository / "LICENSE").read_bytes(),
    }
    record = [f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in contents.items()]
    contents[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    with zipfile.ZipFile(folder / f"{FILE_NAME}-{version}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name)  # of 1980: the same content makes the same file
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            wheel.writestr(entry, content)
    return version


def files(repository: Path, target: dict[str, Any]) -> dict[str, bytes]:
    """Return the content of the engine's files by their name in the wheel, as hatchling would take them."""
    excluded = tuple(repository / name for name in target.get("exclude", ()))
    sources = {name: name for name in target["packages"]} | target.get("force-include", {})
    contents = {}
    for source, name in sources.items():
        place = repository / source
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            outside = any(folder == path or folder in path.parents for folder in excluded)
            if path.is_file() and not outside and "__pycache__" not in path.parts:
                contents[(Path(name) / path.relative_to(place)).as_posix()] = path.read_bytes()
    return contents


def revision(repository: Path, contents: dict[str, bytes]) -> str:
    """Return what tells this content from any other: its commit, or a digest where it is not that of a commit.

    Pip keeps an installed version although a wheel of the same version says something else.
    """
    if (repository / ".git").exists():
        command = ["git", "-C", str(repository)]
        head = subprocess.run([*command, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        changed = subprocess.run([*command, "status", "--porcelain"], capture_output=True, text=True, check=False)
        if head.returncode == changed.returncode == 0 and not changed.stdout:
            return f"g{head.stdout.strip()[:12]}"
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return f"d{digest.hexdigest()[:12]}"


def metadata(project: dict[str, Any], version: str) -> str:
    """Return the text of METADATA for a `[project]` table."""
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {version}",
        f"Summary: {project['description']}",
        f"Requires-Python: {project['requires-python']}",
        f"License-Expression: {project['license']}",
        "License-File: LICENSE",
        *(f"Requires-Dist: {dependency}" for dependency in project["dependencies"]),
    ]
    for extra in project["optional-dependencies"]:
        lines.append(f"Provides-Extra: {extra}")
        for dependency in required_by(extra, project):
            name, _, marker = dependency.partition(";")
            condition = f"({marker.strip()}) and extra == '{extra}'" if marker else f"extra == '{extra}'"
            lines.append(f"Requires-Dist: {name.strip()}; {condition}")
    return "\n".join(lines) + "\n"


def required_by(extra: str, project: dict[str, Any]) -> list[str]:
    """Return the dependencies of an extra, those of the extras that it includes among them."""
    dependencies = []
    for dependency in project["optional-dependencies"][extra]:
        if included := re.fullmatch(rf"{DISTRIBUTION}\[(.*)\]", dependency):
            for name in included[1].split(","):
                dependencies += required_by(name.strip(), project)
        else:
            dependencies.append(dependency)
    return list(dict.fromkeys(dependencies))


def entry_points(project: dict[str, Any]) -> str:
    """Return the text of entry_points.txt for a `[project]` table."""
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    return "\n".join(
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in entries.items()), ""])
        for group, entries in groups.items()
    )


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1], "pyproject.toml").is_file():
        sys.exit(f"usage: python {sys.argv[0]} PROJECT, the folder of a project made from this template")
    print(f"{sys.argv[1]} uses {DISTRIBUTION} {pin_wheel(Path(__file__).resolve().parents[1], Path(sys.argv[1]))}")
    print("`make setup` there installs it; `make lock` first, if its dependencies have changed")
