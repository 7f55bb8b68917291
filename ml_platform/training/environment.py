"""The environment that fits a model: what of it can decide the last bit of a score, recorded and compared."""

import hashlib
import os
import platform
import re
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

from pydantic import Field

from ml_platform.code_version import engine_code_version
from ml_platform.spec.types import Strict

_ENGINE = Path(__file__).parents[1]
_NUMBERS = re.compile(
    r"numpy|scipy|scikit-learn|lightgbm|xgboost|catboost|torch|tensorflow(-cpu)?|keras|polars(-runtime.*)?|duckdb|"
    r"deltalake|pyarrow|onnx|onnxruntime|optuna|joblib|threadpoolctl"
)
_VARIABLES = re.compile(r"(OMP|OPENBLAS|MKL|BLIS|POLARS|PYTHONHASHSEED|TF|KERAS)(_[A-Z_]+)?")


class Environment(Strict):
    """Python, packages, engine and machine."""

    python: str = Field(description="Implementation and version.")
    platform: str = Field(description="System, C library and kind of processor.")
    cpu_count: int = Field(description="Processors that the process may use.")
    processor: str = Field("", description="Name of the processor; empty where the system does not tell.")
    engine_version: str = Field(description="Of the engine, with its commit where that is known.")
    engine_digest: str = Field(description="SHA-256 over the engine's modules.")
    blas: tuple[str, ...] = Field(description="Libraries of linear algebra and threads, with version and kernels.")
    packages: dict[str, str] = Field(description="Installed package → version.")
    variables: dict[str, str] = Field(description="Environment variables that libraries of numbers read.")


class EnvironmentDifference(Strict):
    """One part of the environment that is another than it was."""

    what: str = Field(description="The part: python, a package, …")
    recorded: str = Field(description="What it was when the model was fitted.")
    found: str = Field(description="What it is now.")
    decides: bool = Field(description="Whether scores may depend on it: false for what only decides how fast it is.")


def this_environment() -> Environment:
    """Describe the environment of this process."""
    return Environment(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=f"{platform.system()} {'-'.join(platform.libc_ver())} {platform.machine()}",
        cpu_count=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        processor=_processor(),
        engine_version=engine_code_version(),
        engine_digest=engine_digest(),
        blas=_blas(),
        packages=_packages(),
        variables={name: value for name, value in sorted(os.environ.items()) if _VARIABLES.fullmatch(name)},
    )


@cache
def engine_digest() -> str:
    """SHA-256 over names and contents of the engine's modules, as they are on disk."""
    digest = hashlib.sha256()
    for path in sorted(_ENGINE.rglob("*.py")):
        name = path.relative_to(_ENGINE).as_posix()
        if not name.startswith(("defs/", "demo")):  # the example: a project has none of it
            digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def environment_differences(recorded: Environment, now: Environment) -> tuple[EnvironmentDifference, ...]:
    """Say what is another than it was, part by part; packages that one of both does not have are absent there."""
    said: list[EnvironmentDifference] = []

    def compare(what: str, one: object, other: object, *, decides: bool = True) -> None:
        if one != other:
            said.append(
                EnvironmentDifference(what=what, recorded=str(one or "–"), found=str(other or "–"), decides=decides)
            )

    compare("python", recorded.python, now.python)
    compare("platform", recorded.platform, now.platform)
    compare("engine version", recorded.engine_version, now.engine_version, decides=False)
    compare("engine", recorded.engine_digest[:12], now.engine_digest[:12])
    compare("processors", recorded.cpu_count, now.cpu_count, decides=False)
    compare("processor", recorded.processor, now.processor)
    compare("BLAS", "; ".join(recorded.blas), "; ".join(now.blas))
    for name in sorted({*recorded.packages, *now.packages}):
        decides = _NUMBERS.fullmatch(name) is not None
        compare(f"package {name}", recorded.packages.get(name), now.packages.get(name), decides=decides)
    for name in sorted({*recorded.variables, *now.variables}):
        compare(f"variable {name}", recorded.variables.get(name), now.variables.get(name), decides=False)
    return tuple(said)


@cache
def _packages() -> dict[str, str]:
    packages = ((str(item.metadata["Name"]), item.version) for item in distributions())
    return {name.lower().replace("_", "-"): version for name, version in sorted(packages)}


def _blas() -> tuple[str, ...]:
    """Libraries that are loaded once numbers are computed; their number of threads is not among what decides."""
    import numpy  # noqa: F401 - loads its BLAS
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info

    return tuple(
        sorted(
            {
                " ".join(str(entry[key]) for key in ("internal_api", "version", "architecture") if entry.get(key))
                for entry in threadpool_info()
                if entry.get("user_api") == "blas"
            }
        )
    )


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.processor()
