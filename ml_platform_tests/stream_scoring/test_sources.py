"""Workers on each kind of source, as people start them: kills, poison and brokers that are away lose no row."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from ml_platform_tests.brokers import Broker
from ml_platform_tests.stream_scoring.sourced_world import SourcedWorld, brokered_world, fresh_table, growing_file
from ml_platform_tests.stream_scoring.world import flight
from ml_platform_tests.streams.brokered import Brokered

KILLS = int(os.environ.get("KILLS", "4"))
POISON = b'{"flight_id": "half'


@pytest.fixture
def sourced(tmp_path):
    """Worlds without a broker, that end with the test."""
    worlds: list[SourcedWorld] = []

    def make(kind: str) -> SourcedWorld:
        sink = {"table": "streams/flights", "commit_every": "0.5 seconds"}
        if kind == "table":
            source = {"type": "table", "table": "raw/requests"}
            world = SourcedWorld(tmp_path / "world", source, sink, fresh_table(tmp_path / "world"))
        else:
            (tmp_path / "in").mkdir()
            source = {"type": "folder", "path": str(tmp_path / "in")}
            world = SourcedWorld(tmp_path / "world", source, sink, growing_file(tmp_path / "in"))
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()


@pytest.fixture(params=["nats", "redis"])
def brokered(request, tmp_path):
    """A world on a broker whose answers go to a topic and from there to a table."""
    broker: Broker = request.getfixturevalue(f"{request.param}_broker")
    world, side = brokered_world(tmp_path / "world", request.param, broker, table=True)
    yield world, side
    world.close()


def numbers(values: list[bytes]) -> Counter[str]:
    """How often each flight was answered, or is a dead letter."""
    documents = [json.loads(value) for value in values]
    return Counter(one.get("id") or json.loads(one["value"])["flight_id"] for one in documents)


def _more(answers: Callable[[], list], before: int) -> bool:
    return len(answers()) > before


def dead_letters(world: SourcedWorld) -> list[tuple[str, str]]:
    table = "streams/flights_dead_letters"
    if not world.lake.exists(table):
        return []
    return [(row["kind"], row["value"]) for row in world.lake.read(table).collect().iter_rows(named=True)]


def test_answers_go_to_the_topic_at_once_and_from_there_to_the_table(brokered: tuple[SourcedWorld, Brokered]):
    world, side = brokered
    worker = world.start()
    world.send([flight(number) for number in range(50)])
    world.send([POISON])
    world.send([flight(number) for number in range(50, 60)])
    world.wait_until(lambda: len(side.answers()) >= 61, "the topic has all")
    world.wait_until(lambda: len(world.ids()) >= 60 and dead_letters(world) != [], "the table has all")
    assert world.ids() == sorted(f"f{number}" for number in range(60))
    assert dead_letters(world) == [("broken", POISON.decode())]
    world.wait_until(lambda: (status := world.status()) is not None and status.answered >= 60, "its status says so")
    status = world.status()
    assert status is not None
    assert (status.state, status.answered, status.refused) == ("running", 60, {"broken": 1})
    assert status.source in ("stream FLIGHTS", "stream flights")
    assert world.stop(worker) == 0


@pytest.mark.slow
def test_a_broker_that_is_down_at_start_or_killed_is_waited_for(brokered: tuple[SourcedWorld, Brokered]):
    world, side = brokered
    world.send([flight(number) for number in range(20)])
    side.broker.kill()
    worker = world.start()
    world.wait_until(lambda: (status := world.status()) is not None and status.state == "waiting", "it waits")
    side.broker.start()
    world.wait_until(lambda: len(side.answers()) >= 20, "it goes on")
    side.broker.kill()
    time.sleep(0.5)  # in which it notices, or not: both have to be right
    side.broker.start()
    world.send([flight(number) for number in range(20, 40)])
    world.wait_until(lambda: len(world.ids()) >= 40, "it goes on again")
    assert numbers(side.answers()) == Counter(f"f{number}" for number in range(40))
    assert world.stop(worker) == 0


@pytest.mark.slow
def test_what_was_deleted_while_no_worker_ran_stops_the_next_one(brokered: tuple[SourcedWorld, Brokered]):
    world, side = brokered
    worker = world.start()
    world.send([flight(number) for number in range(10)])
    world.wait_until(lambda: len(side.answers()) >= 10, "they are answered")
    assert world.stop(worker) == 0
    world.send([flight(number) for number in range(10, 40)])
    side.trim(5)
    worker = world.start("--part", "scorer")
    assert worker.wait(120) == 1
    status = world.status()
    assert status is not None
    assert status.state == "failed"
    assert "were deleted before" in (status.reason or "") or "were removed before" in (status.reason or "")


@pytest.mark.parametrize("kind", ["table", "folder"])
def test_a_source_without_a_broker_is_answered_into_a_table(sourced, kind):
    world = sourced(kind)
    world.send([flight(number) for number in range(30)])
    worker = world.start()
    world.wait_until(lambda: len(world.ids()) >= 30, "they are answered")
    world.send([POISON])
    world.send([flight(number) for number in range(30, 50)])
    world.wait_until(lambda: len(world.ids()) >= 50 and dead_letters(world) != [], "more are answered")
    assert world.stop(worker) == 0
    assert world.ids() == sorted(f"f{number}" for number in range(50))
    [(kind_of_letter, value)] = dead_letters(world)
    assert (kind_of_letter, value) == ("broken", POISON.decode()) or kind_of_letter == "contract"
    world.send([flight(number) for number in range(50, 60)])
    worker = world.start()
    world.wait_until(lambda: len(world.ids()) >= 60, "a later worker goes on")
    assert world.stop(worker) == 0
    assert world.ids() == sorted(f"f{number}" for number in range(60))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "folder"])
def test_kills_lose_and_double_nothing(sourced, kind):
    world = sourced(kind)
    world.send([flight(0)])
    count = 1
    for _ in range(KILLS):
        worker = world.start()
        before = len(world.ids())
        for _ in range(4):
            world.send([flight(number) for number in range(count, count + 25)])
            count += 25
        world.wait_until(partial(_more, world.ids, before), "some are answered")
        world.stop(worker, signal.SIGKILL)
    worker = world.start()
    world.wait_until(lambda: len(world.ids()) >= count, "all are answered")
    assert world.stop(worker) == 0
    assert Counter(world.ids()) == Counter(f"f{number}" for number in range(count))


@pytest.mark.slow
def test_kills_of_worker_and_broker_lose_and_double_nothing(brokered: tuple[SourcedWorld, Brokered]):
    world, side = brokered
    world.send([flight(0)])
    count = 1
    for turn in range(KILLS):
        worker = world.start()
        before = len(side.answers())
        for _ in range(4):
            world.send([flight(number) for number in range(count, count + 25)])
            count += 25
        world.wait_until(partial(_more, side.answers, before), "some are answered")
        if turn % 2:
            side.broker.kill()
            side.broker.start()
        world.stop(worker, signal.SIGKILL)
    worker = world.start()
    world.wait_until(lambda: len(world.ids()) >= count, "all are in the table")
    assert world.stop(worker) == 0
    assert numbers(side.answers()) == Counter(f"f{number}" for number in range(count))
    assert Counter(world.ids()) == Counter(f"f{number}" for number in range(count))
