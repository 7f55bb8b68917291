"""Sends dead letters to their topic again."""

from collections.abc import Sequence

from ml_platform.distribution import extra
from ml_platform.spec.stream import KafkaSource
from ml_platform.streams.answers import Letter
from ml_platform.streams.kafka_client import client_options, kafka_errors
from ml_platform.streams.protocols import StreamUnavailable

HEADER = "ml-platform-replay"  # of a message that was sent again: the place that it had first
_SECONDS = 60.0


def resend(source: KafkaSource, letters: Sequence[Letter]) -> None:
    """Put messages into the partitions that they had, with their keys (raises StreamUnavailable)."""
    with extra("streaming"):
        from confluent_kafka import Producer

    failed: list[str] = []
    with kafka_errors():
        producer = Producer({**client_options(source), "enable.idempotence": True})
        for letter in letters:
            producer.produce(
                source.topic,
                letter.value,
                None if letter.key is None else letter.key.encode(),
                partition=letter.partition,
                headers={HEADER: letter.place},
                on_delivery=lambda error, _: failed.append(error.str()) if error is not None else None,
            )
            producer.poll(0)
        left = producer.flush(_SECONDS)
    if left or failed:
        raise StreamUnavailable(
            f"{left + len(failed)} of {len(letters)} messages were not taken: {failed[0] if failed else 'no answer'}"
        )
