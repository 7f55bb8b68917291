"""What the current project declares, by name: raw tables, feature views and models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from ml_platform.features.views.view import FeatureView
from ml_platform.lake.sources.registry import declared_tables
from ml_platform.project import current_project
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import check_project

Part = TypeVar("Part")


def tables() -> tuple[str, ...]:
    """Names of the raw tables that the project declares, to parametrise a test with.

    Raises
    ------
    ValueError
        If a declaration is wrong; the message names the file.

    Examples
    --------
    >>> all(name.startswith("raw/") for name in tables())
    True
    """
    return tuple(sorted(declared_tables()))


def views() -> tuple[str, ...]:
    """Names of the project's feature views, to parametrise a test with.

    Raises
    ------
    ValueError
        If a file does not describe a view; the message names it.

    Examples
    --------
    >>> list(views()) == sorted(project_views())
    True
    """
    return tuple(sorted(project_views()))


def models() -> tuple[str, ...]:
    """Names of the project's models, to parametrise a test with.

    Raises
    ------
    ml_platform.yaml_documents.SpecError
        With the mistakes of all YAML files.

    Examples
    --------
    >>> list(models()) == sorted(project_models())
    True
    """
    return tuple(sorted(project_models()))


def project_views() -> Mapping[str, FeatureView]:
    """Read the project's feature views, as its definitions do."""
    from ml_platform.orchestration.component import project_views as read_views

    return read_views(current_project().defs)


def project_models() -> dict[str, tuple[ModelSpec, Path]]:
    """Read the project's models, each with its folder."""
    columns = {name: view.columns.keys() for name, view in project_views().items()}
    specs = check_project(current_project().defs, columns)
    return {spec.name: (spec, path.parent) for path, spec in specs.items()}


def part(kind: str, name: str, parts: Mapping[str, Part]) -> Part:
    """Pick one part of the project by its name (raises AssertionError that lists the others)."""
    if name not in parts:
        raise AssertionError(
            f"wanted the {kind} '{name}' of the project in {current_project().root}; it has "
            f"{', '.join(sorted(parts)) or 'none'}"
        )
    return parts[name]
