"""One broker and a stream on it, as the tests of every kind of broker need them: to produce, and to read what came."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import redis

from ml_platform.spec.stream import StreamSource
from ml_platform.spec.stream_sources import NatsSource, RedisSource
from ml_platform.streams.nats_client import NatsConnection
from ml_platform.streams.nats_sink import NatsAnswers
from ml_platform.streams.nats_source import NatsMessages
from ml_platform.streams.protocols import AnswerSink, Message, Source
from ml_platform.streams.redis_client import keys_of
from ml_platform.streams.redis_sink import RedisAnswers
from ml_platform.streams.redis_source import RedisMessages
from ml_platform_tests.brokers import Broker


@dataclass(frozen=True)
class Brokered:
    """A stream `flights` of one kind of broker, with answers in `answers` and dead letters beside."""

    broker: Broker
    spec: StreamSource
    produce: Callable[[Sequence[bytes], int], None]  # messages, to a partition
    trim: Callable[[int], None]  # keep so many messages of each partition
    answers: Callable[[], list[bytes]]  # of all partitions, with the dead letters, in their order
    source: Callable[[], Source]
    sink: Callable[[], AnswerSink]


def nats_stream(broker: Broker, partitions: int = 1) -> Brokered:
    subjects = tuple(f"flights.{number}" for number in range(partitions))
    spec = NatsSource(
        type="nats", servers=broker.address, stream="FLIGHTS", subjects=subjects if partitions > 1 else ()
    )
    connection = NatsConnection(spec)
    connection.api("STREAM.CREATE.FLIGHTS", {"name": "FLIGHTS", "subjects": ["flights.*"], "storage": "file"})
    connection.close()

    def produce(values: Sequence[bytes], partition: int = 0) -> None:
        connection = NatsConnection(spec)
        client = connection.client

        async def publish() -> None:
            for value in values[:-1]:
                await client.publish(f"flights.{partition}", value)
            await client.jetstream().publish(f"flights.{partition}", values[-1])

        connection.run(publish())
        connection.close()

    def trim(keep: int) -> None:
        connection = NatsConnection(spec)
        connection.api("STREAM.PURGE.FLIGHTS", {"keep": keep})
        connection.close()

    def answers() -> list[bytes]:
        names = ["answers"] if partitions == 1 else [f"answers_{number}" for number in range(partitions)]
        connection, values = NatsConnection(spec), []
        for name in names:
            _, state = connection.stream(name) or (None, None)
            for number in range(max(state.first_seq, 1), state.last_seq + 1) if state else ():
                message = connection.run(connection.client.jetstream().get_msg(name, number))
                if not (message.subject or "").endswith(".holders"):
                    values.append(message.data or b"")
        connection.close()
        return values

    return Brokered(
        broker, spec, produce, trim, answers, lambda: NatsMessages(spec),
        lambda: NatsAnswers(spec, "flight_delay", "answers", "answers.dead_letters"),
    )  # fmt: skip


def redis_stream(broker: Broker, partitions: int = 1) -> Brokered:
    spec = RedisSource(type="redis", url=f"{broker.address}/0", stream="flights", partitions=partitions)
    keys = keys_of(spec)

    def produce(values: Sequence[bytes], partition: int = 0) -> None:
        with redis.Redis.from_url(spec.url) as client, client.pipeline(transaction=False) as pipeline:
            for value in values:
                pipeline.xadd(keys[partition], {"value": value})
            pipeline.execute()

    def trim(keep: int) -> None:
        with redis.Redis.from_url(spec.url) as client:
            for key in keys:
                client.xtrim(key, maxlen=keep, approximate=False)

    def answers() -> list[bytes]:
        names = ["answers"] if partitions == 1 else [f"answers.{number}" for number in range(partitions)]
        dead = [name.replace("answers", "answers.dead_letters") for name in names]
        entries = []
        with redis.Redis.from_url(spec.url) as client:
            for name, poison in zip(names, dead, strict=True):
                both = [*client.xrange(name), *client.xrange(poison)]
                entries += sorted(both, key=lambda entry: tuple(map(int, entry[0].split(b"-"))))
        return [fields[b"value"] for _, fields in entries]

    with redis.Redis.from_url(spec.url) as client:
        for key in keys:
            client.xgroup_create(key, "maker", mkstream=True)
    return Brokered(
        broker, spec, produce, trim, answers, lambda: RedisMessages(spec, "flight_delay"),
        lambda: RedisAnswers(spec, "flight_delay", "answers", "answers.dead_letters"),
    )  # fmt: skip


def read_all(source: Source, count: int, seconds: float = 60.0) -> list[Message]:
    """Read so many messages; fails when they do not come."""
    import time

    deadline, messages = time.monotonic() + seconds, list[Message]()
    while len(messages) < count:
        messages += source.read(1000, 0.2)
        assert time.monotonic() < deadline, f"{len(messages)} of {count} messages came"
    return messages
