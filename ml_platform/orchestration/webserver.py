"""Starts Dagster's webserver behind the guard: `python -m ml_platform.orchestration.webserver --port 3000`."""

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._utils.log import configure_loggers
from dagster_webserver.app import create_app_from_workspace_process_context
from dagster_webserver.cli import DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_MAX_OVERFLOW, DEFAULT_POOL_RECYCLE
from dagster_webserver.version import __version__

from ml_platform.orchestration.check_status import show_last_evaluations
from ml_platform.orchestration.code_server import await_code_servers
from ml_platform.orchestration.webserver_guard import HOSTS_VARIABLE, Guard, own_hosts
from ml_platform.private_files import private_umask

REFRESH_MILLISECONDS = 2000


@contextmanager
def workspace(path: str) -> Iterator[WorkspaceProcessContext]:
    """Open Dagster's instance and the workspace of a file, as Dagster's own command does."""
    with dg.DagsterInstance.get() as instance:
        instance.optimize_for_webserver(DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_RECYCLE, DEFAULT_POOL_MAX_OVERFLOW)
        target = WorkspaceFileTarget([path])
        with WorkspaceProcessContext(instance, workspace_load_target=target, version=__version__) as context:
            yield context


def argument_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m ml_platform.orchestration.webserver", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=3000, help="port to listen on (default: %(default)s)")
    parser.add_argument("-w", "--workspace", default="workspace.yaml", help="workspace file (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve Dagster's UI until SIGTERM or Ctrl-C."""
    options = argument_parser().parse_args(arguments)

    private_umask()
    configure_loggers(log_level="INFO")
    hosts = own_hosts(options.port, os.environ.get(HOSTS_VARIABLE, ""))
    show_last_evaluations()
    await_code_servers(options.workspace)
    with workspace(options.workspace) as context:
        app = create_app_from_workspace_process_context(context, live_data_poll_rate=REFRESH_MILLISECONDS)
        uvicorn.run(Guard(app, hosts), host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
