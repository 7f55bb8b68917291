"""What the engine exports: a snapshot of the names and their parameters, and that exporting them loads nothing."""

import inspect
import json
import os
from importlib import import_module
from typing import Any

import pytest

from ml_platform_tests.paths import PROJECT_ROOT
from ml_platform_tests.test_imports import loaded_by

ROOMS = (
    *("features", "lake", "notebook_files", "notebooks", "orchestration", "promotion", "registry", "serving", "spec"),
    *("testing", "training"),
)
SNAPSHOT = PROJECT_ROOT / "ml_platform_tests" / "public_api.json"


def parameters(exported: Any) -> list[str] | None:
    """Names of what a function or a class is called with, `=` behind those with a default.

    None for an error and for what is no function or class.
    """
    is_error = isinstance(exported, type) and issubclass(exported, Exception)
    if is_error or not (inspect.isfunction(exported) or inspect.isclass(exported)):
        return None
    return [
        f"{name}=" if parameter.default is not parameter.empty else name
        for name, parameter in inspect.signature(exported).parameters.items()
    ]


def test_the_exported_names_and_their_parameters_are_those_of_the_snapshot() -> None:
    now = {}
    for room in ROOMS:
        package = import_module(f"ml_platform.{room}")
        now[room] = {name: parameters(getattr(package, name)) for name in sorted(package.__all__)}
        assert set(package.__all__) <= set(dir(package))
    if os.environ.get("UPDATE_SNAPSHOTS", "") not in ("", "0"):
        SNAPSHOT.write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
    assert now == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_every_room_that_exports_names_is_in_the_snapshot() -> None:
    exporting = {
        path.parent.name
        for path in (PROJECT_ROOT / "ml_platform").glob("*/__init__.py")
        if "__all__" in path.read_text(encoding="utf-8")
    }
    assert exporting == set(ROOMS)


@pytest.mark.parametrize("room", ["features", "promotion", "registry", "serving", "spec"])
def test_a_room_is_imported_without_what_it_exports(room: str) -> None:
    loaded = loaded_by(f"import ml_platform.{room}")
    assert not loaded & {"polars", "deltalake", "dagster", "fastapi", "msgspec", "numpy", "pydantic"}


def test_a_name_that_is_not_exported_is_named_in_the_error() -> None:
    with pytest.raises(ImportError, match=r"cannot import name 'Laek' from 'ml_platform\.lake'"):
        from ml_platform.lake import Laek  # noqa: F401
