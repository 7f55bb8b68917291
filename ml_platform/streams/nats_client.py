"""What reading from and writing to NATS JetStream have in common: a connection, its API, errors in our terms."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ml_platform.distribution import extra
from ml_platform.spec.stream_sources import NatsSource
from ml_platform.streams.environment_variables import expanded
from ml_platform.streams.protocols import StreamMisfit, StreamUnavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

T = TypeVar("T")
ANSWER_SECONDS = 10.0  # in which a server that is up answers
POSITION = "Position"  # header of an answer: the position of its message
NOT_FOUND, WRONG_LAST_SEQUENCE = 10059, 10071  # of JetStream: no such stream; somebody else has written


class JetStreamError(Exception):
    """JetStream refused a request."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code


class StreamState(msgspec.Struct, frozen=True):
    """What a stream holds: numbers of its first and last message, and how many were deleted between them."""

    messages: int
    first_seq: int
    last_seq: int


class NatsConnection:
    """One connection, used by one thread that is not asynchronous itself; it is never renewed: a new one is made.

    Parameters
    ----------
    source
        Which servers, and the credentials.

    Raises
    ------
    StreamUnavailable
        When no server takes it within ten seconds.
    StreamMisfit
        When a variable is not set, or the server refuses the credentials.
    """

    def __init__(self, source: NatsSource) -> None:
        with extra("streaming"):
            import nats
            import nats.errors
        self._errors = (nats.errors.Error, OSError, asyncio.TimeoutError)
        self._loop = _event_loop()
        self._closed = self._loop.create_future()
        options = {name: expanded(value, name) for name, value in source.options.items()}
        servers = [expanded(one.strip(), "servers") for one in source.servers.split(",")]
        try:
            self.client: Client = self._loop.run_until_complete(
                asyncio.wait_for(
                    nats.connect(
                        servers,
                        allow_reconnect=False,  # whoever uses it has to look anew at what there is
                        max_reconnect_attempts=1,
                        reconnect_time_wait=0,
                        connect_timeout=int(ANSWER_SECONDS),
                        ping_interval=20,
                        max_outstanding_pings=2,
                        error_cb=_ignore,  # each is raised where it matters
                        closed_cb=self._on_closed,
                        name="ml-platform",
                        **options,
                    ),
                    ANSWER_SECONDS,
                )
            )
        except self._errors as error:
            self._loop.close()
            reason = str(error) or type(error).__name__
            where = ", ".join(one.rpartition("@")[2] for one in servers)
            if "authorization" in reason.lower():
                raise StreamMisfit(f"NATS at {where} refuses the credentials: {reason}") from error
            raise StreamUnavailable(f"NATS at {where} does not answer: {reason}") from error

    @property
    def is_open(self) -> bool:
        """Whether the connection is up, as far as is known."""
        return self.client.is_connected

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something asynchronous to its end (raises StreamUnavailable)."""
        try:
            return self._loop.run_until_complete(work)
        except self._errors as error:
            raise StreamUnavailable(f"NATS does not answer: {str(error) or type(error).__name__}") from error

    async def request(self, subject: str, body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        """Ask, and give the answer's JSON; a connection that breaks is not waited for (raises OSError)."""
        answer = asyncio.ensure_future(self.client.request(subject, body, timeout=ANSWER_SECONDS, headers=headers))
        await asyncio.wait({answer, self._closed}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise ConnectionResetError("the connection broke")
        document: dict[str, Any] = json.loads((await answer).data)
        return document

    async def _on_closed(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)

    def api(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream (raises StreamUnavailable, JetStreamError)."""
        content = json.dumps(body).encode() if body is not None else b""
        document = self.run(self.request(f"$JS.API.{subject}", content))
        if error := document.get("error"):
            raise JetStreamError(error.get("err_code", 0), error.get("description", ""))
        return document

    def stream(self, name: str) -> tuple[dict[str, Any], StreamState] | None:
        """Configuration and state of a stream; None when there is none (raises StreamUnavailable, StreamMisfit)."""
        try:
            document = self.api(f"STREAM.INFO.{name}")
        except JetStreamError as error:
            if error.code == NOT_FOUND:
                return None
            raise StreamMisfit(f"stream '{name}': {error}") from error
        return document["config"], msgspec.convert(document["state"], StreamState)

    def close(self) -> None:
        """Close it; may be called twice."""
        if self._loop.is_closed():
            return
        try:
            self._loop.run_until_complete(asyncio.wait_for(self.client.close(), 2))
        except self._errors:
            pass  # it is gone, which was wanted
        finally:
            self._loop.run_until_complete(_end_tasks())
            self._loop.close()


def partition_names(source: NatsSource, topic: str, partition: int) -> tuple[str, str]:
    """Stream and subject of a topic's answers to one partition: each has a stream of its own.

    Examples
    --------
    >>> one = NatsSource(type="nats", servers="nats://127.0.0.1", stream="FLIGHTS")
    >>> partition_names(one, "flights.answers", 0)
    ('flights_answers', 'flights.answers')
    >>> partition_names(one.model_copy(update={"subjects": ("flights.a", "flights.b")}), "flights.answers", 1)
    ('flights_answers_1', 'flights.answers.1')
    """
    stream = topic.replace(".", "_")
    return (stream, topic) if len(source.subjects) < 2 else (f"{stream}_{partition}", f"{topic}.{partition}")


async def _end_tasks() -> None:
    """End what the client left running."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _ignore(_error: Exception) -> None:
    return None


def _event_loop() -> asyncio.AbstractEventLoop:
    make: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        return make()
    return uvloop.new_event_loop()
