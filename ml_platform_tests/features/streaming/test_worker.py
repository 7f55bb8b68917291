"""The process of streamed views against a real broker: what it keeps, what it says of itself, how it is killed."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Producer

from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import OnlineStore
from ml_platform.features.streaming.status import read_status
from ml_platform.features.streaming.worker import FAILED, FENCED, STOPPED, FeatureWorker
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.ingestion.ingest import quarantine_of
from ml_platform.lake.storage.tables import Lake
from ml_platform.streams.protocols import StreamMisfit, StreamUnavailable
from ml_platform_tests.features.streaming.till_views import look_up, views
from ml_platform_tests.kafka_broker import KafkaBroker

KILLS = int(os.environ.get("KILLS", "12"))
PATIENCE = 120.0  # seconds, on a slow machine


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return value


class Sales:
    """Sends sales to a topic of two partitions, and knows what the windows must hold."""

    def __init__(self, broker: KafkaBroker, topic: str) -> None:
        broker.create(topic, partitions=2)
        self._producer = Producer({"bootstrap.servers": broker.servers, "log_level": 0})
        self._topic = topic
        self.sent: list[tuple[str, str | None, int, int, int | None, bool]] = []  # ms of sale and arrival, cents
        self.broken = 0

    def send(self, chance: random.Random, number: int) -> None:
        """Send sales of just now, some late, some too late; and something else."""
        for _ in range(number):
            arrived = int(time.time() * 1000)
            if chance.random() < 0.02:
                self._producer.produce(self._topic, b"{]", partition=chance.randrange(2), timestamp=arrived)
                self.broken += 1
                continue
            at = arrived - chance.choice([0, 0, 0, 3, 700, 4000, 31_000])
            cents = chance.choice([None, chance.randrange(10_000)])
            shop, clerk, is_void = chance.choice("abc"), chance.choice(["x", "y", None]), chance.random() < 0.1
            event = {
                "shop": shop,
                "cart": {"total": None if cents is None else cents / 100},
                "clerk": clerk,
                "sold_at": datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds"),
                "status": "void" if is_void else "ok",
            }
            self._producer.produce(
                self._topic, json.dumps(event).encode(), partition=chance.randrange(2), timestamp=arrived
            )
            self.sent.append((shop, clerk, at, arrived, cents, is_void))
        assert self._producer.flush(60) == 0

    def till(self, shop: str, at: datetime) -> dict[str, Any]:
        """Values of the view `till`, by brute force."""
        now = at.timestamp() * 1000
        values: dict[str, Any] = {}
        for name, length in (("10s", 10_000), ("2m", 120_000)):
            inside = [
                (sold, cents, clerk)
                for shop_, clerk, sold, arrived, cents, is_void in self.sent
                if shop_ == shop and not is_void and arrived - sold <= 30_000 and now - length < sold and arrived <= now
            ]
            known = [cents for _, cents, _ in inside if cents is not None]
            clerks = [(sold, clerk) for sold, _, clerk in inside if clerk is not None]
            values |= {
                f"sales_{name}": len(inside),
                f"revenue_{name}": sum(known) / 100,
                f"basket_{name}": sum(known) / 100 / len(known) if known else None,
                f"clerks_{name}": len({clerk for _, clerk in clerks}),
                f"last_clerk_{name}": max(clerks)[1] if clerks else None,
                f"largest_{name}": max(known) / 100 if known else None,
            }
        return values


@pytest.fixture
def sales(kafka_broker: KafkaBroker, request: pytest.FixtureRequest) -> Sales:
    return Sales(kafka_broker, "sales")


@pytest.fixture
def kafka_broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(tmp_path)
    yield broker
    broker.close()


class Running:
    """A worker in a thread."""

    def __init__(self, folder: Path, servers: str, **options: Any) -> None:
        self.stop = threading.Event()
        self.code: int | None = None
        self.folder = folder / "streams"
        declared = views(folder / "views", servers=servers)
        uri = f"sqlite:///{folder}/online.db"
        self.worker = FeatureWorker(
            Lake(str(folder / "lake")), declared, lambda: open_online_store(uri), self.folder, **options
        )
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.code = self.worker.run(self.stop)

    def end(self) -> int | None:
        self.stop.set()
        self._thread.join(PATIENCE)
        return self.code


def test_online_values_follow_a_topic_and_the_status_says_how(tmp_path, kafka_broker, sales):
    declared = views(tmp_path / "views", servers=kafka_broker.servers)
    till = next(view for view in declared if view.name == "till")
    sales.send(random.Random(1), 300)
    running = Running(tmp_path, kafka_broker.servers)
    with open_online_store(f"sqlite:///{tmp_path}/online.db") as store:
        try:
            wait_for(lambda: all_as_wanted(store, till, sales, datetime.now(UTC)), "the values of 300 sales")
            sales.send(random.Random(2), 50)
            wait_for(lambda: all_as_wanted(store, till, sales, datetime.now(UTC)), "the values of 50 more")
            later = datetime.now(UTC) + timedelta(seconds=200)
            row = look_up(store, till, "a", at=later)
            assert row is not None
            assert row.values["sales_2m"] == 0
            status = wait_for(lambda: status_with(running.folder, events=len(sales.sent)), "the status")
            assert status.problem() is None
            assert status.refused == sales.broken
            assert status.too_late == sum(arrived - at > 30_000 for _, _, at, arrived, _, _ in sales.sent)
            assert status.watermark is not None
        finally:
            code = running.end()
    assert code == STOPPED
    status = read_status(running.folder, "raw/sales")
    assert status is not None
    assert (status.state, status.landed) == ("stopped", len(sales.sent))


def status_with(folder: Path, *, events: int) -> Any:
    status = read_status(folder, "raw/sales")
    return status if status is not None and status.events == events and status.state == "running" else None


def all_as_wanted(store: OnlineStore, till: FeatureView, sales: Sales, at: datetime) -> bool:
    rows = {shop: look_up(store, till, shop, at=at) for shop in "abc"}
    return all(row is not None and row.values == sales.till(shop, at) for shop, row in rows.items())


def test_a_broker_that_is_down_at_the_start_is_waited_for(tmp_path):
    class Away:
        def partitions(self) -> Any:
            raise StreamUnavailable("no broker at 127.0.0.1:9")

        def close(self) -> None: ...

    running = Running(tmp_path, "127.0.0.1:9", source=lambda _: Away())
    try:
        status = wait_for(lambda: (s := read_status(running.folder, "raw/sales")) and s.state == "waiting" and s, "it")
        assert "no broker at 127.0.0.1:9" in (status.problem() or "")
    finally:
        assert running.end() == STOPPED


def test_what_a_person_has_to_mend_ends_it(tmp_path):
    class Wrong:
        def partitions(self) -> Any:
            raise StreamMisfit("there is no topic sales")

        def close(self) -> None: ...

    running = Running(tmp_path, "127.0.0.1:9", source=lambda _: Wrong())
    wait_for(lambda: running.code is not None, "the end")
    assert running.code == FAILED
    assert "there is no topic" in (read_status(running.folder, "raw/sales").problem() or "")  # type: ignore[union-attr]


def test_a_second_process_ends_and_leaves_the_first_one_s_status(tmp_path, kafka_broker, sales):
    first = Running(tmp_path, kafka_broker.servers)
    try:
        wait_for(lambda: status_with(first.folder, events=0), "the first one")
        second = Running(tmp_path, kafka_broker.servers)
        wait_for(lambda: second.code is not None, "the end of the second")
        assert second.code == FENCED
        assert read_status(first.folder, "raw/sales").state == "running"  # type: ignore[union-attr]
    finally:
        assert first.end() == STOPPED


def test_while_the_lake_takes_no_rows_online_values_go_on(tmp_path, kafka_broker, sales, monkeypatch):
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    declared = views(tmp_path / "views", servers=kafka_broker.servers)
    till = next(view for view in declared if view.name == "till")
    running = Running(tmp_path, kafka_broker.servers)
    with open_online_store(f"sqlite:///{tmp_path}/online.db") as store:
        try:
            wait_for(lambda: status_with(running.folder, events=0), "the start")
            with monkeypatch.context() as patched:
                patched.setattr(Lake, "write", full)
                sales.send(random.Random(1), 100)
                wait_for(lambda: all_as_wanted(store, till, sales, datetime.now(UTC)), "the values")
                status = wait_for(
                    lambda: (s := status_with(running.folder, events=len(sales.sent))) and s.landing_error and s, "it"
                )
                assert "bytes wait for raw/sales: OSError: [Errno 28] No space" in status.problem()
                assert status.landed == 0
        finally:
            code = running.end()
    assert code == STOPPED
    assert read_status(running.folder, "raw/sales").landed == len(sales.sent)  # type: ignore[union-attr]


def start(folder: Path, servers: str) -> "subprocess.Popen[bytes]":
    arguments = [str(folder), servers, f"sqlite:///{folder}/online.db"]
    script = Path(__file__).parent / "run_worker.py"
    with open(folder / "worker.log", "ab") as log:
        return subprocess.Popen([sys.executable, str(script), *arguments], stdout=log, stderr=log, env=os.environ)


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_doubled_or_wrong(tmp_path, kafka_broker, sales):
    """SIGKILL at random instants; between them, online values and in the end both tables are those of brute force."""
    chance, kills = random.Random(20), 0
    declared = views(tmp_path / "views", servers=kafka_broker.servers)
    till = next(view for view in declared if view.name == "till")
    process = start(tmp_path, kafka_broker.servers)
    store = open_online_store(f"sqlite:///{tmp_path}/online.db")
    compared = 0
    try:
        while kills < KILLS:
            sales.send(chance, chance.randint(1, 400))
            time.sleep(chance.uniform(0.0, 2.5))  # when it is killed decides no result
            if kills % 4 == 3:
                wait_for(lambda: all_as_wanted(store, till, sales, datetime.now(UTC)), f"values after kill {kills}")
                for seconds in (0, 200):  # now, and when all windows are empty because nothing else came
                    assert all_as_wanted(store, till, sales, datetime.now(UTC) + timedelta(seconds=seconds))
                    compared += 1
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            process = start(tmp_path, kafka_broker.servers)
        wait_for(lambda: all_as_wanted(store, till, sales, datetime.now(UTC)), "the values in the end")
        folder, pid = tmp_path / "streams", process.pid
        wait_for(
            lambda: (s := read_status(folder, "raw/sales")) is not None and (s.pid, s.state) == (pid, "running"), "it"
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == STOPPED
    finally:
        process.kill()
        process.wait()
        store.close()
    assert compared == 2 * (KILLS // 4)
    lake = Lake(str(tmp_path / "lake"))
    rows = lake.read("raw/sales").collect()
    assert rows.select("__partition", "__position").is_duplicated().sum() == 0
    landed = rows.select("shop", "clerk", pl.col("sold_at").dt.epoch("ms"), pl.col("__arrived_at").dt.epoch("ms"))
    assert sorted(landed.rows(), key=str) == sorted(((*one[:2], *one[2:4]) for one in sales.sent), key=str)
    refused = lake.read(quarantine_of("raw/sales")).collect()
    assert refused.height == sales.broken
    assert refused.select("__partition", "__position").is_duplicated().sum() == 0
    compute_view(lake, till)
    table = lake.read(till.table).collect()
    for row in table.sample(min(200, table.height), seed=1, shuffle=True).to_dicts():
        at, shop = row.pop("event_time"), row.pop("shop")
        assert row == sales.till(shop, at)
