"""Which project this process works for: the folder with the user's definitions, found and never assumed.

The first of these that holds a `pyproject.toml` with `[tool.dg.project]`: the folder that `ML_PLATFORM_PROJECT` names;
the working directory and the folders above it; the folders around the Python environment (`.venv` is in its project).
"""

import logging
import os
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

VARIABLE = "ML_PLATFORM_PROJECT"

logger = logging.getLogger("ml_platform")


class ProjectNotFound(LookupError):
    """There is no project where one was looked for, or its `pyproject.toml` does not describe one."""


@dataclass(frozen=True)
class Project:
    """A project's folder and names.

    Attributes
    ----------
    root
        Folder with `pyproject.toml`, `data/` and the package.
    package
        Name of the package, `root_module` of `[tool.dg.project]`.
    definitions
        Module that Dagster loads.
    location
        Name of the code location.
    """

    root: Path
    package: str
    definitions: str
    location: str

    @property
    def defs(self) -> Path:
        """Folder with the user's definitions: sources, views, models."""
        return self.root / self.package / "defs"

    @property
    def data(self) -> Path:
        """Folder of all local state, unless `ML_PLATFORM_HOME` names another."""
        return self.root / "data"


def current_project() -> Project:
    """The project that this process works for (raises ProjectNotFound).

    Examples
    --------
    >>> current_project().defs.is_dir()
    True
    """
    return _find(os.environ.get(VARIABLE, ""), Path.cwd(), Path(sys.prefix))


@lru_cache
def _find(named: str, working: Path, environment: Path) -> Project:
    if named:
        root = Path(named).expanduser().resolve()
        project = _read(root)
        if project is None:
            raise ProjectNotFound(
                f"{VARIABLE}: wanted a folder whose pyproject.toml has [tool.dg.project], found {root}"
            )
        return project
    here = _first((working, *working.parents))
    around = _first(environment.parents)
    if here is not None and around is not None and here.root != around.root:
        logger.warning(
            "this works for the project in %s, where it was started, with the environment of the one in %s; "
            "%s names another",
            here.root, around.root, VARIABLE,
        )  # fmt: skip
    if (project := here or around) is None:
        raise ProjectNotFound(
            f"wanted a project, a folder whose pyproject.toml has [tool.dg.project]: there is none in {working} or "
            f"above it, nor around {environment}; change into the project, or name it by {VARIABLE}"
        )
    return project


def _first(folders: Iterable[Path]) -> Project | None:
    return next((project for folder in folders if (project := _read(folder)) is not None), None)


def _read(folder: Path) -> Project | None:
    """Read a folder's project; None if it is none (raises ProjectNotFound for one that is described wrongly)."""
    path = folder / "pyproject.toml"
    try:
        described = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("dg", {}).get("project")
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProjectNotFound(f"{path} is no TOML: {error}") from error
    if not isinstance(described, dict):
        return None
    package = described.get("root_module")
    if not isinstance(package, str) or not package.isidentifier():
        raise ProjectNotFound(f"{path}: [tool.dg.project]: root_module: wanted the package's name, found {package!r}")
    return Project(
        root=folder,
        package=package,
        definitions=str(described.get("code_location_target_module", f"{package}.definitions")),
        location=str(described.get("code_location_name", package)),
    )
