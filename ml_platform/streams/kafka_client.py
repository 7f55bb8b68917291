"""What clients of a broker that speaks the Kafka protocol have in common: options, metadata, errors in our terms."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ml_platform.distribution import extra
from ml_platform.spec.stream import KafkaSource
from ml_platform.streams.protocols import Fenced, StreamMisfit, StreamUnavailable

if TYPE_CHECKING:
    from confluent_kafka import Consumer

ANSWER_SECONDS = 10.0  # in which a broker that is up answers
_VARIABLE = re.compile(r"\$\{?(\w+)")
logger = logging.getLogger("streams.kafka")


def client_options(source: KafkaSource) -> dict[str, Any]:
    """Options of librdkafka for the brokers of a source, with $VARIABLES replaced.

    Raises
    ------
    StreamMisfit
        When a variable is not set.
    """
    options = {
        "client.id": "ml-platform",
        "allow.auto.create.topics": False,
        "log.connection.close": False,  # brokers close idle connections
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.refresh.interval.ms": 60_000,
        **source.options,
        "bootstrap.servers": source.servers,
    }
    for name, value in options.items():
        if isinstance(value, str):
            if unset := [one for one in _VARIABLE.findall(value) if one not in os.environ]:
                raise StreamMisfit(f"stream.source: '{name}' wants ${unset[0]}, which the environment does not have")
            options[name] = os.path.expandvars(value)
    return {**options, "logger": logger}


def open_consumer(source: KafkaSource, **options: Any) -> "Consumer":
    """A consumer without a group: it is assigned partitions, and commits no offset."""
    with extra("streaming"):
        from confluent_kafka import Consumer

    with kafka_errors():
        return Consumer(
            {
                **client_options(source),
                "group.id": "ml-platform-none",  # the client wants one; nothing joins it
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                **options,
            }
        )


def topic_partitions(consumer: "Consumer", topic: str) -> list[int]:
    """Numbers of a topic's partitions (raises StreamUnavailable, StreamMisfit)."""
    from confluent_kafka import KafkaError

    with kafka_errors():
        metadata = consumer.list_topics(topic, timeout=ANSWER_SECONDS).topics.get(topic)
    if metadata is None or (metadata.error is not None and metadata.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
        raise StreamMisfit(f"the broker has no topic '{topic}': create it first")
    if metadata.error is not None:
        raise StreamUnavailable(f"topic '{topic}': {metadata.error.str()}")
    return sorted(metadata.partitions)


@contextmanager
def kafka_errors() -> Iterator[None]:
    """Turn the client's errors into those of `streams.protocols`."""
    from confluent_kafka import KafkaError, KafkaException

    fencing = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}
    lasting = {
        KafkaError._INVALID_ARG,
        *(KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        *(KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION),
    }
    try:
        yield
    except KafkaException as error:
        told = error.args[0]
        if told.code() in fencing:
            raise Fenced("another process has taken over these partitions") from error
        if told.code() in lasting:
            raise StreamMisfit(f"the broker's client refuses: {told.str()}") from error
        raise StreamUnavailable(f"the broker does not answer as it should: {told.str()}") from error
