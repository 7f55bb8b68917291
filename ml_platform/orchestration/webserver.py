"""Starts Dagster's webserver behind the guard: `python -m ml_platform.orchestration.webserver --port 3000`."""

import argparse
import os
import sys
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

from ml_platform.gateway_identity import GatewayOnly, GatewaySigner, login_in_use
from ml_platform.login.dagster_rules import PREFIX
from ml_platform.login.settings import is_loopback
from ml_platform.orchestration.check_status import show_last_evaluations
from ml_platform.orchestration.code_server import await_code_servers
from ml_platform.orchestration.webserver_guard import HOSTS_VARIABLE, Guard, own_hosts
from ml_platform.orchestration.webserver_roles import RoleContexts
from ml_platform.private_files import private_umask
from ml_platform.settings import Settings

NOT_ALONE = (
    "nobody signs in here, so it listens on this machine only, not on {host}: make an account first, with "
    "`ml-platform accounts add <name> --role admin`"
)
REFRESH_MILLISECONDS = 2000


@contextmanager
def workspace(path: str) -> Iterator[WorkspaceProcessContext]:
    """Open Dagster's instance and the workspace of a file, as Dagster's own command does."""
    with dg.DagsterInstance.get() as instance:
        instance.optimize_for_webserver(DEFAULT_DB_STATEMENT_TIMEOUT, DEFAULT_POOL_RECYCLE, DEFAULT_POOL_MAX_OVERFLOW)
        target = WorkspaceFileTarget([path])
        with RoleContexts(instance, workspace_load_target=target, version=__version__) as context:
            yield context


def argument_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m ml_platform.orchestration.webserver", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=3000, help="port to listen on (default: %(default)s)")
    parser.add_argument("-w", "--workspace", default="workspace.yaml", help="workspace file (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve Dagster's UI until SIGTERM or Ctrl-C; where people sign in, to the login gateway alone."""
    options = argument_parser().parse_args(arguments)

    private_umask()
    keys_dir = Settings().keys_dir
    signer = GatewaySigner(keys_dir) if login_in_use(keys_dir) else None
    if signer is None and not is_loopback(options.host):
        print(f"dagster: {NOT_ALONE.format(host=options.host)}", file=sys.stderr)
        return 1
    configure_loggers(log_level="INFO")
    hosts = own_hosts(options.port, os.environ.get(HOSTS_VARIABLE, ""))
    show_last_evaluations()
    await_code_servers(options.workspace)
    with workspace(options.workspace) as context:
        prefix = PREFIX if signer is not None else ""
        app = create_app_from_workspace_process_context(context, prefix, live_data_poll_rate=REFRESH_MILLISECONDS)
        guarded = app if signer is None else GatewayOnly(app, signer, "dagster", frozenset({f"{PREFIX}/server_info"}))
        uvicorn.run(Guard(guarded, hosts), host=options.host, port=options.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
