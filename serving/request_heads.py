"""Bounds on the head of a request, where the app cannot hold them: what it may measure and how long it may take.

httptools takes header lines without end, and uvicorn waits for ever, for the rest of a head as for a client that does
not read its answer; no app hears of any of it.
"""

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.settings import ServingSettings
from serving.wire import error_body, new_request_id

TURNED_AWAY = "turned_away"  # in the state of the lifespan, where an application counts what is refused before it
TurnedAway = Callable[[int], None]  # of a status

_LINGER_SECONDS = 0.5  # what a client that still sends is given to read its answer: a reset would take it away

_LEAST_READ = 2**16  # bytes of an answer that a client takes from one look to the next, or all that is left

_OF_BODIES = (b"content-length", b"transfer-encoding")

_settings = cache(ServingSettings)


class _Stopped(Exception):
    """Stops the parser at a head that was refused; it takes any exception for a request that it cannot read."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds; what it refuses is answered in the shape of all errors.

    Trailers and the extensions of chunks count as heads do: they are what arrives without being part of a body.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._most_bytes, self._seconds = _settings().header_bytes, _settings().header_seconds
        self._turned_away: TurnedAway | None = self.app_state.get(TURNED_AWAY)
        self._bytes = 0  # received since the last head or the last chunk's, but for bodies
        self._awaited: object = None  # the head that was under way at the last look
        self._unread: tuple[object, int] = (None, 0)  # what was answered by then and not taken yet: request, bytes
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(self._seconds, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._timer.cancel()
        super().connection_lost(exc)

    # These three run for each request. Naming the base spares each what `super()` costs.

    def data_received(self, data: bytes) -> None:
        """Count what arrives, and refuse what the parser holds back without end."""
        if self._is_refused:
            return
        self._bytes += len(data)
        HttpToolsProtocol.data_received(self, data)
        if self._bytes > self._most_bytes:
            self._refuse_large()

    def on_headers_complete(self) -> None:
        """Let no large head pass that came at once, and none whose body would be read as the next request."""
        if self.parser.should_upgrade() and any(name in _OF_BODIES for name, _ in self.headers):
            told = "a request that asks to upgrade can have no body here: leave the header Upgrade out, for HTTP/1.1"
            self._refuse(400, "upgrade_with_body", told)
            raise _Stopped
        if self._bytes > self._most_bytes:  # with what of the body came along
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self._most_bytes:
                self._refuse_large()
                raise _Stopped
        self._bytes = 0
        HttpToolsProtocol.on_headers_complete(self)

    def on_body(self, body: bytes) -> None:
        """Bodies have bounds of their own."""
        self._bytes -= len(body)  # below 0 by what came along with the head: a bound that much wider, once
        HttpToolsProtocol.on_body(self, body)

    def on_chunk_header(self) -> None:
        """Begin to count anew."""
        self._bytes = 0

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn has one text for all
        """Answer what the parser could not read."""
        self._refuse(400, "invalid_http", "this is not a valid HTTP/1.1 request")

    def _look(self) -> None:
        """Refuse a head that was under way at the last look already: between one and two times the seconds late.

        A look at each connection now and then costs less than a timer for each head. It also ends connections whose
        answers nobody takes: they would be held in memory for ever.
        """
        before, unread = self._unread, self.transport.get_write_buffer_size()
        self._unread = self.cycle, unread
        if unread and before[0] is self.cycle and unread > max(before[1] - _LEAST_READ, 0):
            self.transport.abort()
        elif self.transport.is_closing():
            if unread:
                self._timer = self.loop.call_later(self._seconds, self._look)
        elif self.scope is None:
            self.transport.close()  # a connection that was opened in advance, and asked nothing
        elif "method" in self.scope or self.scope is not self._awaited:  # complete, or new
            self._awaited = self.scope
            self._timer = self.loop.call_later(self._seconds, self._look)
        else:
            self._refuse(408, "headers_too_slow", f"the headers did not arrive within {self._seconds:g} seconds")

    def _refuse_large(self) -> None:
        self._refuse(431, "headers_too_large", f"the headers are larger than {self._most_bytes} bytes")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer and close the connection; what was asked for whole before is answered first, and this not at all."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._timer.cancel()
        if self._turned_away is not None:
            self._turned_away(status)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True  # the app gets no more of the body, and its answer nowhere
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
