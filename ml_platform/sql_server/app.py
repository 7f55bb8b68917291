"""The server's routes: `POST /sql`, `GET /tables`, `GET /health/live`."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import duckdb
import msgspec
import polars as pl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ml_platform.features.training_sets.notebook_api import project_overlays
from ml_platform.governance.access.store import PolicyUnreadable
from ml_platform.governance.audit import AuditLog, Entry
from ml_platform.governance.keys import Key
from ml_platform.lake.access import AccessDenied, TableRead
from ml_platform.lake.query.overlays import Overlays
from ml_platform.lake.query.sql import query_batches
from ml_platform.lake.query.sql_functions import SqlFunctions
from ml_platform.lake.storage.snapshots import instant
from ml_platform.lake.storage.tables import Lake
from ml_platform.scoring.sql_predict import project_functions
from ml_platform.serving.access.tokens import TokenCaller
from ml_platform.serving.http.messages import Refused
from ml_platform.settings import Settings
from ml_platform.sql_server.answers import ARROW, ArrowAnswer, end_with_client, json_answer
from ml_platform.sql_server.callers import Callers, name_of
from ml_platform.sql_server.limits import Limits, RunningQuery

logger = logging.getLogger("sql_server")
MOST_BYTES = 1_000_000  # of a request's body
_LOOPBACK = {"localhost", "127.0.0.1", "::1", "[::1]"}
_WAITING = 64  # queries that wait for their turn


class Query(msgspec.Struct, forbid_unknown_fields=True):
    """Body of `POST /sql`."""

    sql: str
    as_of: str | None = None
    versions: dict[str, int] = {}
    limit: int | None = None


class SqlServer:
    """Answers queries; each on a DuckDB connection of its own.

    Parameters
    ----------
    settings
        Where lake, keys, policy and audit log are.
    limits
        Of each query.
    at_once
        Queries that run at the same time; others wait for their turn.
    hosts
        Further names by which the server may be asked.
    callers, overlays, functions
        Who asks, pushed rows of views, `predict` in SQL: the project's own when None.
    """

    def __init__(
        self,
        settings: Settings,
        limits: Limits | None = None,
        *,
        at_once: int = 4,
        hosts: Iterable[str] = (),
        callers: Callers | None = None,
        overlays: Callable[[Lake], Overlays] = project_overlays,
        functions: Callable[[Lake], SqlFunctions] = lambda lake: project_functions(lake.guard),
    ) -> None:
        self._limits = limits or Limits()
        self._callers = callers or Callers(settings)
        self._overlays, self._functions = overlays, functions
        self._audit = AuditLog(settings.audit_dir, settings.keys_dir)
        self._audit_lock = threading.Lock()
        self._hosts = {*_LOOPBACK, *hosts}
        self._turns, self._waiting = asyncio.Semaphore(at_once), 0

    def app(self) -> Starlette:
        """The ASGI app."""
        return Starlette(
            routes=[
                Route("/sql", self._sql, methods=["POST"]),
                Route("/tables", self._tables),
                Route("/health/live", lambda _: JSONResponse({"status": "live"})),
            ],
            exception_handlers={Refused: _refused},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        tokens = self._callers.tokens
        watch = asyncio.create_task(tokens.watch()) if tokens is not None else None
        try:
            yield
        finally:
            if watch is not None:
                watch.cancel()
            self._audit.close()

    async def _caller(self, request: Request) -> Key | TokenCaller | None:
        host = request.headers.get("host", "")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name.lower() not in self._hosts:
            raise Refused(421, "unknown_host", f"this server is not called {host!r}: --allowed-host names further ones")
        return await self._callers.find(request)

    async def _tables(self, request: Request) -> Response:
        caller = await self._caller(request)
        lake = self._callers.lake(caller, [])
        return JSONResponse({"tables": await asyncio.to_thread(_tables_of, lake)})

    async def _sql(self, request: Request) -> Response:
        caller = await self._caller(request)
        query = await _body(request)
        if self._waiting >= _WAITING:
            raise Refused(503, "busy", f"{self._waiting} queries wait already: try again later", retry_after=5)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        running = RunningQuery(self._limits)
        timer = asyncio.get_running_loop().call_later(self._limits.seconds, running.end, "time")
        reads: list[TableRead] = []
        wants_arrow = ARROW in request.headers.get("accept", "")
        done = partial(self._done, request, caller, running, timer, reads)
        try:
            limit = min(self._limits.rows, query.limit if query.limit is not None else self._limits.rows)
            frames = await asyncio.to_thread(self._frames, caller, query, reads, running, limit + (not wants_arrow))
            if wants_arrow:
                begun = await asyncio.to_thread(lambda: [frame for _, frame in zip(range(2), frames, strict=False)])
                return _Finished(ArrowAnswer(frames, begun, running), frames, done)
            watch = asyncio.create_task(end_with_client(request.receive, running))
            try:
                body, rows = await asyncio.to_thread(json_answer, frames, limit)
            finally:
                watch.cancel()
        except (Exception, pl.exceptions.PanicException) as error:
            refused = _refusal(error, running, self._limits)
            done(refused.status, 0)
            raise refused from error
        except BaseException:
            running.end("disconnect")
            done(499, 0)
            raise
        done(200, rows)
        return Response(body, media_type="application/json")

    def _frames(
        self, caller: Key | TokenCaller | None, query: Query, reads: list[TableRead], running: RunningQuery, limit: int
    ) -> Iterator[pl.DataFrame]:
        lake = self._callers.lake(caller, reads)
        versions = {name if "/" in name else name.replace(".", "/", 1): one for name, one in query.versions.items()}
        return query_batches(
            lake,
            query.sql,
            versions=versions,
            as_of=instant(query.as_of) if query.as_of else None,
            overlays=self._overlays(lake),
            functions=self._functions(lake),
            limit=limit,
            prepare=running.prepare,
        )

    def _done(  # noqa: PLR0917 - private
        self,
        request: Request,
        caller: Key | TokenCaller | None,
        running: RunningQuery,
        timer: asyncio.TimerHandle,
        reads: list[TableRead],
        status: int,
        rows: int,
    ) -> None:
        """Give the turn back, and record who read which columns of which versions, and how many rows they got."""
        timer.cancel()
        running.close()
        self._turns.release()
        told = "; ".join(
            f"{read.table}@{'refused' if read.version is None else read.version} ({', '.join(read.columns)})"
            for read in reads
        )
        client = request.client.host if request.client is not None else None
        entry = Entry(
            time=datetime.now(UTC), action="sql", key=None if caller is None else caller.id, name=name_of(caller),
            client=client, method="POST", path="/sql", status=status, rows=rows, detail=told or None,
        )  # fmt: skip
        with self._audit_lock:
            self._audit.record(entry)


class _Finished(Response):
    """An Arrow answer that tells when it was sent, or was not."""

    def __init__(self, answer: ArrowAnswer, frames: Iterator[pl.DataFrame], done: Callable[[int, int], None]) -> None:
        super().__init__()
        self._answer, self._frames, self._done = answer, frames, done

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status = 200
        try:
            await self._answer(scope, receive, send)
        except BaseException:
            status = 499
            raise
        finally:
            close = getattr(self._frames, "close", None)
            if close is not None:
                with suppress(ValueError):  # it runs in another thread still, which ends it
                    close()
            self._done(status, self._answer.rows)


async def _body(request: Request) -> Query:
    """Read a request's body.

    A media type that pages of other sites may not send unasked is wanted, so that none can make a browser ask.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "unsupported_media_type", "wanted the body as application/json")
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MOST_BYTES:
            raise Refused(413, "body_too_large", f"the body is larger than {MOST_BYTES:,} bytes")
    try:
        query = msgspec.json.decode(body, type=Query)
    except msgspec.MsgspecError as error:
        raise Refused(400, "invalid_json", f"wanted {{'sql': 'SELECT …'}}: {error}") from error
    if query.limit is not None and query.limit < 0:
        raise Refused(422, "invalid_request", f"limit: wanted 0 or more, found {query.limit}")
    return query


def _refusal(error: BaseException, running: RunningQuery, limits: Limits) -> Refused:
    """The answer for an error of a query."""
    if isinstance(error, Refused):
        return error
    if running.ended is not None and isinstance(error, duckdb.Error):
        why = f"the query took more than {limits.seconds:g} s" if running.ended == "time" else "the client went away"
        return Refused(408, "time_limit" if running.ended == "time" else "client_gone", why)
    memory = f"the query needs more than {limits.memory} of memory: select fewer rows or columns"
    for kinds, status, code, message in (
        (duckdb.OutOfMemoryException, 422, "memory_limit", memory),
        (AccessDenied, 403, "forbidden", str(error)),
        (LookupError, 404, "not_found", str(error)),
        (
            PolicyUnreadable,
            503,
            "policy_unreadable",
            "the access policy cannot be read, so nothing is allowed",
        ),
        ((duckdb.Error, ValueError, pl.exceptions.PolarsError), 422, "invalid_sql", str(error)),
        (pl.exceptions.PanicException, 422, "invalid_sql", "a value of the answer is beyond what its type can hold"),
    ):
        if isinstance(error, kinds):
            return Refused(status, code, message)
    logger.exception("a query failed", exc_info=error)
    return Refused(500, "internal_error", "the query failed; the server's log says why")


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"retry-after": str(error.retry_after)} if error.retry_after else None
    return JSONResponse({"error": {"code": error.code, "message": error.message}}, error.status, headers)


def _tables_of(lake: Lake) -> list[dict[str, Any]]:
    """Tables that may be read, with columns and types as they are given."""
    tables: list[dict[str, Any]] = []
    for name in lake.tables():
        with suppress(AccessDenied):
            columns = [{"name": column, "type": str(dtype)} for column, dtype in lake.schema(name).items()]
            tables.append({"name": name.replace("/", ".", 1), "version": lake.version(name), "columns": columns})
    return tables
