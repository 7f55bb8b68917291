"""Writes answers and dead letters to topics, each exactly once, by one transaction per partition.

An answer has the number of its message's partition, and the message's offset as its key, so the topics themselves say
how far a stream is. Each partition has a transactional id of its own: whoever opens it ends the process that had it
before, however partitions are divided among workers.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from ml_platform.distribution import extra
from ml_platform.spec.stream import KafkaSource
from ml_platform.streams.kafka_client import (
    ANSWER_SECONDS,
    client_options,
    kafka_errors,
    open_consumer,
    topic_partitions,
)
from ml_platform.streams.protocols import Outcome, Resume, StreamMisfit, StreamUnavailable

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer
    from confluent_kafka import Message as KafkaMessage

LARGEST_BATCH = 10_000  # messages of one transaction, at most: as far back as an interrupted one can reach
_COMMIT_SECONDS = 30.0


class KafkaAnswers:
    """An `AnswerSink` over a topic for answers and one for dead letters.

    Parameters
    ----------
    source
        The topic of the messages, whose brokers have the other topics too.
    name
        Of the stream: its transactional ids begin with it.
    answers, dead_letters
        The topics, with at least as many partitions as the source has.
    """

    def __init__(self, source: KafkaSource, name: str, answers: str, dead_letters: str) -> None:
        self._source, self._name, self._answers, self._dead_letters = source, name, answers, dead_letters
        self._producers: dict[int, Producer] = {}
        self._too_large: dict[int, str] = {}  # partition → what the broker refused for its size
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="transactions")

    def open(self, partitions: Sequence[int]) -> Mapping[int, Resume]:
        """See `protocols.AnswerSink`."""
        consumer = open_consumer(
            self._source, **{"enable.partition.eof": True, "fetch.wait.max.ms": 5, "queued.max.messages.kbytes": 16384}
        )
        try:
            for topic in (self._answers, self._dead_letters):
                there = topic_partitions(consumer, topic)
                if missing := sorted(set(partitions) - set(there)):
                    raise StreamMisfit(
                        f"topic '{topic}' has {len(there)} partitions, and lacks {missing} of '{self._source.topic}': "
                        "an answer has the partition of its message; give it as many"
                    )
            # Only now, with the predecessors fenced and their transactions ended, do the topics say how far they came.
            self._producers = dict(zip(partitions, self._pool.map(self._take_over, partitions), strict=True))
            return {partition: self._resume(consumer, partition) for partition in partitions}
        finally:
            consumer.close()

    def _take_over(self, partition: int) -> "Producer":
        with extra("streaming"):
            from confluent_kafka import Producer

        with kafka_errors():
            producer = Producer(
                {
                    **client_options(self._source),
                    "transactional.id": f"ml-platform.{self._name}.{self._source.topic}.{partition}",
                    "compression.type": "lz4",
                    "linger.ms": 5,  # a commit does not wait for it
                    "delivery.report.only.error": True,
                    "on_delivery": lambda error, message: self._note_refusal(partition, error, message),
                }
            )
            producer.init_transactions(_COMMIT_SECONDS)
        return producer

    def _resume(self, consumer: "Consumer", partition: int) -> Resume:
        """How far a partition was answered, by the ends of both topics.

        Brokers that show the rows of aborted transactions make them part of the topic for all its readers. So what
        counts is what is there: positions that are missing among the last ones are answered, those there are not again.
        """
        tails = [_tail(consumer, topic, partition) for topic in (self._answers, self._dead_letters)]
        seen = {position for positions, _ in tails for position in positions}
        if not seen:
            if not all(is_whole for _, is_whole in tails):
                raise StreamMisfit(
                    f"topics '{self._answers}' and '{self._dead_letters}', partition {partition}: all answers were "
                    "deleted (the topics' retention), so nobody knows which messages were answered. Answer into new "
                    f"topics, or with `start: latest` into these after emptying '{self._source.topic}'"
                )
            return Resume()
        last = sorted(seen)[-LARGEST_BATCH:]
        if last[0] > 0 and len(last) == len(seen) and all(is_whole for _, is_whole in tails):
            return Resume(-1, frozenset(last))  # of the first transaction ever, the first rows may be missing
        missing = next((one + 1 for one, following in pairwise(last) if following > one + 1), None)
        if missing is None:
            return Resume(last[-1])
        return Resume(missing - 1, frozenset(position for position in last if position >= missing))

    def write(self, outcomes: Sequence[Outcome]) -> None:
        """See `protocols.AnswerSink`."""
        by_partition = sorted(outcomes, key=attrgetter("partition"))  # stable: positions stay in order
        parts = [(number, list(rows)) for number, rows in groupby(by_partition, attrgetter("partition"))]
        if len(parts) == 1:
            self._commit(*parts[0])
        else:
            list(self._pool.map(lambda part: self._commit(*part), parts))

    def _note_refusal(self, partition: int, error: "KafkaError | None", message: "KafkaMessage") -> None:
        from confluent_kafka import KafkaError

        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            self._too_large.setdefault(partition, self._too_large_for(message.topic(), message.key(), message.value()))

    def _too_large_for(self, topic: str | None, key: bytes | str | None, value: bytes | str | None) -> str:
        position = key.decode() if isinstance(key, bytes) else key
        return (
            f"topic '{topic}' takes no message of {len(value or b''):,} bytes, the answer or dead letter to offset "
            f"{position} of '{self._source.topic}': raise max.message.bytes of the topic, and message.max.bytes in "
            "`options` of the source where that is lower"
        )

    def _commit(self, partition: int, outcomes: Sequence[Outcome]) -> None:
        producer = self._producers[partition]
        answers = [{"key": str(one.position), "value": one.value} for one in outcomes if not one.refused]
        dead_letters = [{"key": str(one.position), "value": one.value} for one in outcomes if one.refused]
        try:
            with kafka_errors():
                producer.begin_transaction()
                for topic, rows in ((self._dead_letters, dead_letters), (self._answers, answers)):
                    if rows and producer.produce_batch(topic, rows, partition=partition) != len(rows):
                        self._raise_refused(partition, topic, rows)
                producer.commit_transaction(_COMMIT_SECONDS)
        except StreamUnavailable as error:
            if partition in self._too_large:  # what is written again would be refused again
                raise StreamMisfit(f"partition {partition}: {self._too_large[partition]}") from error
            raise

    def _raise_refused(self, partition: int, topic: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Raise why the client took not all rows of a batch."""
        from confluent_kafka import KafkaError

        row = next(row for row in rows if "_error" in row)
        if row["_error"].code() == KafkaError.MSG_SIZE_TOO_LARGE:
            raise StreamMisfit(f"partition {partition}: {self._too_large_for(topic, row['key'], row['value'])}")
        raise StreamUnavailable(f"topic '{topic}': {row['_error']}")

    def flush(self, *, due: bool = False) -> None:
        """See `protocols.AnswerSink`; everything is committed at once."""

    held = 0  # everything is committed at once

    def close(self) -> None:
        """See `protocols.AnswerSink`."""
        self._pool.shutdown()
        for producer in self._producers.values():
            producer.purge()  # what the broker did not get: its transaction ends with the next owner's first step
        self._producers = {}


def _tail(consumer: "Consumer", topic: str, partition: int) -> tuple[set[int], bool]:
    """Positions that the last rows of a topic's partition are about; and whether these are all rows that ever were."""
    from confluent_kafka import KafkaError, TopicPartition

    with kafka_errors():
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_SECONDS)
    span = 2 * LARGEST_BATCH + 100  # every transaction takes an offset of its own for its end
    while True:
        start = max(low, high - span)
        positions: set[int] = set()
        with kafka_errors():
            consumer.assign([TopicPartition(topic, partition, start)])
            is_read = False  # until the fetch says so: the end that was told before may be an old one
            while not is_read:
                records = consumer.consume(LARGEST_BATCH, 0.05)
                for record in records:
                    error = record.error()
                    if error is None:
                        positions.add(_position(topic, record.key()))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        is_read = True
                    else:
                        raise StreamUnavailable(f"topic '{topic}': {error.str()}")
        if positions or start == low:
            return positions, start == 0
        span *= 4  # nothing but ends of transactions


def _position(topic: str, key: bytes | None) -> int:
    if key is None or not key.isdigit():
        raise StreamMisfit(
            f"topic '{topic}' has a message with the key {key!r}, which no stream wrote: give answers a topic of their "
            "own"
        )
    return int(key)
