"""The platform's processes on one machine: Dagster's three, serving and the MLflow UI; `make dev` runs them all.

Ports come from `ML_PLATFORM_DAGSTER_PORT`, `ML_PLATFORM_SERVING_PORT`, `ML_PLATFORM_MLFLOW_PORT`, the command line, or
`ports:` in `environments.yaml`.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field
from pydantic.fields import FieldInfo

from ml_platform.atomic_files import replace_file
from ml_platform.environments import VARIABLE as ENVIRONMENT
from ml_platform.environments import current_environment
from ml_platform.gateway_identity import login_in_use
from ml_platform.processes.runner import CannotStart, Process
from ml_platform.project import current_project
from ml_platform.settings import Settings

PORTS = {"dagster": 3000, "serving": 8000, "mlflow": 5000, "login": 4000}
# What `ports:` of an environment may hold.
PORT_FIELDS = {name: FieldInfo(annotation=Annotated[int, Field(ge=1, le=65_535)]) for name in PORTS}
TITLES = {
    "dagster": "Dagster UI",
    "serving": "Predictions (OpenAPI at /docs)",
    "mlflow": "MLflow UI",
    "login": "Sign in (Dagster, MLflow, console)",
}
DAGSTER_YAML = """\
# Written when this folder was made; it is yours to change. "Runs that fail" in the documentation explains each part.
telemetry:
  enabled: false
nux:
  enabled: false
run_launcher: # knows whether a run's process is alive
  module: ml_platform.orchestration.run_launcher
  class: LocalRunLauncher
concurrency:
  runs:
    max_concurrent_runs: 2
  pools: # a model's training assets are a pool: one run at a time
    granularity: run
    default_limit: 1
run_monitoring:
  enabled: true
  poll_interval_seconds: 20
  start_timeout_seconds: 300
  max_runtime_seconds: 43200 # a job's tag dagster/max_runtime overrides it
run_retries: # from the failed step, of runs that were killed: a step that failed by itself would fail again
  enabled: true
  max_retries: 2
  retry_on_asset_or_op_failure: false
"""
# What earlier versions wrote. A file that still is one of these was never touched, and is replaced.
EARLIER = ("telemetry:\n  enabled: false\nnux:\n  enabled: false\nconcurrency:\n  runs:\n    max_concurrent_runs: 2\n",)


def port_variable(name: str) -> str:
    """Return the environment variable that moves a process's port.

    Examples
    --------
    >>> port_variable("serving")
    'ML_PLATFORM_SERVING_PORT'
    """
    return f"ML_PLATFORM_{name.upper()}_PORT"


def ports() -> dict[str, int]:
    """Return each process's port: of its variable, else of `ports:` in `environments.yaml`, else the usual one.

    Raises
    ------
    CannotStart
        When a variable holds no port number.
    SpecError
        When the file names no process or port.
    """
    environment = current_environment()
    of_file = environment.values("ports", PORT_FIELDS) if environment else {}
    chosen = {}
    for name, usual in (PORTS | of_file).items():
        text = os.environ.get(port_variable(name), str(usual))
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise CannotStart(f"{port_variable(name)}: a port from 1 to 65535 is wanted, found {text!r}")
        chosen[name] = int(text)
    return chosen


def dagster_home(settings: Settings) -> Path:
    """Return Dagster's folder, made with a `dagster.yaml` on first use.

    An existing file is left as it is, unless it is to the letter what an earlier version wrote.
    """
    folder = settings.home / "dagster_home"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "dagster.yaml"
    if not config.exists() or config.read_text(encoding="utf-8") in EARLIER:
        # Half a file, as a full disk leaves one, would be taken for the user's own ever after.
        replace_file(config, DAGSTER_YAML.encode())
    return folder


def make_databases(settings: Settings) -> None:
    """Let Dagster make its databases once, before processes that would all do so at once are started.

    Raises
    ------
    CannotStart
        When they cannot be made or opened.
    """
    folder = dagster_home(settings)
    made = folder / "history" / "made"  # beside the databases, so that it goes with them
    if made.exists():
        return
    done = subprocess.run(
        [sys.executable, "-m", "ml_platform.orchestration.instance"],
        cwd=current_project().root,
        env={**os.environ, "DAGSTER_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = re.findall(r"^[\w.]+: .*$", done.stderr, re.MULTILINE) or [done.stderr.strip()]
        raise CannotStart(f"Dagster's databases in {folder} cannot be made or opened: {errors[-1]}")
    made.parent.mkdir(exist_ok=True)
    made.touch()


def missing_settings(folder: Path) -> str | None:
    """Return what a `dagster.yaml` of the user's own leaves out of ours, in words; None when nothing."""
    config = folder / "dagster.yaml"
    wanted, configured = yaml.safe_load(DAGSTER_YAML), yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    missing = [
        name if name not in configured else f"{name}.{part}"
        for name, parts in wanted.items()
        for part in (parts if isinstance(configured.get(name), dict) else [""])
        if name not in configured or (part and part not in configured[name])
    ]
    if not missing:
        return None
    return (
        f"{config} is your own and was left as it is. It lacks {', '.join(missing)}: without them killed runs are "
        "noticed at the next start only, and two trainings of a model may run at once. "
        "'Runs that fail' in the documentation has the text"
    )


def code_socket(settings: Settings) -> Path:
    """Return the socket of the home's code server: in a private folder of a short path, as sockets need."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"ml-platform-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != user or status.st_mode & 0o077:
        raise CannotStart(f"{folder} must be a folder of your own that nobody else can enter: remove it, or set TMPDIR")
    return folder / f"{hashlib.sha256(str(settings.home).encode()).hexdigest()[:16]}.sock"


def dagster_workspace(settings: Settings) -> Path:
    """Return the workspace file that points webserver and daemon at the code server, written anew."""
    path = dagster_home(settings) / "workspace.yaml"
    server = {"socket": str(code_socket(settings)), "location_name": current_project().location}
    path.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
    return path


def platform_environment(settings: Settings, chosen: Mapping[str, int]) -> dict[str, str]:
    """Return the environment that all processes share: where state is, where the others are, no telemetry."""
    usual = Settings.model_fields
    local = {
        "serving_url": f"http://127.0.0.1:{chosen['serving']}",
        "mlflow_ui_url": ui_address("mlflow", settings, chosen),
    }
    moved = {
        f"ML_PLATFORM_{name.upper()}": address
        for name, address in local.items()
        if getattr(settings, name) == usual[name].default
    }
    environment = current_environment()
    return {
        "ML_PLATFORM_HOME": str(settings.home),
        **({ENVIRONMENT: environment.name} if environment else {}),
        "DAGSTER_HOME": str(dagster_home(settings)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        # Dagster's own 60 are short for a busy machine: a run that began in time would be failed and retried.
        "DAGSTER_GRPC_TIMEOUT_SECONDS": os.environ.get("DAGSTER_GRPC_TIMEOUT_SECONDS", "180"),
        **moved,
    }


def ui_address(name: str, settings: Settings, chosen: Mapping[str, int]) -> str:
    """Return where people of this machine open Dagster's UI or MLflow's: behind the login where they sign in."""
    if login_in_use(settings.keys_dir):
        return f"http://127.0.0.1:{chosen.get('login', PORTS['login'])}/{name}"
    return f"http://127.0.0.1:{chosen[name]}"


def platform_processes(
    settings: Settings, chosen: Mapping[str, int], names: Sequence[str] = ("dagster", "serving", "mlflow")
) -> list[Process]:
    """Return the named processes, ready to run; `dagster` is three: code server, daemon and webserver.

    The MLflow UI is left out where the tracking URI is a server of its own, which has one already; the login where
    nobody signs in.
    """
    environment = platform_environment(settings, chosen)
    project = current_project()
    with_login = login_in_use(settings.keys_dir)

    def process(
        name: str,
        *arguments: str,
        ready_path: str | None = None,
        keeps_children: bool = False,
        more: Mapping[str, str] = {},
    ) -> Process:
        has_port = ready_path is not None
        return Process(
            name,
            [sys.executable, "-m", *arguments, *(("--port", str(chosen[name])) if has_port else ())],
            port=chosen[name] if has_port else None,
            port_variable=port_variable(name) if has_port else "",
            ready_path=ready_path,
            title=TITLES.get(name, ""),
            environment={**environment, **more},
            cwd=project.root,
            ready_seconds=settings.start_timeout_seconds,
            ready_seconds_variable="ML_PLATFORM_START_TIMEOUT_SECONDS",
            keeps_children=keeps_children,
        )

    processes = []
    if "dagster" in names:
        workspace, socket = str(dagster_workspace(settings)), str(code_socket(settings))
        code = ("-m", project.definitions, "-d", str(project.root), "--location-name", project.location, "-s", socket)
        processes += [
            process("dagster-code", "dagster", "code-server", "start", *code, keeps_children=True),
            process("dagster-daemon", "ml_platform.orchestration.daemon", "-w", workspace),
            process(
                "dagster",
                "ml_platform.orchestration.webserver",
                "-w",
                workspace,
                ready_path="/dagster/server_info" if with_login else "/server_info",
            ),
        ]
    if "serving" in names:
        processes.append(process("serving", "ml_platform.serving", ready_path="/health/live"))
    if "mlflow" in names and settings.tracking_uri.startswith(("sqlite:", "sqlite+", "postgresql", "mysql", "mssql")):
        processes.append(process("mlflow", "ml_platform.registry.ui", ready_path="/health"))
    if "login" in names and with_login:
        behind = {port_variable(name): str(port) for name, port in chosen.items()}
        processes.append(process("login", "ml_platform.login", ready_path="/-/health", more=behind))
    return processes


def addresses(processes: Sequence[Process]) -> str:
    """Return a line per process: what it is and where to open it; of those behind the login, the login's alone."""
    if any(process.name == "login" for process in processes):
        processes = [process for process in processes if process.name not in {"dagster", "mlflow"}]
    width = max((len(process.title) for process in processes), default=0)
    return "\n".join(f"  {process.title:{width}}  {process.url}" for process in processes if process.port)
