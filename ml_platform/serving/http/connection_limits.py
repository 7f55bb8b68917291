"""Limits on the size of a request's head and on the time that a connection may waste, which no app can enforce.

httptools accepts any number of header lines, and uvicorn waits for ever for the rest of a head, or for a client that
does not read its answer. The app learns of neither. uvicorn's own limit on idleness starts and stops a timer for each
request, which costs a fiftieth of it: here one timer per connection looks now and then.
"""

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ml_platform.serving.http.messages import error_body, new_request_id
from ml_platform.serving.settings import ServingSettings

REJECTED_EARLY = "rejected_early"  # key in the lifespan state: the app's function that counts refusals made here
RejectedEarly = Callable[[int], None]  # takes a status

_LINGER_SECONDS = 0.5  # for a client that still sends to read its answer, which a reset would discard

_LEAST_READ = 2**16  # bytes of an answer that a client must read between two looks, unless fewer are left

_BODY_HEADERS = (b"content-length", b"transfer-encoding")

_settings = cache(ServingSettings)


class _Stopped(Exception):
    """Stops the parser at a refused head; it treats any exception as a request that it cannot read."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits; what it refuses is answered in this server's own shape of errors.

    Everything that is not part of a body counts towards the limit, so also trailers and chunk extensions.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        settings = _settings()
        self._most_bytes, self._seconds, self._idle_seconds = (
            settings.header_bytes,
            settings.header_seconds,
            settings.idle_seconds,
        )
        self._rejected_early: RejectedEarly | None = self.app_state.get(REJECTED_EARLY)
        self._bytes = 0  # received since the last head or chunk header, without bodies
        self._awaited: object = None  # the head that was incomplete at the last look
        self._unread: tuple[object, int] = (None, 0)  # at the last look: the request answered, and its unread bytes
        self._idle_since: float | None = None  # while no request is under way; None before the first, too
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self._seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._timer.cancel()
        super().connection_lost(exc)

    # The next three run for each request; naming the base class is cheaper than `super()`.

    def data_received(self, data: bytes) -> None:
        """Count what arrives, and refuse a head that goes on beyond the limit."""
        if self._is_refused:
            return
        self._bytes += len(data)
        HttpToolsProtocol.data_received(self, data)
        if self._bytes > self._most_bytes:
            self._refuse_large()

    def on_headers_complete(self) -> None:
        """Refuse a head that is too large, or whose body would be read as the next request."""
        if self.parser.should_upgrade() and any(name in _BODY_HEADERS for name, _ in self.headers):
            message = "a request that asks to upgrade can have no body here: leave the header Upgrade out, for HTTP/1.1"
            self._refuse(400, "upgrade_with_body", message)
            raise _Stopped
        if self._bytes > self._most_bytes:  # which includes the part of the body that arrived with the head
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._most_bytes:
                self._refuse_large()
                raise _Stopped
        self._bytes = 0
        HttpToolsProtocol.on_headers_complete(self)

    def on_body(self, body: bytes) -> None:
        """Do not count the body, which has a limit of its own."""
        self._bytes -= len(body)  # may fall below 0 once, by the part of the body that arrived with the head
        HttpToolsProtocol.on_body(self, body)

    def on_chunk_header(self) -> None:
        """Start counting again."""
        self._bytes = 0

    def on_response_complete(self) -> None:
        """Start the next pipelined request, or note that there is none."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()

    def _unset_keepalive_if_required(self) -> None:
        """Note that something arrives."""
        self._idle_since = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn has one text for all
        """Answer what the parser could not read."""
        self._refuse(400, "invalid_http", "this is not a valid HTTP/1.1 request")

    def _look(self) -> None:
        """Refuse a head that was incomplete at the last look too, so after one to two times `header_seconds`.

        One timer per connection costs less than one per head. It also ends connections that are idle for too long, and
        those whose answers nobody reads, which would stay in memory for ever.
        """
        before, unread = self._unread, self.transport.get_write_buffer_size()
        self._unread = self.cycle, unread
        if unread and before[0] is self.cycle and unread > max(before[1] - _LEAST_READ, 0):
            self.transport.abort()
        elif self.transport.is_closing():
            if unread:
                self._timer = self.loop.call_later(self._seconds, self._look)
        elif self.scope is None:
            self.transport.close()  # a connection on which nothing was sent
        elif not unread and self._idle_since is not None and self._idle_since + self._idle_seconds < self.loop.time():
            self.transport.close()
        elif "method" in self.scope or self.scope is not self._awaited:  # complete, or new
            self._awaited = self.scope
            self._timer = self.loop.call_later(self._seconds, self._look)
        else:
            self._refuse(408, "headers_too_slow", f"the headers did not arrive within {self._seconds:g} seconds")

    def _refuse_large(self) -> None:
        self._refuse(431, "headers_too_large", f"the headers are larger than {self._most_bytes} bytes")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer with an error and close the connection.

        If an earlier, complete request is not answered yet, answer that one and close without the error.
        """
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._timer.cancel()
        if self._rejected_early is not None:
            self._rejected_early(status)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True  # the app gets no more of the body, and its answer is dropped
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
        request_id = new_request_id()
        body = error_body(code, message, request_id)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)
