"""Requests and answers of the hot routes in plain ASGI, and the shape of every error.

{"error": {"code": "invalid_request", "message": "…", "request_id": "…",
           "problems": [{"row": 3, "field": "dest", "message": "…"}]}}
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send

from ml_platform.serving.http.problems import InvalidRequest, Problem

INTERNAL_ERROR = "the server failed to answer; its log has the reason under this request id"
MAX_BODY_BYTES = 16 * 2**20
DRAINED_BYTES = 4 * MAX_BODY_BYTES

CLOSE = (b"connection", b"close")
_JSON = (b"content-type", b"application/json")

_random = random.Random()

encode = msgspec.json.Encoder().encode


class Reply(NamedTuple):
    """A whole answer."""

    status: int
    headers: list[tuple[bytes, bytes]]  # with content-length; no value is copied unchecked from a request
    body: bytes


class Refused(Exception):
    """A request that ends in an error answer: its status, a code for programs and a message for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        problems: Sequence[Problem] = (),
        *,
        close: bool = False,
        retry_after: int | None = None,
        drain: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.problems = problems
        self.close = close
        self.retry_after = retry_after  # seconds
        self.drain = drain and close and status != 408  # read the rest of the body before the answer

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says of the connection and of the next try."""
        said = {"connection": "close"} if self.close else {}
        return said if self.retry_after is None else {**said, "retry-after": str(self.retry_after)}

    @classmethod
    def of(cls, invalid: InvalidRequest) -> "Refused":
        """Refuse a body that could not be read or does not fit the signature."""
        return cls(
            invalid.status,
            "invalid_json" if invalid.status == 400 else "invalid_request",
            str(invalid),
            invalid.problems,
        )


def error_body(code: str, message: str, request_id: str, problems: Sequence[Problem] = ()) -> bytes:
    """Encode an error in this server's own shape."""
    error: dict[str, Any] = {"code": code, "message": message, "request_id": request_id}
    if problems:
        error["problems"] = [_place(problem) for problem in problems]
    return encode({"error": error})


def new_request_id() -> str:
    """Make a request id: 128 random bits in hexadecimal."""
    return f"{_random.getrandbits(128):032x}"


def too_large(*, drain: bool = True) -> Refused:
    """Refuse a body past the limit; the connection closes, since the rest of it is not read.

    There is nothing to `drain` of a body that has arrived: waiting for more of it would only hold the answer back.
    """
    limit = f"{MAX_BODY_BYTES // 2**20} MiB"
    return Refused(
        413, "body_too_large", f"the body is larger than {limit}: send fewer rows per request", close=True, drain=drain
    )


class BodyReader:
    """Reads bodies, at most `MAX_BODY_BYTES` of each, and gives up on those that take too long.

    A timer per request would cost a twentieth of the whole, so one timer looks at all that are waiting.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._is_watching = False

    async def read(self, receive: Receive, started: float) -> bytes:
        """Read the body of a request that started at `perf_counter()` (raises Refused, ClientDisconnect)."""
        task = asyncio.current_task()
        assert task is not None
        self._waiting[task] = started
        if not self._is_watching:
            self._watch()
        try:
            message = await receive()
            if not message.get("more_body", False) and message["type"] == "http.request":
                body: bytes = message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise too_large(drain=False)
                return body
            return await _read_parts(message, receive)
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            self._late.discard(task)
            task.uncancel()
            reason = f"the body did not arrive within {self._seconds:g} seconds"
            raise Refused(408, "body_too_slow", reason, close=True) from None
        finally:
            self._waiting.pop(task, None)

    def _watch(self) -> None:
        """Cancel reads that have waited too long, and look again later while any are left."""
        limit = perf_counter() - self._seconds
        for task in [task for task, since in self._waiting.items() if since < limit]:
            del self._waiting[task]
            self._late.add(task)
            task.cancel()
        self._is_watching = bool(self._waiting)
        if self._is_watching:
            asyncio.get_running_loop().call_later(min(self._seconds / 4, 1.0), self._watch)


async def _read_parts(message: Message, receive: Receive) -> bytes:
    """Read a body that comes in several messages, the first of which is given."""
    parts = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            raise too_large(drain=message.get("more_body", False))
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()


async def drain(receive: Receive, seconds: float) -> None:
    """Read past a refused body, up to `DRAINED_BYTES`: many clients listen for an answer only after sending it all.

    A client that takes longer than `seconds` may miss the answer.
    """
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while size < DRAINED_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return


def reply_of(
    status: int, body: bytes, request_id: str, *, close: bool = False, retry_after: int | None = None
) -> Reply:
    """Make a JSON answer, with its request id in a header."""
    headers = [_JSON, (b"content-length", b"%d" % len(body)), (b"x-request-id", request_id.encode("latin-1"))]
    if close:
        headers.append(CLOSE)
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % retry_after))
    return Reply(status, headers, body)


async def send_reply(send: Send, reply: Reply) -> None:
    """Send a whole answer."""
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await send({"type": "http.response.body", "body": reply.body})


def _place(problem: Problem) -> dict[str, Any]:
    return {
        key: value
        for key, value in (("row", problem.row), ("field", problem.field), ("message", problem.message))
        if value is not None
    }
