"""The brokers of the tests of streams."""

from collections.abc import Iterator

import pytest

from ml_platform_tests.brokers import Broker, running_broker
from ml_platform_tests.kafka_broker import kafka_broker  # noqa: F401 - a fixture


@pytest.fixture
def nats_broker(tmp_path) -> Iterator[Broker]:
    """A NATS server with JetStream, the test's own."""
    with running_broker("nats", tmp_path / "nats") as broker:
        yield broker


@pytest.fixture
def redis_broker(tmp_path) -> Iterator[Broker]:
    """A Redis that keeps every command, the test's own."""
    with running_broker("redis", tmp_path / "redis") as broker:
        yield broker
