"""A released model with three look-ups, its project, a broker, and workers as people start them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml_platform_tests.kafka_broker import KafkaBroker, kafka_broker  # noqa: F401 - a fixture
from ml_platform_tests.stream_scoring.world import StreamWorld
from ml_platform_tests.streams.conftest import nats_broker, redis_broker  # noqa: F401 - fixtures


@pytest.fixture
def make_world(tmp_path: Path, kafka_broker: KafkaBroker) -> Iterator[Callable[..., StreamWorld]]:  # noqa: F811
    """Make worlds that end with the test, with all their workers."""
    worlds: list[StreamWorld] = []

    def make(**options: object) -> StreamWorld:
        worlds.append(StreamWorld(tmp_path / f"world{len(worlds)}", kafka_broker, **options))  # type: ignore[arg-type]
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()
