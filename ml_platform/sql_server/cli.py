"""`ml-platform sql-server`: runs the server."""

import ipaddress
from typing import Annotated

import typer

from ml_platform.settings import Settings
from ml_platform.terminal import say, stop


def sql_server(  # noqa: PLR0917 - options of a command
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8010,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long a query may take.")] = 60,
    memory: Annotated[str, typer.Option(help="What a query may hold: 500MB, 2GB.")] = "2GB",
    threads: Annotated[int, typer.Option(min=1, help="Threads of a query.")] = 2,
    rows: Annotated[int, typer.Option(min=1, help="Most rows of an answer.")] = 1_000_000,
    queries: Annotated[int, typer.Option(min=1, help="Queries at the same time; others wait.")] = 4,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Further name by which it may be asked. May be repeated.")
    ] = None,
) -> None:
    """Answer SQL over HTTP, as JSON or Arrow, with what each key or token may see.

    Run it as the user who owns the lake's files, so that its callers need none of them.
    """
    import re

    import uvicorn

    from ml_platform.project import ProjectNotFound, current_project
    from ml_platform.serving.http.listener import CannotListen, listen
    from ml_platform.sql_server.app import SqlServer
    from ml_platform.sql_server.callers import Callers
    from ml_platform.sql_server.limits import Limits

    if re.fullmatch(r"[1-9]\d*(\.\d+)? ?([KMGT]i?B)", memory) is None:
        stop(f"--memory: wanted a size like 500MB or 2GB, found {memory!r}")
    settings = Settings()
    try:
        current_project()  # whose definitions say what is masked
        callers = Callers(settings)
        is_loopback = host == "localhost" or _is_loopback(host)
        if not is_loopback and not callers.in_use():
            stop(
                f"There are no keys, so it listens on this machine only, not on {host}; make one first: "
                "ml-platform keys create <name> --role admin"
            )
        listener = listen(host, port, "--port")
    except (ProjectNotFound, CannotListen, ValueError) as error:
        stop(str(error))
    limits = Limits(seconds=seconds, memory=memory, threads=threads, rows=rows)
    server = SqlServer(settings, limits, at_once=queries, hosts=[host, *(allowed_host or ())], callers=callers)
    config = uvicorn.Config(
        server.app(),
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=10,
    )
    say(f"sql-server: http://{host}:{listener.getsockname()[1]}")
    uvicorn.Server(config).run(sockets=[listener])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
