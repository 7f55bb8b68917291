"""uvicorn's HTTP/1.1 protocol, with a short cut for requests that can be answered at once.

An ASGI request costs a task, an event for its body and two messages for its answer: together as much as the model. So a
request whose body arrives together with its head is first offered to the function that the application puts into the
lifespan state as `at_once`. If it returns None, the request takes the ordinary way, as all do on other servers.
"""

from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from ml_platform.serving.http.connection_limits import BoundedProtocol
from ml_platform.serving.http.messages import CLOSE, Reply

AT_ONCE = "at_once"
AtOnce = Callable[[Any, bytes], Reply | None]  # of an ASGI scope and the whole body


class PromptProtocol(BoundedProtocol):
    """Starts the application's task only for requests that are not answered at once."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._at_once: AtOnce | None = self.app_state.get(AT_ONCE)
        self._held: RequestResponseCycle | None = None
        self._may_offer = True

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; of several requests in it, at most one is answered at once."""
        self._may_offer = self._at_once is not None
        BoundedProtocol.data_received(self, data)
        self._may_offer = False  # a pipelined request that starts later is complete already: do not hold it back
        if self._held is not None:  # its body is not complete yet
            self._release(self._held)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Hold a request back until it is known whether its body has arrived."""
        if self._may_offer and app is self.app and not cycle.waiting_for_100_continue:
            self._held = cycle
        else:
            BoundedProtocol._start_asgi_task(self, cycle, app)

    def on_message_complete(self) -> None:
        """Offer a complete request to the application, and write its answer."""
        BoundedProtocol.on_message_complete(self)
        cycle = self._held
        if cycle is None:
            return
        self._may_offer = False
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
