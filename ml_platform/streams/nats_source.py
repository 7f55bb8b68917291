"""Reads the messages of a JetStream stream: partitions are subjects, positions are the stream's sequence numbers.

Messages come by an ephemeral consumer that acknowledges nothing: each is asked for once, ahead of `read`, and a gap in
the consumer's own numbers makes a new one at the place that was reached.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ml_platform.spec.stream_sources import NatsSource
from ml_platform.streams.nats_client import JetStreamError, NatsConnection, partition_names
from ml_platform.streams.protocols import Message, PartitionLag, Resume, StreamMisfit, StreamUnavailable

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_ALL = ">"  # subjects of a stream
_AHEAD_BYTES = 16 * 2**20  # of messages that are asked for and not read yet, over all partitions
_AHEAD_MOST, _AHEAD_LEAST = 4096, 16
_HEARTBEAT_SECONDS = 5.0
_RETRY_SECONDS = 0.2
_NANOSECONDS = 1_000_000_000


class _Partition:
    """One subject's consumer, and what came of it."""

    def __init__(self, number: int, place: tuple[str, str], after: int, done: frozenset[int]) -> None:
        self.number, self.done = number, done
        self.stream, self.subject = place
        self.position = after  # handed out by `read`
        self.received = after  # came from the server
        self.delivered = 0  # by the consumer, by its own count
        self.pending = 0  # at the server, as of the newest message
        self.asked = 0  # that the server may still send
        self.heard_at = 0.0
        self.request = ""  # subject on which more is asked for
        self.inbox = ""
        self.is_broken = True
        self.buffer: deque[Message] = deque()


class NatsMessages:
    """A `Source` over the subjects of a stream.

    Parameters
    ----------
    spec
        Servers, stream and subjects.
    topics
        The topic of a scorer's answers, and that of answers or dead letters which is read instead of the messages; both
        are in the streams of the answers.
    """

    def __init__(self, spec: NatsSource, topics: tuple[str, str] | None = None) -> None:
        self._spec, self._topics = spec, topics
        if topics is None:
            self._places = [(spec.stream, subject) for subject in spec.subjects or (_ALL,)]
        else:
            count = max(len(spec.subjects), 1)
            self._places = [
                (partition_names(spec, topics[0], number)[0], partition_names(spec, topics[1], number)[1])
                for number in range(count)
            ]
        self._connection: NatsConnection | None = None
        self._partitions: list[_Partition] = []
        self._came: asyncio.Event | None = None
        self._bytes_each = 1024.0  # of a message, on average
        self._retry_at = 0.0

    def partitions(self) -> Sequence[int]:
        """See `protocols.Source`."""
        connection = self._connected()
        for stream, _ in self._places:
            self._ends(connection, stream)
        return range(len(self._places))

    def assign(self, resume: Mapping[int, Resume]) -> None:
        """See `protocols.Source`."""
        connection = self._connected()
        self._partitions = []
        for number, answered in sorted(resume.items()):
            first, last = self._ends(connection, self._places[number][0])
            after = answered.after
            if after < 0:
                after = max(first - 1, 0) if self._spec.start == "earliest" else last
                if answered.done:
                    after = min(after, min(answered.done) - 1)
            partition = _Partition(number, self._places[number], after, answered.done)
            self._check(partition, first, last)
            self._partitions.append(partition)
        for partition in self._partitions:
            self._consume(connection, partition)

    def read(self, most: int, seconds: float) -> Sequence[Message]:
        """See `protocols.Source`."""
        try:
            connection = self._renewed()
            if connection is None:
                time.sleep(min(seconds, _RETRY_SECONDS))
            else:
                connection.run(self._wait(connection, seconds))
        except StreamUnavailable:
            self._drop()
        messages: list[Message] = []
        for partition in sorted(self._partitions, key=lambda one: len(one.buffer)):
            room = most - len(messages)
            if room == 0:
                break
            taken = [partition.buffer.popleft() for _ in range(min(room, len(partition.buffer)))]
            if taken:
                partition.position = taken[-1].position
                messages += [one for one in taken if one.position not in partition.done] if partition.done else taken
        if messages:
            size = sum(len(one.value or b"") for one in messages) / len(messages)
            self._bytes_each += 0.2 * (size - self._bytes_each)
        return messages

    def lag(self) -> Mapping[int, PartitionLag]:
        """See `protocols.Source`."""
        lags = {}
        for one in self._partitions:
            waiting = len(one.buffer) + one.pending
            lags[one.number] = PartitionLag(one.position, one.position + 1 + waiting, waiting)
        return lags

    def close(self) -> None:
        """See `protocols.Source`."""
        self._drop()

    def _connected(self) -> NatsConnection:
        if self._connection is None or not self._connection.is_open:
            self._drop()
            self._connection = NatsConnection(self._spec)
        return self._connection

    def _drop(self) -> None:
        """Close the connection: consumers end with it, and what they sent is there already."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._came = None
        for partition in self._partitions:
            partition.is_broken = True

    def _renewed(self) -> NatsConnection | None:
        """The connection with a consumer for each partition; None while the server is down."""
        connection = self._connection
        if connection is None or not connection.is_open:
            if time.monotonic() < self._retry_at:
                return None
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            connection = self._connected()
        now = time.monotonic()
        broken = [one for one in self._partitions if one.is_broken or now - one.heard_at > 3 * _HEARTBEAT_SECONDS]
        for partition in broken:
            self._check(partition, *self._ends(connection, partition.stream))
            self._consume(connection, partition)
        return connection

    def _ends(self, connection: NatsConnection, stream: str) -> tuple[int, int]:
        """Numbers of a stream's first and last message (raises StreamMisfit)."""
        info = connection.stream(stream)
        if info is None and self._topics is not None:
            raise StreamUnavailable(f"the server has no stream '{stream}' yet: a scorer makes it")
        if info is None:
            raise StreamMisfit(f"the server has no stream '{stream}': create it first")
        return info[1].first_seq, info[1].last_seq

    def _check(self, partition: _Partition, first: int, last: int) -> None:
        """Refuse to go on over messages that were deleted unread."""
        place = partition.received + 1
        where = f"stream '{partition.stream}', subject '{partition.subject}'"
        if place - 1 > last:
            raise StreamMisfit(
                f"{where}: answers go to message {place - 1}, the stream ends at {last}: it was made anew. Answer into "
                "new topics and tables, or restore the stream"
            )
        if self._topics is not None:  # dead letters are rare: that others were deleted since says nothing of them
            return
        if partition.received >= 0 and place < first:
            raise StreamMisfit(
                f"{where}: up to {first - place:,} messages from number {place} on were deleted before they were "
                "answered (the stream's limits). To go on with what is left, answer into new topics and tables"
            )

    def _consume(self, connection: NatsConnection, partition: _Partition) -> None:
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": partition.received + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 60 * _NANOSECONDS,
        }
        if partition.subject != _ALL:
            config["filter_subject"] = partition.subject
        stream = partition.stream
        try:
            made = connection.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        except JetStreamError as error:
            raise StreamMisfit(f"stream '{stream}', subject '{partition.subject}': {error}") from error
        partition.request = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{made['name']}"
        partition.pending = int(made["num_pending"])
        partition.delivered = partition.asked = 0
        partition.heard_at = time.monotonic()
        partition.is_broken = False
        connection.run(self._subscribe(connection, partition))

    async def _subscribe(self, connection: NatsConnection, partition: _Partition) -> None:
        if self._came is None:
            self._came = asyncio.Event()
        partition.inbox = inbox = connection.client.new_inbox()

        async def take(message: "Msg") -> None:
            if inbox == partition.inbox:  # else of a consumer that was replaced
                self._take(partition, message)

        await connection.client.subscribe(inbox, cb=take)
        await self._ask(connection, partition)

    async def _ask(self, connection: NatsConnection, partition: _Partition) -> None:
        """Ask for more before what was asked for has come."""
        most = int(_AHEAD_BYTES / self._bytes_each / len(self._partitions))
        most = min(max(most, _AHEAD_LEAST), _AHEAD_MOST)
        if partition.asked + len(partition.buffer) > most / 2:
            return
        body = {
            "batch": most,
            "expires": int(6 * _HEARTBEAT_SECONDS * _NANOSECONDS),
            "idle_heartbeat": int(_HEARTBEAT_SECONDS * _NANOSECONDS),
        }
        partition.asked += most
        await connection.client.publish(partition.request, json.dumps(body).encode(), reply=partition.inbox)

    def _take(self, partition: _Partition, message: "Msg") -> None:
        partition.heard_at = time.monotonic()
        if not message.reply.startswith("$JS.ACK."):
            self._status(partition, message.headers or {})
            return
        fields = message.reply.split(".")
        # $JS ACK [domain account] stream consumer deliveries sequence consumer-sequence time pending [token]
        start = 5 if len(fields) == 9 else 7
        sequence, delivered, moment, pending = map(int, fields[start : start + 4])
        partition.asked -= 1
        if delivered != partition.delivered + 1 or sequence <= partition.received:
            partition.is_broken = True
        if partition.is_broken:
            return
        partition.delivered, partition.received, partition.pending = delivered, sequence, pending
        identity = message.headers.get("Nats-Msg-Id") if message.headers else None
        partition.buffer.append(
            Message(partition.number, sequence, message.data, identity.encode() if identity else None, moment // 1000)
        )
        assert self._came is not None
        self._came.set()

    def _status(self, partition: _Partition, headers: Mapping[str, str]) -> None:
        """What the server says instead of a message: that it lives, that a request is over, or the consumer."""
        status = headers.get("Status", "")
        if status == "100":
            return
        if status in ("404", "408"):
            partition.asked = max(partition.asked - int(headers.get("Nats-Pending-Messages", partition.asked)), 0)
            return
        partition.is_broken = True
        if self._came is not None:
            self._came.set()

    async def _wait(self, connection: NatsConnection, seconds: float) -> None:
        """Let messages come: until the first is there, and all that came with it."""
        for partition in self._partitions:
            await self._ask(connection, partition)
        assert self._came is not None
        if not any(one.buffer for one in self._partitions):
            self._came.clear()
            deadline = time.monotonic() + seconds
            while (left := deadline - time.monotonic()) > 0 and not self._came.is_set() and connection.is_open:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._came.wait(), min(left, 1.0))
        count = -1
        while count != (count := sum(len(one.buffer) for one in self._partitions)):
            await asyncio.sleep(0)
        if not connection.is_open:
            raise StreamUnavailable("the connection to NATS broke")
