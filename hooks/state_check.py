"""Says what an upgrade would break in a project's state, by the present engine's doctor and the new one's formats."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

CHECKOUT = Path(__file__).resolve().parents[1]
DATABASES = {"dagster": "Dagster's databases", "mlflow": "MLflow's database"}


def has_state(project: Path) -> bool:
    """Whether a project may have state: in `data/`, or wherever variables say."""
    named = any(os.environ.get(name) for name in ("ML_PLATFORM_HOME", "ML_PLATFORM_ENVIRONMENT"))
    data = project / "data"
    return named or (data.is_dir() and any(path.name != "README.md" for path in data.iterdir()))


def new_formats() -> ModuleType:
    """Return the formats that this checkout's engine reads, whose file needs nothing else of the engine."""
    path = CHECKOUT / "ml_platform" / "formats.py"
    spec = importlib.util.spec_from_file_location("new_formats", path)
    if spec is None or spec.loader is None:
        sys.exit(f"make upgrade: {path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def check_state(project: Path) -> "tuple[list[str], bool]":
    """Return what there is to say of a project's state, and whether the new engine would not read some of it."""
    if not has_state(project):
        return ["State: none in data/."], False
    command = [sys.executable, "-m", "ml_platform", "doctor", "--json"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        return ["State: not checked, the present engine has no `ml-platform doctor`. Back up `data/` first."], False
    unreadable = new_formats().unreadable(report["formats"])
    wrong = [one for one in report["findings"] if one["status"] == "error"]
    lines = [f"  wrong already: {one['check']}: {one['message']}; {one['remedy']}" for one in wrong]
    lines += [f"  would not be read any more: {problem}" for problem in unreadable]
    return ["State, as `ml-platform doctor` sees it:", *(lines or ["  the new engine reads all of it"])], bool(
        unreadable
    )


def database_changes(before: "dict[str, str]", after: "dict[str, str]") -> "list[str]":
    """Say which databases may need a migration, from the locked versions of the libraries that keep them."""
    return [
        f"  {name} {before[name]} → {after[name]}: after `make setup`, `ml-platform doctor` says whether {what} "
        "need a migration, and by which command"
        for name, what in DATABASES.items()
        if name in before and name in after and before[name] != after[name]
    ]
