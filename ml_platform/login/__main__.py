"""`python -m ml_platform.login`: the gateway, on 127.0.0.1 by default."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from ml_platform.login.people import prepare
from ml_platform.login.proxy import Upstream
from ml_platform.login.settings import LoginSettings, is_loopback
from ml_platform.private_files import private_umask
from ml_platform.processes.platform import ports
from ml_platform.processes.runner import CannotStart
from ml_platform.settings import Settings

_NOBODY = (
    "nobody could sign in: make an account first, with `ml-platform accounts add <name> --role admin`, or name an "
    "identity provider in ML_PLATFORM_LOGIN_OIDC_ISSUER"
)
_PLAIN = (
    "passwords would cross the net in the clear: name the https:// address that people open in ML_PLATFORM_LOGIN_URL, "
    "with TLS by a proxy in front or by --certificate and --private-key; without, it stays on 127.0.0.1, not {host}"
)


def argument_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ml_platform.login", description="One sign-in in front of Dagster, MLflow and the console."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, help="port to listen on (default: ML_PLATFORM_LOGIN_PORT, else 4000)")
    parser.add_argument("--certificate", help="file of the TLS certificate, where no proxy in front has it")
    parser.add_argument("--private-key", help="file of the certificate's private key")
    return parser


def upstreams(settings: Settings, login: LoginSettings, chosen: dict[str, int]) -> dict[str, Upstream]:
    """Return the servers behind the gateway, by user interface: those of this machine unless settings name others."""
    usual = Settings.model_fields["serving_url"].default
    local = {name: f"http://127.0.0.1:{port}" for name, port in chosen.items()}
    serving = local["serving"] if settings.serving_url == usual else settings.serving_url.rstrip("/")
    return {
        "dagster": Upstream("Dagster", login.dagster_url or local["dagster"]),
        "mlflow": Upstream("MLflow", login.mlflow_url or local["mlflow"], removed="/mlflow"),
        "console": Upstream("The prediction server", serving),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gateway until it is stopped; return the exit code."""
    options = argument_parser().parse_args(arguments)
    private_umask()
    try:
        return _run(options, Settings(), LoginSettings())
    except (CannotStart, ValueError, OSError) as error:
        print(f"login: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, settings: Settings, login: LoginSettings) -> int:
    import uvicorn

    from ml_platform.login.gateway import Gateway
    from ml_platform.login.request_checks import Site

    if bool(options.certificate) != bool(options.private_key):
        raise CannotStart("--certificate and --private-key belong together")
    chosen = ports()
    port = options.port if options.port is not None else chosen["login"]
    scheme = "https" if options.certificate else "http"
    url = login.url or f"{scheme}://{'127.0.0.1' if options.host == 'localhost' else options.host}:{port}"
    if not is_loopback(options.host) and not (login.is_secure or options.certificate):
        raise CannotStart(_PLAIN.format(host=options.host))
    signer = prepare(settings, login)
    if signer is None:
        raise CannotStart(_NOBODY)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request
    gateway = Gateway(settings, login, Site.of(url, port), upstreams(settings, login, chosen), signer)
    os.environ.pop("FORWARDED_ALLOW_IPS", None)  # which proxies are believed is this server's own setting
    config = uvicorn.Config(
        gateway,
        host=options.host,
        port=port,
        ws="websockets-sansio",
        ws_max_size=2**20,
        lifespan="on",
        log_level="warning",
        access_log=False,  # see the audit log
        server_header=False,
        proxy_headers=bool(login.trusted_proxies),
        forwarded_allow_ips=login.trusted_proxies or "",
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.private_key,
    )
    print(f"login: {url}", flush=True)
    server = uvicorn.Server(config)
    server.run()
    return 0 if server.started else 3


if __name__ == "__main__":
    sys.exit(main())
