"""Starts MLflow's own server over the platform's tracking store: `python -m ml_platform.registry.ui --port 5000`."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from ml_platform.gateway_identity import login_in_use
from ml_platform.private_files import private_umask
from ml_platform.registry.artifacts import default_location
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings

_APP = "ml-platform"  # of the entry points `mlflow.app`
_NOT_ALONE = (
    "nobody signs in here, so it listens on this machine only, not on {host}: make an account first, with "
    "`ml-platform accounts add <name> --role admin`"
)


def server_environment(settings: Settings, port: int, given: Mapping[str, str]) -> dict[str, str]:
    """Return what MLflow's server reads from its environment.

    The store's address stands here and not among the arguments, which every user of the machine can read: it may hold a
    password. By default MLflow answers to every name that begins like a private address, `10.evil.example` too, so the
    names and the origins of this server are listed one by one; names of one's own come from MLflow's own variables.

    Examples
    --------
    >>> server_environment(Settings(), 5000, {})["MLFLOW_SERVER_ALLOWED_HOSTS"]
    '127.0.0.1:5000,localhost:5000,[::1]:5000'
    """
    hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
    usual = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts),
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{host}" for host in hosts),
    }
    return {
        **{name: given.get(name) or value for name, value in usual.items()},
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": default_location(settings),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # two processes instead of a dozen
    }


def argument_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m ml_platform.registry.ui", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=5000, help="port to listen on (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Create the store if need be, then become the MLflow server: one worker, no job runners.

    Where people sign in, it answers the login gateway alone (`guarded_ui`).

    The store is created by `Tracker`, under its lock: a server that did it would crash beside a first training run.
    """
    options = argument_parser().parse_args(arguments)
    private_umask()
    settings = Settings()
    is_closed = login_in_use(settings.keys_dir)
    if not is_closed and options.host not in ("127.0.0.1", "localhost", "::1"):
        sys.exit(f"mlflow: {_NOT_ALONE.format(host=options.host)}")
    settings.home.mkdir(parents=True, exist_ok=True)
    _ = Tracker(settings).client
    os.environ.update(server_environment(settings, options.port, os.environ))
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", options.host, "--port", str(options.port)),
        *("--workers", "1"),
        "--no-serve-artifacts",  # a second store of files, in whatever folder it was started in
        *(("--app-name", _APP) if is_closed else ()),
    ]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
