"""Writes answers and dead letters to JetStream, each exactly once, by atomic batches.

Each partition has a stream of its own with three subjects: answers, dead letters, and one that says which process holds
it. Every batch names the last number that the stream had before it, and each message the position that it answers. So
a batch of a process that was replaced is refused, and the last message says how far the stream is; message ids and the
window in which a server remembers them are not needed.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ml_platform.spec.stream_sources import NatsSource
from ml_platform.streams.nats_client import (
    ANSWER_SECONDS,
    POSITION,
    WRONG_LAST_SEQUENCE,
    JetStreamError,
    NatsConnection,
    partition_names,
)
from ml_platform.streams.protocols import Fenced, Outcome, Resume, StreamMisfit, StreamUnavailable

HOLDERS = "holders"  # subject, below that of the answers, on which a process says that it took over
_LARGEST_BATCH = 1000  # messages of one atomic batch, at most
_TRIES = 20


class NatsAnswers:
    """An `AnswerSink` over streams for answers and dead letters, which it makes where they are missing.

    Parameters
    ----------
    source
        The stream of the messages, on whose servers the others are.
    name
        Of the stream: said to readers of the subject of holders.
    answers, dead_letters
        Subjects; of several partitions each has `.<number>` behind.
    """

    def __init__(self, source: NatsSource, name: str, answers: str, dead_letters: str) -> None:
        self._source, self._name, self._answers, self._dead_letters = source, name, answers, dead_letters
        self._connection: NatsConnection | None = None
        self._last: dict[int, int] = {}  # partition → number of its stream's last message
        self._identity = uuid.uuid4().hex

    def open(self, partitions: Sequence[int]) -> Mapping[int, Resume]:
        """See `protocols.AnswerSink`."""
        self._connection = NatsConnection(self._source)
        return {partition: Resume(self._take_over(partition)) for partition in partitions}

    def _subjects(self, partition: int) -> tuple[str, str, str]:
        """Subjects of a partition's answers, dead letters and holders."""
        answers = partition_names(self._source, self._answers, partition)[1]
        return answers, partition_names(self._source, self._dead_letters, partition)[1], f"{answers}.{HOLDERS}"

    def _take_over(self, partition: int) -> int:
        """Replace the predecessor, and give the position that it came to."""
        assert self._connection is not None
        stream, _ = partition_names(self._source, self._answers, partition)
        wanted = self._subjects(partition)
        for _ in range(_TRIES):  # a predecessor that writes between the two
            last = self._existing(stream, wanted)
            position = self._position(stream, last)
            try:
                self._last[partition] = last
                self._publish(partition, [(wanted[2], position, self._name.encode())])
            except Fenced:
                continue
            return position
        raise StreamUnavailable(f"stream '{stream}': others took it over {_TRIES} times meanwhile")

    def _existing(self, stream: str, subjects: Sequence[str]) -> int:
        """The stream's last number, once it is there and fits."""
        assert self._connection is not None
        info = self._connection.stream(stream)
        if info is None:
            source = self._connection.stream(self._source.stream)
            replicas = source[0].get("num_replicas", 1) if source else 1
            config: dict[str, Any] = {
                "name": stream,
                "subjects": list(subjects),
                "storage": "file",
                "retention": "limits",
            }
            config |= {"allow_atomic": True, "allow_direct": True, "num_replicas": replicas}
            try:
                made = self._connection.api(f"STREAM.CREATE.{stream}", config)
            except JetStreamError as error:
                raise StreamMisfit(f"stream '{stream}' for '{subjects[0]}' cannot be made: {error}") from error
            info = self._connection.stream(stream)
            assert info is not None
            if not made["config"].get("allow_atomic"):
                raise StreamMisfit("answers into NATS want atomic batches, of a server from 2.12 on")
        config, state = info
        if set(config["subjects"]) != set(subjects) or not config.get("allow_atomic"):
            lacks = "" if config.get("allow_atomic") else ", and no allow_atomic"
            raise StreamMisfit(
                f"stream '{stream}': wanted the subjects {', '.join(subjects)}, no others, and allow_atomic, found "
                f"{', '.join(config['subjects'])}{lacks}. Change it, or choose another topic: a worker makes its stream"
            )
        return state.last_seq

    def _position(self, stream: str, last: int) -> int:
        """The position that the stream's last message is about; -1 in a new one."""
        assert self._connection is not None
        if last == 0:
            return -1
        try:
            found = self._connection.run(
                self._connection.client.jetstream(timeout=ANSWER_SECONDS).get_msg(stream, last, direct=False)
            )
        except StreamUnavailable as error:
            if "NotFound" not in type(error.__cause__).__name__:
                raise
            raise StreamMisfit(
                f"stream '{stream}': its last message was deleted, so nobody can say how far it came: limit it by "
                "number or bytes instead of by age, and answer into a new topic"
            ) from error
        text = (found.headers or {}).get(POSITION, "")
        if not text.lstrip("-").isdigit():
            raise StreamMisfit(
                f"stream '{stream}' has a message that no stream wrote: give answers a topic of their own"
            )
        return int(text)

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """See `protocols.AnswerSink`."""
        subjects = {partition: self._subjects(partition) for partition in self._last}
        rows: dict[int, list[tuple[str, int, bytes]]] = {}
        for one in outcomes:
            subject = subjects[one.partition][1 if one.refused else 0]
            rows.setdefault(one.partition, []).append((subject, one.position, one.value))
        for partition, messages in rows.items():
            for start in range(0, len(messages), _LARGEST_BATCH):
                self._publish(partition, messages[start : start + _LARGEST_BATCH])

    def _publish(self, partition: int, messages: Sequence[tuple[str, int, bytes]]) -> None:
        """Publish messages (subject, position, value) as one batch."""
        assert self._connection is not None
        try:
            document = self._connection.run(self._batch(messages, self._last[partition]))
        except StreamUnavailable as error:
            if "MaxPayload" in type(error.__cause__).__name__:
                subject, position, value = max(messages, key=lambda one: len(one[2]))
                raise StreamMisfit(
                    f"subject '{subject}': the answer or dead letter to position {position} of partition {partition} "
                    f"has {len(value):,} bytes, more than the server's max_payload: raise that"
                ) from error
            raise
        if refusal := document.get("error"):
            if refusal.get("err_code") == WRONG_LAST_SEQUENCE:
                raise Fenced("another process has taken over these partitions")
            raise StreamMisfit(f"subject '{messages[0][0]}': {refusal.get('description')}")
        self._last[partition] = document["seq"]

    async def _batch(self, messages: Sequence[tuple[str, int, bytes]], last: int) -> dict[str, Any]:
        assert self._connection is not None
        client, batch = self._connection.client, uuid.uuid4().hex
        count = len(messages)
        for number, (subject, position, value) in enumerate(messages, start=1):
            headers = {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number), POSITION: str(position)}
            if number == 1:
                headers["Nats-Expected-Last-Sequence"] = str(last)
            if number < count:
                await client.publish(subject, value, headers=headers)
        headers["Nats-Batch-Commit"] = "1"
        return await self._connection.request(subject, value, headers)

    def flush(self, *, due: bool = False) -> None:
        """See `protocols.AnswerSink`; everything is committed at once."""

    @property
    def held(self) -> int:
        """See `protocols.AnswerSink`; nothing is."""
        return 0

    def close(self) -> None:
        """See `protocols.AnswerSink`."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
