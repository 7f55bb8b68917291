"""Requests and answers of the hot routes in plain ASGI, and the shape of every error.

{"error": {"code": "invalid_request", "message": "…", "request_id": "…",
           "problems": [{"row": 3, "field": "dest", "message": "…"}]}}
"""

import asyncio
import random
import re
from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from ml_platform.serving.http.problems import InvalidRequest, Problem

INTERNAL_ERROR = "the server failed to answer; its log has the reason under this request id"
MAX_BODY_BYTES = 16 * 2**20
DRAINED_BYTES = 4 * MAX_BODY_BYTES
ENCODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})  # of bodies, see `ml_platform.serving.http.compression`

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
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


class Head:
    """The headers that the server uses, read in one pass and kept in the scope.

    When a header appears twice, the last one counts; of `host` and of `credentials` (the headers that may hold a key)
    the first.
    """

    __slots__ = ("content_length", "credentials", "encoding", "host", "is_forwarded", "origin", "request_id", "sent_id")

    def __init__(self, scope: Scope) -> None:
        sent = host = None
        credentials: tuple[tuple[bytes, bytes], ...] = ()
        self.content_length = 0
        self.encoding = b""
        self.origin: bytes | None = None  # of the page that sent it, when a browser did
        self.is_forwarded = False  # by a proxy, which names the client's address
        for header in scope["headers"]:
            name, value = header
            if name == b"host":
                host = value if host is None else host
            elif name == b"content-length":
                self.content_length = int(value) if value.isdigit() else 0
            elif name == b"authorization" or name == b"x-api-key":  # noqa: PLR1714 - it takes half the time of `in`
                credentials += (header,)
            elif name == b"x-request-id":
                sent = value.decode("latin-1")
            elif name == b"content-encoding":
                self.encoding = b"" if (named := value.strip().lower()) == b"identity" else named
            elif name == b"origin":
                self.origin = value
            elif name.startswith(b"x-forwarded-"):
                self.is_forwarded = True
        self.host = host
        self.credentials = credentials
        self.sent_id = sent
        self.request_id = sent if sent is not None and _REQUEST_ID.fullmatch(sent) else new_request_id()

    @classmethod
    def of(cls, scope: Scope) -> "Head":
        """Read a request's headers, unless that was done before."""
        head: Head = scope.get("head") or cls(scope)
        scope["head"] = head
        return head

    def check(self) -> None:
        """Refuse a request whose body must not be read (raises Refused)."""
        if self.sent_id is not None and self.sent_id != self.request_id:
            problem = Problem(None, "X-Request-ID", "wanted 1 to 128 letters, digits or any of . _ : / + = -")
            raise Refused(422, "invalid_request", str(problem), [problem])
        if self.encoding and self.encoding not in ENCODINGS:
            message = "of the values of Content-Encoding, gzip and deflate are supported"
            raise Refused(415, "unsupported_encoding", message, close=True)
        if self.content_length > MAX_BODY_BYTES:
            raise too_large(drain=self.content_length <= DRAINED_BYTES)


def too_large(*, drain: bool = True) -> Refused:
    """Refuse a body past the limit; the connection closes, since the rest of it is not read."""
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
                    raise too_large()
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
            raise too_large()
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()


async def drain(receive: Receive) -> None:
    """Read past a refused body, up to `DRAINED_BYTES`: many clients listen for an answer only after sending it all."""
    size = 0
    while size < DRAINED_BYTES:
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def record_status(scope: Scope, send: Send) -> Send:
    """Wrap `send` so that the answer's status is put into the scope, for audit log, request log and traces."""

    async def noted(message: Message) -> None:
        if message["type"] == "http.response.start":
            scope["status"] = message["status"]
        await send(message)

    return noted


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


async def send_reply(scope: Scope, send: Send, reply: Reply) -> None:
    """Send a whole answer, and put its status into the scope."""
    scope["status"] = reply.status
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await send({"type": "http.response.body", "body": reply.body})


def _place(problem: Problem) -> dict[str, Any]:
    return {
        key: value
        for key, value in (("row", problem.row), ("field", problem.field), ("message", problem.message))
        if value is not None
    }
