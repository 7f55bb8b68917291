"""Kills scorer, sink and the broker's connections again and again while messages come, and counts every row."""

import json
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ml_platform_tests.kafka_broker import KafkaBroker
from ml_platform_tests.ports import free_port
from ml_platform_tests.stream_scoring.world import StreamWorld, flight
from ml_platform_tests.tcp_proxy import TcpProxy

PARTITIONS = 2
CHUNK = 600  # messages of a partition between two kills
POISON_EVERY = 97


class Counted(NamedTuple):
    """What is there at the end."""

    messages: int
    kills: dict[str, int]
    answered: int
    dead_letters: int
    lost: int
    doubled: int
    table_differs: int
    versions: tuple[int, ...]


def run_marathon(folder: Path, kills: int, seed: int = 1) -> Counted:
    """Kill so many times, with a release swapped in the middle, and count."""
    drawn = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    port, own = free_port(), free_port()
    proxy = TcpProxy(port, own)
    broker = KafkaBroker(folder, own, advertised=port)
    world = StreamWorld(folder / "world", broker, partitions=PARTITIONS, table=True, stream={"max_batch": 40})
    try:
        return _run(world, proxy, kills, drawn)
    finally:
        world.close()
        broker.close()
        proxy.kill()


def _run(world: StreamWorld, proxy: TcpProxy, kills: int, drawn: random.Random) -> Counted:
    sent = [0] * PARTITIONS
    poison: list[set[int]] = [set() for _ in range(PARTITIONS)]
    killed = {"scorer": 0, "sink": 0, "connections": 0}
    parts = {part: world.start("--part", part) for part in ("scorer", "sink")}
    for number in range(kills):
        _send(world, sent, poison)
        victim = drawn.choices(["scorer", "sink", "connections"], [5, 2, 2])[0]
        part = "sink" if victim == "sink" else "scorer"
        world.wait_until(lambda part=part: _works(world, part, parts[part].pid), f"the {part} works")  # type: ignore[misc]
        time.sleep(drawn.uniform(0, 0.3))  # so that the kill falls anywhere; it decides no result
        if victim == "connections":
            proxy.kill()
            time.sleep(drawn.uniform(0, 0.3))
            proxy.start()
        else:
            parts[part].kill()
            parts[part].wait()
            parts[part] = world.start("--part", part)
        killed[victim] += 1
        if number == kills // 2:
            world.release(4)
    _send(world, sent, poison)
    everything = sum(sent)
    world.wait_until(lambda: _rows(world) >= everything, f"all {everything} messages are answered", 300)
    world.wait_until(lambda: _copied(world) >= everything, "all of them are in the tables", 300)
    codes = {part: world.stop(process) for part, process in parts.items()}
    assert codes == {"scorer": 0, "sink": 0}, world.log()[-3000:]
    return _count(world, sent, poison, killed)


def _send(world: StreamWorld, sent: list[int], poison: list[set[int]]) -> None:
    for partition in range(PARTITIONS):
        messages: list[Any] = []
        for position in range(sent[partition], sent[partition] + CHUNK):
            if position % POISON_EVERY == partition:
                poison[partition].add(position)
                messages.append(b'{"carrier": ')
            else:
                messages.append(flight(position))
        world.send(messages, partition)
        sent[partition] += CHUNK


def _works(world: StreamWorld, part: str, pid: int) -> bool:
    status = world.status(part)
    return status is not None and status.pid == pid and status.state == "running"


def _rows(world: StreamWorld) -> int:
    return sum(
        len(world.broker.rows(topic, partition))
        for topic in (world.answers, world.dead_letters)
        for partition in range(PARTITIONS)
    )


def _copied(world: StreamWorld) -> int:
    return world.table().height + world.table("streams/flights_dead_letters").height


def _count(world: StreamWorld, sent: list[int], poison: list[set[int]], killed: dict[str, int]) -> Counted:
    lost = doubled = answered = dead = differs = 0
    versions: set[int] = set()
    table, letters = world.table(), world.table("streams/flights_dead_letters")
    for partition in range(PARTITIONS):
        answers = [
            (int(key or b""), json.loads(value or b"")) for key, value in world.broker.rows(world.answers, partition)
        ]
        refused = [int(key or b"") for key, _ in world.broker.rows(world.dead_letters, partition)]
        positions = [position for position, _ in answers]
        answered, dead = answered + len(answers), dead + len(refused)
        doubled += len(positions) - len(set(positions)) + len(refused) - len(set(refused))
        doubled += len(set(positions) & set(refused))
        wanted = set(range(sent[partition])) - poison[partition]
        lost += len(wanted - set(positions)) + len(poison[partition] - set(refused))
        versions |= {answer["version"] for _, answer in answers}
        there = [
            (position, answer["version"], answer["probability"])
            for position, answer in sorted(answers, key=lambda one: one[0])
        ]
        mine = table.filter(pl.col("partition") == partition).select("position", "model_version", "probability").rows()
        differs += len(set(there) ^ set(mine)) + abs(len(there) - len(mine))
        of_letters = letters.filter(pl.col("partition") == partition).get_column("position").to_list()
        differs += abs(len(of_letters) - len(refused)) + len(set(of_letters) ^ set(refused))
    return Counted(sum(sent), killed, answered, dead, lost, doubled, differs, tuple(sorted(versions)))
