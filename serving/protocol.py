"""HTTP/1.1 by uvicorn, with a short cut for what can be answered at once.

An ASGI request is a task, an event for its body and two messages for its answer, which together cost as much as the
model. A request whose body came with its head is offered to the application first, which may answer it there and then:
`at_once` in the state of the lifespan. Whatever it leaves (None) goes the ordinary way, as everything does on a server
that knows nothing of this.
"""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from serving.request_heads import BoundedProtocol
from serving.wire import CLOSE, Reply

AT_ONCE = "at_once"
AtOnce = Callable[[Any, bytes], Reply | None]  # of an ASGI scope and the whole body


class PromptProtocol(BoundedProtocol):
    """uvicorn's protocol with bounds, which starts an application's task a moment later: if it is not needed, never."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._at_once: AtOnce | None = self.app_state.get(AT_ONCE)
        self._held: RequestResponseCycle | None = None
        self._may = True

    def data_received(self, data: bytes) -> None:
        """Take in what has come; of several requests that came together, one may be answered at once."""
        self._may = self._at_once is not None
        BoundedProtocol.data_received(self, data)
        self._may = False  # one that waited for another's answer is whole already: nobody would offer it
        if self._held is not None:  # its body is not whole yet
            self._release(self._held)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Hold a request back until it is seen whether its body is there."""
        if self._may and app is self.app and not cycle.waiting_for_100_continue:
            self._held = cycle
        else:
            BoundedProtocol._start_asgi_task(self, cycle, app)

    def on_message_complete(self) -> None:
        """Offer a whole request to the application."""
        BoundedProtocol.on_message_complete(self)
        cycle = self._held
        if cycle is None:
            return
        self._may = False
        assert self._at_once is not None
        reply = None if self.flow.write_paused else self._at_once(cycle.scope, bytes(cycle.body))
        if reply is None:
            self._release(cycle)
            return
        self._held = None
        headers = [*cycle.default_headers, *reply.headers]
        if CLOSE in reply.headers:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            headers.append(CLOSE)
        lines = [STATUS_LINE[reply.status]]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"".join((*lines, b"\r\n", reply.body)))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def _release(self, cycle: RequestResponseCycle) -> None:
        self._held = None
        BoundedProtocol._start_asgi_task(self, cycle, self.app)
