"""`python -m ml_platform.serving`: runs the server, on 127.0.0.1 by default, with one process per worker."""

import argparse
import ipaddress
import os
import sys
import tempfile
from pathlib import Path

import uvicorn
from uvicorn.supervisors import Multiprocess

from ml_platform.gateway_identity import login_in_use
from ml_platform.governance.keys import KeyStore
from ml_platform.private_files import private_umask
from ml_platform.serving.access.hosts import SETTING as ALLOWED_HOSTS
from ml_platform.serving.access.rate_limit import create_table
from ml_platform.serving.host_names import is_address
from ml_platform.serving.http.fast_path import PromptProtocol
from ml_platform.serving.http.listener import CannotListen, listen
from ml_platform.serving.settings import ServingSettings
from ml_platform.serving.telemetry.logs import LOGGED, log_config
from ml_platform.serving.telemetry.logs import SETTING as LOGGED_REQUESTS
from ml_platform.serving.telemetry.metrics import SHARED_FOLDER
from ml_platform.settings import Settings

_PORT = "ML_PLATFORM_SERVING_PORT"
_NO_KEYS = (
    "there are no API keys, so it listens on this machine only, not on {host}; make one first: "
    "ml-platform keys create <name> --role predict"
)


def main(arguments: list[str] | None = None) -> int:
    """Run the server until it is stopped; returns the exit code."""
    options = _options(arguments)
    private_umask()
    keys_dir = Settings().keys_dir
    is_closed = KeyStore(keys_dir).in_use() or login_in_use(keys_dir) or ServingSettings().oidc_issuer
    if not (_is_loopback(options.host) or is_closed):
        print(f"serving: {_NO_KEYS.format(host=options.host)}", file=sys.stderr)
        return 1
    try:
        listener = listen(options.host, options.port, "--port")
    except CannotListen as error:
        print(f"serving: {error}", file=sys.stderr)
        return 1
    if not is_address(options.host):  # workers know only its address, but requests name the host
        os.environ[ALLOWED_HOSTS] = ",".join(filter(None, [os.environ.get(ALLOWED_HOSTS), options.host]))
    # Settings reach the workers through the environment.
    os.environ[LOGGED_REQUESTS] = options.log_requests or ("failed" if options.log_format == "json" else "none")
    config = uvicorn.Config(
        "ml_platform.serving.asgi:create_app",
        factory=True,
        host=options.host,
        port=options.port,
        workers=options.workers,
        loop="auto",  # uvloop where there is one
        http=PromptProtocol,
        ws="none",  # there are no WebSockets, and their requests would not be checked
        access_log=False,  # see `telemetry.logs`; and every answered prediction is in the inference log
        log_config=log_config(options.log_format, options.log_level),
        server_header=False,
        timeout_graceful_shutdown=10,
        timeout_worker_healthcheck=20,  # with the default of 5, workers that start slowly would be killed repeatedly
    )
    print(f"serving: http://{options.host}:{listener.getsockname()[1]} ({options.workers} worker(s))", flush=True)
    if options.workers == 1:
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
        return 0 if server.started else 3
    with tempfile.TemporaryDirectory(prefix="ml-platform-metrics-") as shared:
        os.environ[SHARED_FOLDER] = shared  # before the workers import prometheus_client
        create_table(Path(shared))
        Multiprocess(config, sockets=[listener]).run()
    return 0


def argument_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ml_platform.serving", description="Serve the released models over HTTP."
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get(_PORT, "8000"),  # argparse converts a text, and blames the option for one that is none
        help=f"port to listen on; 0 takes a free one (default: {_PORT}, else 8000)",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes, one per core at most (default: %(default)s)")
    parser.add_argument(
        "--log-level",
        default="info",
        choices=["debug", "info", "warning", "error"],
        help="least severe messages of the server that are logged (default: %(default)s)",
    )
    parser.add_argument(
        "--log-format", default="text", choices=["text", "json"], help="of what goes to stderr (default: %(default)s)"
    )
    parser.add_argument(
        "--log-requests",
        choices=["none", *LOGGED],
        help="log none, those that failed (5xx), were refused as well (4xx), or all of them "
        "(default: none, failed with --log-format json)",
    )
    return parser


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argument_parser()
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers: wanted at least 1, found {options.workers}")
    if not 0 <= options.port <= 65535:
        parser.error(f"--port: wanted 0 to 65535, found {options.port}")
    return options


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    sys.exit(main())
