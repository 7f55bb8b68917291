"""The platform's processes on one machine: Dagster, serving and the MLflow UI; `make dev` runs them all.

Ports come from `ML_PLATFORM_DAGSTER_PORT`, `ML_PLATFORM_SERVING_PORT`, `ML_PLATFORM_MLFLOW_PORT` or the command line.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_platform.process_runner import CannotStart, Process, run
from ml_platform.settings import PROJECT_ROOT, Settings

PORTS = {"dagster": 3000, "serving": 8000, "mlflow": 5000}
TITLES = {"dagster": "Dagster UI", "serving": "Predictions (OpenAPI at /docs)", "mlflow": "MLflow UI"}
DAGSTER_YAML = """\
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 2
"""


def port_variable(name: str) -> str:
    """Return the environment variable that moves a process's port.

    Examples
    --------
    >>> port_variable("serving")
    'ML_PLATFORM_SERVING_PORT'
    """
    return f"ML_PLATFORM_{name.upper()}_PORT"


def ports() -> dict[str, int]:
    """Return each process's port, as the environment says or the usual one.

    Raises
    ------
    CannotStart
        When a variable holds no port number.
    """
    chosen = {}
    for name, usual in PORTS.items():
        text = os.environ.get(port_variable(name), str(usual))
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise CannotStart(f"{port_variable(name)}: a port from 1 to 65535 is wanted, found {text!r}")
        chosen[name] = int(text)
    return chosen


def dagster_home(settings: Settings) -> Path:
    """Return Dagster's folder, made with a `dagster.yaml` on first use; an existing one is left as it is."""
    folder = settings.home / "dagster_home"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "dagster.yaml"
    if not config.exists():
        config.write_text(DAGSTER_YAML, encoding="utf-8")
    return folder


def platform_environment(settings: Settings, chosen: Mapping[str, int]) -> dict[str, str]:
    """Return the environment that all processes share: where state is, where the others are, no telemetry."""
    usual = Settings.model_fields
    addresses = {"serving_url": chosen["serving"], "mlflow_ui_url": chosen["mlflow"]}
    moved = {
        f"ML_PLATFORM_{name.upper()}": f"http://127.0.0.1:{port}"
        for name, port in addresses.items()
        if getattr(settings, name) == usual[name].default
    }
    return {
        "ML_PLATFORM_HOME": str(settings.home),
        "DAGSTER_HOME": str(dagster_home(settings)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        **moved,
    }


def platform_processes(
    settings: Settings, chosen: Mapping[str, int], names: Sequence[str] = ("dagster", "serving", "mlflow")
) -> list[Process]:
    """Return the named processes, ready to run.

    The MLflow UI is left out where the tracking URI is a server of its own, which has one already.
    """
    python = sys.executable
    commands: dict[str, tuple[list[str], str]] = {
        "dagster": (
            [python, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(chosen["dagster"])],
            "/server_info",
        ),
        "serving": ([python, "-m", "serving", "--port", str(chosen["serving"])], "/health/live"),
        "mlflow": ([python, "-m", "ml_platform.registry.ui", "--port", str(chosen["mlflow"])], "/health"),
    }
    if not settings.tracking_uri.startswith(("sqlite:", "postgresql", "mysql", "mssql")):
        del commands["mlflow"]
    environment = platform_environment(settings, chosen)
    return [
        Process(
            name,
            commands[name][0],
            port=chosen[name],
            port_variable=port_variable(name),
            ready_path=commands[name][1],
            title=TITLES[name],
            environment=environment,
            cwd=PROJECT_ROOT,
        )
        for name in names
        if name in commands
    ]


def addresses(processes: Sequence[Process]) -> str:
    """Return a line per process: what it is and where to open it."""
    width = max((len(process.title) for process in processes), default=0)
    return "\n".join(f"  {process.title:{width}}  {process.url}" for process in processes if process.port)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the platform until Ctrl-C; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ml_platform.processes", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"which to run; all of {', '.join(PORTS)} when none")
    for name, usual in PORTS.items():
        parser.add_argument(f"--{name}-port", type=int, help=f"instead of {port_variable(name)} (usually {usual})")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(PORTS)):
        parser.error(f"no process is called {', '.join(unknown)}: choose from {', '.join(PORTS)}")
    try:
        chosen = ports()
        chosen |= {name: port for name in PORTS if (port := getattr(options, f"{name}_port")) is not None}
        processes = platform_processes(Settings(), chosen, options.names or tuple(PORTS))
        return run(processes, on_ready=lambda: print(f"\n{addresses(processes)}\n\nCtrl-C stops all of them.\n"))
    except CannotStart as error:
        print(f"platform: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
