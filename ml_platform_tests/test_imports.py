"""What may import what: the engine no Dagster, the code location nothing heavy, serving nothing of training."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.orchestration.execution import STEP_MODULES
from ml_platform_tests.paths import PROJECT_ROOT

HEAVY = {
    *(
        "evidently",
        "lightgbm",
        "matplotlib",
        "mlflow",
        "onnx",
        "optuna",
        "pandas",
        "ray",
        "scipy",
        "sklearn",
    ),
    *("catboost", "keras", "tensorflow", "torch", "xgboost"),
}
# Of the engine, what only a run needs.
ONLY_IN_RUNS = (
    *(f"ml_platform.{room}." for room in ("inference", "monitoring", "new_model", "serving", "testing")),
    *(f"ml_platform.training.{room}" for room in ("artifacts", "evaluation", "export", "families", "fit", "search")),
    *("ml_platform.features.catalogue", "ml_platform.lake.sources.csv", "ml_platform.lake.sources.sql_database"),
    *("ml_platform.registry.tracking",),
)
NOT_IN_SERVING = HEAVY | {"dagster", "polars", "deltalake", "duckdb", "pyarrow"}


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def modules_loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def loaded_by(statement: str) -> set[str]:
    return {name.split(".")[0] for name in modules_loaded_by(statement)}


def imported_in_functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    nodes = [node for function in functions for node in ast.walk(function)]
    return {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def engine_modules() -> list[Path]:
    """All modules of the engine: what is neither Dagster's room nor starts it, nor a project's definitions."""
    package = PROJECT_ROOT / "ml_platform"
    starting = {package / "definitions.py", package / "demo.py"}
    found = [
        path
        for path in package.rglob("*.py")
        if path.relative_to(package).parts[0] not in ("orchestration", "defs") and path not in starting
    ]
    assert len(found) > 200
    return found


@pytest.mark.parametrize("path", engine_modules(), ids=lambda path: str(path.relative_to(PROJECT_ROOT)))
def test_engine_never_imports_dagster(path):
    assert not {name for name in imported_names(path) if name.startswith("dagster")}


def test_code_location_loads_nothing_heavy_and_nothing_that_only_runs_need():
    modules = modules_loaded_by("from ml_platform.definitions import defs; defs()")
    assert "ml_platform.defs.flight_delay.request_features" in modules or "ml_platform.defs.flights.tables" in modules
    loaded = {name.split(".")[0] for name in modules}
    assert not loaded & (HEAVY | {"alembic", "sqlalchemy", "tomlkit"})  # Dagster's storages bring the first two
    assert not {name for name in modules if name.startswith(ONLY_IN_RUNS)}


def test_steps_are_forked_with_all_that_their_assets_import():
    folder = PROJECT_ROOT / "ml_platform/orchestration"
    paths = [*folder.glob("*_asset*.py"), *folder.glob("*_check*.py"), folder / "maintenance.py"]
    needed = {name for path in paths for name in imported_in_functions(path) if name.startswith("ml_platform.")}
    assert "ml_platform.training.fit" in needed
    assert needed <= modules_loaded_by(f"import ml_platform.orchestration.load_project, {', '.join(STEP_MODULES)}")


def test_serving_loads_no_orchestrator_and_no_training_library():
    loaded = loaded_by("import ml_platform.serving.app, ml_platform.serving.ray_app")
    assert "fastapi" in loaded
    assert not loaded & NOT_IN_SERVING
