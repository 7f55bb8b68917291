"""Writes answers and dead letters to Redis Streams, each exactly once: answers and position move in one script.

An answer has the id of the entry that it answers. So answers that a server lost with its last writes are written again
under the same ids, and whoever had read them knows them.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ml_platform.spec.stream_sources import RedisSource
from ml_platform.streams.protocols import Fenced, Outcome, Resume, StreamMisfit
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

VALUE = "value"  # field of an entry that holds the answer
_STATE = "position"  # behind the answers' key: who holds them, and how far they are
_LARGEST = 1000  # outcomes of one script: it holds up the server for some milliseconds

# KEYS: answers, dead letters, state. ARGV: holder, position, then for each outcome 1 (answer) or 2, id, value.
_WRITE = """
if redis.call('HGET', KEYS[3], 'holder') ~= ARGV[1] then return 0 end
for i = 3, #ARGV, 3 do
  redis.call('XADD', KEYS[tonumber(ARGV[i])], ARGV[i + 1], 'value', ARGV[i + 2])
end
redis.call('HSET', KEYS[3], 'after', ARGV[2])
return 1
"""


class RedisAnswers:
    """An `AnswerSink` over streams for answers and dead letters.

    Parameters
    ----------
    source
        The stream of the messages, on whose server the others are.
    name
        Of the stream that answers.
    answers, dead_letters
        Keys; of several partitions each has `.<number>` behind.
    """

    def __init__(self, source: RedisSource, name: str, answers: str, dead_letters: str) -> None:
        self._source, self._name, self._answers, self._dead_letters = source, name, answers, dead_letters
        self._client: Redis | None = None
        self._identity = f"{name}/{uuid.uuid4().hex}"
        self._keys: dict[int, tuple[str, str, str]] = {}

    def open(self, partitions: Sequence[int]) -> Mapping[int, Resume]:
        """See `protocols.AnswerSink`."""
        self._client = open_client(self._source)
        self._write = self._client.register_script(_WRITE)
        return {partition: Resume(self._take_over(partition)) for partition in partitions}

    def _take_over(self, partition: int) -> int:
        """Replace the predecessor, and give the position that it came to."""
        assert self._client is not None
        answers = partition_key(self._source, self._answers, partition)
        dead_letters = partition_key(self._source, self._dead_letters, partition)
        state = f"{answers}.{_STATE}"
        self._keys[partition] = (answers, dead_letters, state)
        with redis_errors():
            self._client.hset(state, "holder", self._identity)
            after = self._client.hget(state, "after")
        position = int(after) if after is not None else -1
        for key in (answers, dead_letters):
            facts = stream_facts(self._client, key)
            last = position_of(facts["last-generated-id"]) if facts else -1
            if last > max(position, 0):
                until = identity_of(position) if position >= 0 else "none"
                raise StreamMisfit(
                    f"stream '{key}' has entry {identity_of(last)}, and the answers go to {until} by '{state}': "
                    f"something else wrote there, or '{state}' was deleted. Give answers streams of their own"
                )
        return position

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """See `protocols.AnswerSink`."""
        by_partition: dict[int, list[Outcome]] = {}
        for one in outcomes:
            by_partition.setdefault(one.partition, []).append(one)
        for partition, rows in by_partition.items():
            for start in range(0, len(rows), _LARGEST):
                self._commit(partition, rows[start : start + _LARGEST])

    def _commit(self, partition: int, outcomes: Sequence[Outcome]) -> None:
        arguments: list[str | bytes | int] = [self._identity, outcomes[-1].position]
        for one in outcomes:
            arguments += (2 if one.refused else 1, identity_of(one.position), one.value)
        with redis_errors():
            is_written = self._write(keys=self._keys[partition], args=arguments)
        if not is_written:
            raise Fenced("another process has taken over these partitions")

    def flush(self, *, due: bool = False) -> None:
        """See `protocols.AnswerSink`; everything is committed at once."""

    @property
    def held(self) -> int:
        """See `protocols.AnswerSink`; nothing is."""
        return 0

    def close(self) -> None:
        """See `protocols.AnswerSink`."""
        if self._client is not None:
            self._client.close()
            self._client = None
