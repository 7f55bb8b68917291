"""Reads the messages of a topic: partitions by assignment, positions are offsets."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ml_platform.spec.stream import KafkaSource
from ml_platform.streams.kafka_client import ANSWER_SECONDS, kafka_errors, logger, open_consumer, topic_partitions
from ml_platform.streams.protocols import Message, PartitionLag, Resume, StreamMisfit, StreamUnavailable

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError

# Some brokers hold a fetch for all of this time though messages have come; others answer at once.
_FETCH_WAIT_MS = 5
# A transaction costs as much as some hundred messages: of few, more are let come for a moment.
_FEW, _GATHER_SECONDS = 20, 0.004
_LOOK_SECONDS = 3.0  # between two looks, while nothing comes, at whether the topic is still the one that was read
_LOOK_TIMEOUT = 2.0
_FETCHED_KB = 32 * 1024  # ahead of `read`, over all partitions: what bounds the memory of a backlog


class KafkaTopic:
    """A `Source` over one topic.

    Parameters
    ----------
    spec
        The topic and its brokers.
    patient
        Whether messages may wait half a second at brokers that hold a fetch for all of its time.
    """

    def __init__(self, spec: KafkaSource, *, patient: bool = False) -> None:
        self._spec = spec
        self._fetch_wait_ms = 500 if patient else _FETCH_WAIT_MS
        self._made: Consumer | None = None
        self._next: dict[int, int] = {}
        self._reached: dict[int, int] = {}  # partition → where its end was: markers of transactions have offsets too
        self._done: dict[int, frozenset[int]] = {}
        self._ends_at: dict[int, tuple[int, int]] = {}  # partition → end as the broker told it, and as it was read
        self._look_at = 0.0

    @property
    def _consumer(self) -> "Consumer":
        if self._made is None:
            tuned = {
                "fetch.wait.max.ms": self._fetch_wait_ms,
                "queued.max.messages.kbytes": _FETCHED_KB,
                "queued.min.messages": 20_000,
                "fetch.message.max.bytes": 2**20,
                "enable.partition.eof": True,
            }
            own = {name: value for name, value in tuned.items() if name not in self._spec.options}
            self._made = open_consumer(self._spec, **own)
        return self._made

    def partitions(self) -> Sequence[int]:
        """See `protocols.Source`."""
        return topic_partitions(self._consumer, self._spec.topic)

    def assign(self, resume: Mapping[int, Resume]) -> None:
        """See `protocols.Source`."""
        from confluent_kafka import TopicPartition

        topic = self._spec.topic
        self._next = {partition: self._start(partition, answered) for partition, answered in resume.items()}
        self._reached = {}
        self._done = {partition: answered.done for partition, answered in resume.items()}
        self._look_at = time.monotonic() + _LOOK_SECONDS
        with kafka_errors():
            self._consumer.assign([TopicPartition(topic, *place) for place in sorted(self._next.items())])

    def _start(self, partition: int, answered: Resume) -> int:
        """The offset to go on with (raises StreamMisfit)."""
        where = f"topic '{self._spec.topic}', partition {partition}"
        low, high = self._ends(partition)
        newest = max(answered.done, default=answered.after)
        place = (newest if answered.after < 0 else answered.after) + 1
        if newest >= 0 and place < low:
            raise StreamMisfit(
                f"{where}: up to {low - place:,} messages from offset {place} on were deleted before they were "
                "answered (the topic's retention). To go on with what is left, answer into new topics and tables"
            )
        self._check_end(partition, max([answered.after, *answered.done]) + 1, high)
        if answered.after >= 0:
            return place
        if self._spec.start == "earliest":
            return low
        return max(low, min(answered.done, default=high))

    def _check_end(self, partition: int, place: int, high: int) -> None:
        """Refuse a topic that ends before what was read of it: some brokers say nothing, and give no message."""
        if place <= high or self._is_confirmed(partition, place, high):
            return
        end = self._fetched_end(partition, max(high - 1, 0))  # some brokers tell an end that is too low
        if place > end:
            raise StreamMisfit(
                f"topic '{self._spec.topic}', partition {partition}: what was read goes to offset {place - 1}, the "
                f"topic ends at {end - 1}, {place - end:,} messages earlier: it was made anew, or has lost messages. "
                "Answer into new topics and tables, or restore the topic"
            )
        self._ends_at[partition] = (high, end)

    def _is_confirmed(self, partition: int, place: int, high: int) -> bool:
        told, end = self._ends_at.get(partition, (-1, -1))
        return told == high and place <= end

    def _fetched_end(self, partition: int, start: int) -> int:
        """Offset behind the last message, by reading the last ones."""
        from confluent_kafka import KafkaError, TopicPartition

        deadline = time.monotonic() + ANSWER_SECONDS
        consumer = open_consumer(self._spec, **{"enable.partition.eof": True, "fetch.wait.max.ms": _FETCH_WAIT_MS})
        try:
            with kafka_errors():
                consumer.assign([TopicPartition(self._spec.topic, partition, start)])
                while time.monotonic() < deadline:
                    for record in consumer.consume(1000, 0.05):
                        error, offset = record.error(), record.offset()
                        if error is not None and error.code() == KafkaError._PARTITION_EOF and offset is not None:
                            return offset
        finally:
            consumer.close()
        raise StreamUnavailable(f"topic '{self._spec.topic}', partition {partition}: its end could not be read")

    def _look(self) -> None:
        """While nothing comes: see whether the topic was made anew (raises StreamMisfit)."""
        for partition, place in self._next.items():
            try:
                _, high = self._ends(partition, _LOOK_TIMEOUT)
                self._check_end(partition, place, high)
            except StreamUnavailable:  # it is waited for, and may come back as another
                self._ends_at.clear()
                break
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def _ends(self, partition: int, seconds: float = ANSWER_SECONDS) -> tuple[int, int]:
        from confluent_kafka import TopicPartition

        with kafka_errors():
            ends: tuple[int, int] = self._consumer.get_watermark_offsets(
                TopicPartition(self._spec.topic, partition), timeout=seconds
            )
        return ends

    def read(self, most: int, seconds: float) -> Sequence[Message]:
        """See `protocols.Source`."""
        from confluent_kafka import KafkaError

        with kafka_errors():
            first = self._consumer.poll(seconds)
            if first is None:
                if time.monotonic() > self._look_at:
                    self._look()
                return []
            records = [first, *self._consumer.consume(most - 1, 0)] if most > 1 else [first]
            if most > 1 and len(records) < _FEW:
                time.sleep(_GATHER_SECONDS)
                records += self._consumer.consume(most - len(records), 0)
        messages = []
        for record in records:
            partition, offset = record.partition(), record.offset()
            if (error := record.error()) is not None:
                if error.code() == KafkaError._PARTITION_EOF and partition is not None and offset is not None:
                    self._reached[partition] = offset
                else:
                    self._judge(error)
                continue
            assert partition is not None
            assert offset is not None
            self._next[partition] = offset + 1
            if (done := self._done[partition]) and offset in done:
                continue
            messages.append(Message(partition, offset, record.value(), record.key(), record.timestamp()[1] * 1000))
        return messages

    def _judge(self, error: "KafkaError") -> None:
        """Raise what a person has to decide; a broker that is away comes back."""
        from confluent_kafka import KafkaError

        if error.code() in (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET):
            raise StreamMisfit(
                f"topic '{self._spec.topic}' does not have the next message: messages were deleted before they were "
                "read (the topic's retention), or the topic was made anew. Answer into new topics and tables, or "
                f"restore the topic ({error.str()})"
            )
        if error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            raise StreamMisfit(f"topic '{self._spec.topic}': {error.str()}")
        logger.warning("topic '%s': %s", self._spec.topic, error.str())

    def lag(self) -> Mapping[int, PartitionLag]:
        """See `protocols.Source`."""
        from confluent_kafka import TopicPartition

        lags = {}
        for partition, place in self._next.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self._spec.topic, partition), cached=True)
            end = high if high >= 0 else place  # not known (-1001) before the first fetch
            waiting = max(0, end - max(place, self._reached.get(partition, 0)))
            lags[partition] = PartitionLag(position=place - 1, end=end, waiting=waiting)
        return lags

    def close(self) -> None:
        """See `protocols.Source`."""
        if self._made is not None:
            self._made.close()
            self._made = None
