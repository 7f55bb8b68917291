"""Reads the entries of Redis Streams: partitions are keys, positions are made of the entries' ids.

Redis trims a stream without a trace of what it removed. So a reader notes beside the stream, about once a second, how
many entries were ever added up to one that it has read; a reader that comes back later computes by it how many were
removed unread. The note says nothing of what was answered: that is the sink's.
"""

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_platform.spec.stream_sources import RedisSource
from ml_platform.streams.protocols import Message, PartitionLag, Resume, StreamMisfit, StreamUnavailable
from ml_platform.streams.redis_client import (
    identity_of,
    open_client,
    partition_key,
    position_of,
    redis_errors,
    stream_facts,
)

if TYPE_CHECKING:
    from redis import Redis

_RETRY_SECONDS = 0.2
_LOOK_SECONDS = 1.0  # between two looks at how long a stream is
_EMPTY = {"last-generated-id": b"0-0", "entries-added": 0, "length": 0, "first-entry": None}
_MOST = 4000  # entries of one answer: bounds the memory


class _Partition:
    """One key, and how far it was read."""

    def __init__(self, number: int, key: str, after: int, done: frozenset[int]) -> None:
        self.number, self.key, self.done = number, key, done
        self.received = self.position = after
        self.count: int | None = None  # entries ever added up to the one received last, or before it; None: unknown
        self.is_exact = False  # whether `count` is of the one received last
        self.waiting = 0


class RedisMessages:
    """A `Source` over the keys of a stream.

    Parameters
    ----------
    spec
        Server and stream.
    reader
        Name of what reads, under which it notes how many entries there were.
    topic
        Read the answers in this topic instead of the messages; it is empty as long as it is not there.
    """

    def __init__(self, spec: RedisSource, reader: str = "", topic: str | None = None) -> None:
        self._spec, self._reader, self._is_topic = spec, reader, topic is not None
        name = spec.stream if topic is None else topic
        self._keys = [partition_key(spec, name, number) for number in range(spec.partitions)]
        self._made: Redis | None = None
        self._partitions: list[_Partition] = []
        self._buffer: deque[Message] = deque()
        self._looked_at = 0.0

    @property
    def _client(self) -> "Redis":
        if self._made is None:
            self._made = open_client(self._spec)
            self._made.response_callbacks.pop("XREAD", None)  # nested lists as they come: half the time
        return self._made

    def partitions(self) -> Sequence[int]:
        """See `protocols.Source`."""
        for key in self._keys:
            if self._facts(key) is None:
                raise StreamMisfit(
                    f"Redis has no stream '{key}': add a first entry, or make it by XGROUP CREATE … MKSTREAM"
                )
        return range(self._spec.partitions)

    def assign(self, resume: Mapping[int, Resume]) -> None:
        """See `protocols.Source`."""
        self._partitions, self._buffer = [], deque()
        for number, answered in sorted(resume.items()):
            facts = self._facts(self._keys[number])
            if facts is None:
                raise StreamMisfit(f"Redis has no stream '{self._keys[number]}'")
            partition = _Partition(number, self._keys[number], answered.after, answered.done)
            if answered.after < 0:
                self._begin(partition, facts)
            else:
                self._recall(partition, facts)
            self._partitions.append(partition)

    def _facts(self, key: str) -> dict[str, Any] | None:
        """What Redis says of a stream; None when there is none."""
        facts = stream_facts(self._client, key)
        return _EMPTY if facts is None and self._is_topic else facts

    def _begin(self, partition: _Partition, facts: Mapping[str, Any]) -> None:
        """Start where nothing was answered yet."""
        added, length = int(facts["entries-added"]), int(facts["length"])
        if self._spec.start == "latest" and not partition.done:
            partition.received = partition.position = position_of(facts["last-generated-id"])
            partition.count = added
        else:
            partition.received = partition.position = 0
            partition.count = added - length
        partition.is_exact = True

    def _recall(self, partition: _Partition, facts: Mapping[str, Any]) -> None:
        """Find out how many entries there were up to the one that was answered last."""
        with redis_errors():
            note = self._client.hmget(self._note_key(partition), "position", "count")
        position, count = (int(value) if value is not None else None for value in note)
        if position is not None and count is not None and position <= partition.received:
            partition.count, partition.is_exact = count, position == partition.received
        self._check(partition, facts)

    def _note_key(self, partition: _Partition) -> str:
        return f"{partition.key}.read-by.{self._reader or 'reader'}"

    def _check(self, partition: _Partition, facts: Mapping[str, Any]) -> None:
        """Refuse to go on over entries that were removed unread (raises StreamMisfit)."""
        last = position_of(facts["last-generated-id"])
        added, length = int(facts["entries-added"]), int(facts["length"])
        where = f"stream '{partition.key}'"
        if last < partition.received:
            raise StreamMisfit(
                f"{where}: answers go to entry {identity_of(partition.received)}, the stream ends at "
                f"{identity_of(last)}: it was made anew, or Redis lost its last writes. Answer into new topics "
                "and tables, or restore the stream"
            )
        count = partition.count or 0
        if last == partition.received:  # read to the end: only now the count of those that were read is exact
            removed = added - count if partition.is_exact else 0
            partition.count, partition.is_exact, partition.waiting = added, True, 0
        else:
            first = position_of(facts["first-entry"][0]) if facts["first-entry"] else None
            removed = 0 if first is not None and first <= partition.received else added - length - count
        with_note = partition.count is not None
        if removed <= 0:
            return
        at_most = f"up to {removed:,} entries" if with_note else "an unknown number of entries"
        raise StreamMisfit(
            f"{where}: {at_most} after {identity_of(partition.received)} were removed before they were answered "
            "(XTRIM, MAXLEN or XDEL). To go on with what is left, answer into new topics and tables"
        )

    def read(self, most: int, seconds: float) -> Sequence[Message]:
        """See `protocols.Source`."""
        if not self._buffer:
            try:
                if time.monotonic() - self._looked_at > _LOOK_SECONDS:
                    self._look()
                self._fetch(most, seconds)
            except StreamUnavailable:
                self.close()
                self._looked_at = 0.0
                time.sleep(min(seconds, _RETRY_SECONDS))
        messages = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
        by_number = {one.number: one for one in self._partitions}
        for message in messages:
            by_number[message.partition].position = message.position
        return messages

    def _fetch(self, most: int, seconds: float) -> None:
        if not self._partitions:
            return
        count = max(min(most, _MOST) // len(self._partitions), 1)
        block = ("BLOCK", max(int(seconds * 1000), 1)) if seconds > 0 else ()
        keys = [one.key for one in self._partitions]
        identities = [identity_of(one.received) for one in self._partitions]
        with redis_errors():
            answer = self._client.execute_command("XREAD", "COUNT", count, *block, "STREAMS", *keys, *identities)
        if not answer:
            return
        by_key = {one.key.encode(): one for one in self._partitions}
        field = self._spec.field.encode()
        for key, entries in answer.items() if isinstance(answer, dict) else answer:
            partition = by_key[key]
            for identity, fields in entries:
                position = position_of(identity)
                partition.received = position
                if partition.count is not None:
                    partition.count += 1
                if position in partition.done:
                    continue
                value = _value(fields, field)
                self._buffer.append(Message(partition.number, position, value, None, (position >> 20) * 1000))
            partition.waiting = max(partition.waiting - len(entries), 0)

    def _look(self) -> None:
        """Note how long each stream is, and whether something was removed from it unread."""
        self._looked_at = time.monotonic()
        for partition in self._partitions:
            facts = self._facts(partition.key)
            if facts is None:
                raise StreamMisfit(f"stream '{partition.key}' was deleted while it was read")
            self._check(partition, facts)
            length = int(facts["length"])
            if partition.count is not None and partition.is_exact:
                partition.waiting = min(int(facts["entries-added"]) - partition.count, length)
            else:
                partition.waiting = length  # an upper bound, until the end was reached once
            if partition.count is not None and partition.received == partition.position:
                with redis_errors():
                    self._client.hset(
                        self._note_key(partition),
                        mapping={"position": partition.position, "count": partition.count},
                    )

    def lag(self) -> Mapping[int, PartitionLag]:
        """See `protocols.Source`."""
        lags = {}
        buffered: dict[int, int] = {}
        for message in self._buffer:
            buffered[message.partition] = buffered.get(message.partition, 0) + 1
        for one in self._partitions:
            waiting = one.waiting + buffered.get(one.number, 0)
            lags[one.number] = PartitionLag(one.position, one.position + 1 + waiting, waiting)
        return lags

    def close(self) -> None:
        """See `protocols.Source`."""
        if self._made is not None:
            self._made.close()
            self._made = None


def _value(fields: Sequence[bytes] | Mapping[bytes, bytes], name: bytes) -> bytes:
    """The message of an entry; of an entry without the field an object of all its fields, so that nothing is lost."""
    pairs = dict(fields) if isinstance(fields, Mapping) else dict(zip(fields[::2], fields[1::2], strict=True))
    value = pairs.get(name)
    if value is not None:
        return value
    texts = {key.decode("utf-8", "replace"): one.decode("utf-8", "replace") for key, one in pairs.items()}
    return json.dumps(texts).encode()
