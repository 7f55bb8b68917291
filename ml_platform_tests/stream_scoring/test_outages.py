"""What is away comes back: brokers, the online store; and what waits meanwhile is answered, once, in bounded memory."""

import os
import sqlite3
from pathlib import Path

import psutil
import pytest

from ml_platform.settings import Settings
from ml_platform.stream_scoring.worker import FAILED, STOPPED
from ml_platform_tests.kafka_broker import KafkaBroker
from ml_platform_tests.ports import free_port
from ml_platform_tests.stream_scoring.world import StreamWorld, flight
from ml_platform_tests.tcp_proxy import TcpProxy


@pytest.mark.slow
def test_a_broker_that_is_away_at_the_start_and_in_the_middle_is_waited_for(tmp_path):
    port, own = free_port(), free_port()
    proxy = TcpProxy(port, own)
    broker = KafkaBroker(tmp_path, own, advertised=port)
    world = StreamWorld(tmp_path / "world", broker, table=True)
    try:
        world.send([flight(n) for n in range(5)])
        proxy.kill()
        worker = world.start()
        world.wait_until(lambda: "waiting" in world.log() and "broker does not answer" in world.log(), "it waits")
        status = world.status()
        assert status is not None
        assert status.state == "waiting"
        assert worker.poll() is None
        proxy.start()
        world.wait_for(5)
        proxy.kill()
        proxy.start()
        world.send([flight(n) for n in range(5, 10)])
        world.wait_for(10)
        world.wait_until(lambda: world.table().height == 10, "all answers are in the table")
        assert world.stop(worker) == STOPPED
        assert sorted(world.answered()) == list(range(10))
        assert world.table()["position"].to_list() == list(range(10))
    finally:
        world.close()
        broker.close()
        proxy.kill()


def test_messages_wait_while_the_online_store_is_away(make_world):
    world = make_world()
    worker = world.start()
    world.wait_until(lambda: world.status() is not None and world.status().state == "running", "it runs")
    store = Path(Settings(home=world.settings.home).online_uri.removeprefix("sqlite:///"))
    away = store.with_name("away.db")
    with sqlite3.connect(store) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.replace(store, away)
    sent = 0

    def waits() -> bool:
        nonlocal sent
        world.send([flight(sent)])  # the open file answers until the worker looks whether it is still there
        sent += 1
        return "messages wait, unanswered" in world.log()

    world.wait_until(waits, "it says that it waits")
    assert len(world.answered()) < sent
    status = world.status()
    assert status is not None
    assert status.waiting > 0  # read, and not answered
    os.replace(away, store)
    world.wait_for(sent)
    world.wait_until(lambda: (now := world.status()) is not None and now.waiting == 0, "nothing waits any more")
    assert world.stop(worker) == STOPPED
    assert world.refused() == {}


@pytest.mark.slow
def test_answers_into_a_table_alone_survive_a_kill(make_world):
    world = make_world(topic=False, partitions=2)
    for partition in (0, 1):
        world.send([flight(n) if n % 10 else b"{" for n in range(200)], partition)
    for wanted in (1, 360):
        worker = world.start()
        world.wait_until(lambda wanted=wanted: world.table().height >= wanted, f"{wanted} answers are in the table")
        worker.kill()
        worker.wait()
    table, letters = world.table(), world.table("streams/flights_dead_letters")
    places = [(partition, n) for partition in (0, 1) for n in range(200)]
    assert table.select("partition", "position").rows() == [place for place in places if place[1] % 10]
    assert letters.select("partition", "position").rows() == [place for place in places if not place[1] % 10]
    assert world.start("--part", "sink").wait(120) == FAILED
    assert "the scorer writes the table itself" in world.log()


@pytest.mark.slow
def test_a_backlog_is_answered_in_bounded_memory(make_world):
    rows = 40_000
    world = make_world()
    world.send([{**flight(n % 100), "ballast": "x" * 2000} for n in range(100)] * (rows // 100))  # 90 MB
    worker = world.start()
    world.wait_until(lambda: world.status() is not None and world.status().answered > 0, "it answers")
    process, peak = psutil.Process(worker.pid), 0
    while world.status().answered < rows:
        peak = max(peak, process.memory_info().rss)
        assert worker.poll() is None
    assert world.stop(worker) == STOPPED
    assert sorted(world.answered()) == list(range(rows))
    assert peak < 400 * 2**20  # the backlog as Python objects would take more beside the libraries
    assert world.status().waiting == 0


@pytest.mark.parametrize("table", [pytest.param(False, marks=pytest.mark.slow), True])
def test_dead_letters_are_listed_and_sent_again_once(make_world, monkeypatch, table):
    from typer.testing import CliRunner

    from ml_platform.stream_scoring.cli import app

    world = make_world(table=table)
    world.send([flight(0), flight(1, distance="far"), b"\xff"])
    worker = world.start()
    world.wait_for(3)
    if table:
        world.wait_until(lambda: world.table("streams/flights_dead_letters").height == 2, "they are in the table")
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(world.project))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(world.settings.home))

    def run(*command: str):
        return CliRunner().invoke(app, list(command))

    listed = run("dead-letters", "flight_delay", "--kind", "contract")
    assert listed.exit_code == 0, listed.output
    assert "0:1 " in listed.output
    assert "distance: wanted a finite number" in listed.output
    assert "0:2 " not in listed.output
    assert run("replay", "flight_delay").exit_code == 1
    assert run("replay", "flight_delay", "--place", "0:9").exit_code == 1
    assert "1 messages were sent again" in run("replay", "flight_delay", "--kind", "contract").output
    world.wait_for(4)
    again = run("replay", "flight_delay", "--place", "0:1")
    assert "left out 0:1: was sent before" in again.output
    assert "0 messages were sent again" in again.output
    assert "sent again" in run("dead-letters", "flight_delay").output
    world.stop(worker)
    assert world.refused()[3]["value"] == world.refused()[1]["value"]
    shown = run("status").output
    assert "1 answered, 3 dead letters (1 broken, 2 contract)" in shown, shown
