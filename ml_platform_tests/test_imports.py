"""What may import what: the engine no Dagster, the code location nothing heavy, serving nothing of training."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

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
NOT_IN_SERVING = HEAVY | {"dagster", "polars", "deltalake", "duckdb", "pyarrow"}


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


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


def test_code_location_loads_nothing_heavy():
    loaded = loaded_by("import ml_platform.definitions")
    assert "dagster" in loaded  # the statement did load the code location
    assert not loaded & (HEAVY | {"alembic", "sqlalchemy"})  # Dagster's storages bring the latter two


def test_serving_loads_no_orchestrator_and_no_training_library():
    loaded = loaded_by("import ml_platform.serving.app, ml_platform.serving.ray_app")
    assert "fastapi" in loaded
    assert not loaded & NOT_IN_SERVING
