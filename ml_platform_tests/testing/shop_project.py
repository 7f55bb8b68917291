"""A small project of its own, in files: the orders of `toy_world` as sources, a feature view, a model and an app."""

import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from ml_platform.lake.storage.tables import Lake
from ml_platform.project import VARIABLE
from ml_platform.settings import Settings
from ml_platform_tests.toy_world import REQUEST_FEATURES, SPINE, VIEW, build_shops, shop_spec

_NUMBER = count()  # a package of its own for each project: Python keeps what it has imported

PYPROJECT = """
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{package}"
code_location_target_module = "{package}.definitions"
code_location_name = "{package}"
"""
DEFINITIONS = """
from ml_platform.orchestration.project_definitions import project_definitions as defs

__all__ = ["defs"]
"""
APP = """
from ml_platform.serving.app import create_app

app = create_app()
"""
ORDERS: dict[str, Any] = {
    "order_id": {"type": "string", "key": True},
    "shop": {"type": "string"},
    "channel": {"type": "string", "nullable": True},
    "weight": {"type": "number", "nullable": True, "minimum": 0},
    "ordered_at": {"type": "timestamp"},
    "known_at": {"type": "timestamp"},
    "minutes": {"type": "number"},
    "late": {"type": "boolean"},
    "outcome": {"type": "string"},
}
LOADS: dict[str, Any] = {
    "shop": {"type": "string", "key": True},
    "seen_at": {"type": "timestamp", "key": True},
    "load": {"type": "number"},
    "mood": {"type": "string"},
}


@dataclass(frozen=True)
class ShopProject:
    """The project's folders, and what a test changes in them."""

    root: Path
    package: str

    @property
    def defs(self) -> Path:
        return self.root / self.package / "defs"

    def write_view(self, name: str, text: str) -> None:
        """Declare a feature view by its SQL file."""
        (self.defs / "features").mkdir(exist_ok=True)
        (self.defs / "features" / "defs.yaml").write_text("type: ml_platform.orchestration.FeatureViews\n")
        (self.defs / "features" / f"{name}.sql").write_text(text)

    def write_source(self, name: str, columns: dict[str, Any], rows: pl.DataFrame | None, **keys: Any) -> None:
        """Declare a raw table by its YAML; its rows are in `files/<name>.parquet`."""
        declared = {
            "name": f"raw/{name}",
            "description": f"The {name} of shops.",
            "owner": "shops@example.com",
            "columns": columns,
            "file": {"path": f"files/{name}.parquet"},
            **keys,
        }
        _write_yaml(self.defs / name / "defs.yaml", "SourceTable", declared)
        if rows is not None:
            (self.root / "files").mkdir(exist_ok=True)
            rows.write_parquet(self.root / "files" / f"{name}.parquet")

    def write_model(self, request_features: str = REQUEST_FEATURES, **changes: Any) -> None:
        """Declare the model of `toy_world`; `changes` replace keys of its YAML."""
        spec = shop_spec(**changes)
        folder = self.defs / spec.name
        declared = spec.model_dump(mode="json", exclude_unset=True) | {
            "split": {"holdout": "14 days", "validation": "14 days", "gap": "1 day"}
        }
        _write_yaml(folder / "defs.yaml", "TabularModel", declared)
        (folder / spec.spine).write_text(SPINE.format(target=spec.target))
        (folder / "request_features.py").write_text(request_features)

    def write_app(self, text: str) -> None:
        """Write the project's serving app."""
        (self.root / "serving" / "app.py").write_text(text)


def _write_yaml(path: Path, component: str, attributes: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    document = {"type": f"ml_platform.orchestration.{component}", "attributes": attributes}
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def empty_project(folder: Path) -> ShopProject:
    """Write a project without any definitions, as one is that was just made."""
    package = f"shop_project_{next(_NUMBER)}"
    defs = folder / package / "defs"
    defs.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(package=package))
    (folder / package / "__init__.py").touch()
    (folder / package / "definitions.py").write_text(DEFINITIONS)
    (defs / "__init__.py").touch()
    (folder / "serving").mkdir()
    (folder / "serving" / "__init__.py").touch()
    (folder / "serving" / "app.py").write_text(APP)
    return ShopProject(folder, package)


def shop_tables(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Orders, and how busy the shops were, over 90 days."""
    shops = build_shops(Settings(home=folder / "home"), folder / "defs", rows=2_000)
    lake: Lake = shops.lake
    return lake.read("raw/orders").collect(), lake.read("raw/loads").collect()


def fill_project(project: ShopProject, tables: tuple[pl.DataFrame, pl.DataFrame]) -> None:
    """Declare both tables and the view of `toy_world`."""
    project.write_source("orders", ORDERS, tables[0])
    project.write_source("loads", LOADS, tables[1])
    project.write_view("shop_load", VIEW)


def work_for(project: ShopProject, monkeypatch: pytest.MonkeyPatch) -> ShopProject:
    """Make a project the one that this process works for."""
    monkeypatch.setenv(VARIABLE, str(project.root))
    monkeypatch.setattr(sys, "path", [str(project.root), *sys.path])
    return project
