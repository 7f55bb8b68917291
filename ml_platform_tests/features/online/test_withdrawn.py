"""What the source does not have any more leaves the online store too, and what was pushed stays."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.features.incremental_spec import Incremental
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.publish import publish_view
from ml_platform.features.online.push_log import Pushed, stream
from ml_platform.features.online.pushed_rows import ingest_pushed, pushed_table, read_view
from ml_platform.features.online.store import Mark, OnlineStore, Overtaken, PushedRow
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.recorded_definitions import ViewChanged
from ml_platform.features.views.view import FeatureColumn, FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.segment_log.segments import SegmentLog
from ml_platform.settings import Settings

NOON = datetime(2024, 1, 10, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FAR = datetime(2062, 1, 1, tzinfo=UTC)
SQL = "SELECT k, t AS event_time, v FROM raw.e"
UTC_TIME = pl.Datetime("us", "UTC")


@pytest.fixture(params=["sqlite", "redis"])
def uri(request: pytest.FixtureRequest, settings: Settings) -> str:
    return str(request.getfixturevalue("redis_uri")) if request.param == "redis" else settings.online_uri


class World:
    """A view, its source, the lake and the online store."""

    def __init__(self, lake: Lake, settings: Settings, store: OnlineStore) -> None:
        self.lake, self.settings, self.store = lake, settings, store
        self.view = self.declared()

    @staticmethod
    def declared(**changes: Any) -> FeatureView:
        columns = {"v": FeatureColumn(type="number", description="Value.")}
        said = {"name": "vv", "description": "d", "owner": "a@b.c", "entity": ("k",), "columns": columns, "sql": SQL}
        return FeatureView.model_validate({**said, **changes})

    def source(self, *rows: tuple[str, datetime, float]) -> int:
        schema = {"k": pl.String(), "t": UTC_TIME, "v": pl.Float64()}
        return self.lake.replace("raw/e", pl.DataFrame(rows, schema=schema, orient="row"))

    def compute(self, *rows: tuple[str, datetime, float]) -> None:
        self.source(*rows)
        compute_view(self.lake, self.view)

    def publish(self) -> int:
        return publish_view(self.lake, self.view, self.store, push_log=self.settings.push_log_dir).changed

    def log(self, *rows: tuple[str, datetime, float]) -> None:
        """Log a push as serving does before it writes to the store."""
        log = SegmentLog(self.settings.push_log_dir, "push log")
        types = {"k": "string", "event_time": "timestamp", "v": "number"}
        sent = [(k, int(at.timestamp() * 1_000_000), v) for k, at, v in rows]
        record = Pushed(
            request_id="r", view=self.view.name, view_hash=self.view.hash, time=datetime.now(UTC), caller=None,
            types=types, rows=sent,
        )  # fmt: skip
        log.append(stream(self.view.name, self.view.hash), [record])
        log.close()

    def push(self, *rows: tuple[str, datetime, float]) -> None:
        self.log(*rows)
        self.store.push(self.view.name, self.view.hash, [PushedRow((k,), at, (v,)) for k, at, v in rows])

    def ingest(self) -> None:
        ingest_pushed(self.lake, self.settings.push_log_dir, self.view.name)

    def online(self, *keys: str) -> list[float | None]:
        rows = self.store.read([(self.view.name, (key,)) for key in keys])
        return [row.values["v"] if row else None for row in rows]

    def offline(self, *keys: str) -> list[float | None]:
        """Newest value of each entity as every reader of the lake sees it."""
        rows = read_view(self.lake, self.view).sort("event_time").collect()
        newest = dict(rows.select("k", "v").iter_rows())
        return [newest.get(key) for key in keys]


@pytest.fixture
def world(lake: Lake, settings: Settings, uri: str) -> Iterator[World]:
    with open_online_store(uri) as store:
        yield World(lake, settings, store)


@pytest.mark.parametrize("incremental", [False, True])
def test_a_withdrawn_row_and_a_withdrawn_entity_are_not_served_on(world: World, incremental: bool) -> None:
    if incremental:
        world.view = world.declared(
            incremental=Incremental.model_validate({"look_back": HOUR, "times": {"raw/e": "t"}})
        )
    world.compute(("a", NOON, 1.0), ("a", NOON - DAY, 9.0), ("b", NOON, 2.0), ("c", NOON - DAY, 3.0))
    assert world.publish() == 3
    world.compute(("a", NOON - DAY, 9.0), ("c", NOON - DAY, 3.0))
    assert world.publish() == 2
    assert world.online("a", "b", "c") == [9.0, None, 3.0]
    assert world.store.newest("vv") == NOON - DAY
    assert world.publish() == 0
    world.compute(("b", NOON - 2 * DAY, 4.0))  # gone, and back with an older row
    assert world.publish() == 3
    assert world.online("a", "b", "c") == [None, 4.0, None]
    world.compute()
    assert world.publish() == 1
    assert (world.online("a", "b", "c"), world.store.newest("vv")) == ([None] * 3, None)


def test_a_row_of_the_far_future_does_not_stay_when_it_is_corrected(world: World) -> None:
    world.compute(("a", FAR, 1.0), ("b", NOON, 2.0))
    world.publish()
    world.push(("a", NOON, 5.0))  # accepted, and older than what the store has
    assert world.online("a") == [1.0]
    world.compute(("a", NOON - HOUR, 1.0), ("b", NOON, 2.0))
    world.publish()
    assert world.online("a", "b") == [5.0, 2.0]
    assert world.store.newest("vv") == NOON


def test_a_restored_version_of_the_table_is_what_is_served(world: World) -> None:
    world.compute(("a", NOON, 1.0))
    world.publish()
    first = world.lake.version(world.view.table)
    world.compute(("a", NOON + DAY, 2.0), ("b", NOON, 3.0))
    world.publish()
    world.lake.restore(world.view.table, first)
    world.publish()
    assert world.online("a", "b") == [1.0, None]


def test_a_restored_version_of_another_definition_is_not_served(world: World) -> None:
    world.compute(("a", NOON, 1.0))
    first, old = world.lake.version(world.view.table), world.view
    world.view = world.declared(sql=SQL.replace("v FROM", "10 * v AS v FROM"))
    compute_view(world.lake, world.view)
    world.publish()
    world.lake.restore(world.view.table, first)
    with pytest.raises(ViewChanged, match="materialise features/vv again"):
        world.publish()
    world.view = old
    world.publish()
    assert world.online("a") == [1.0]


def test_publishing_undoes_no_push_of_the_same_instant(world: World) -> None:
    world.compute(("a", NOON, 1.0), ("b", NOON, 2.0))
    world.publish()
    world.push(("a", NOON, 5.0), ("new", NOON, 6.0))
    for step in (world.publish, world.ingest, world.publish, world.publish):
        step()
        assert world.online("a", "b", "new") == [5.0, 2.0, 6.0]
    world.compute(("a", NOON, 7.0), ("b", NOON, 2.0))  # computed again, with another value
    world.publish()
    assert world.online("a", "b", "new") == world.offline("a", "b", "new") == [5.0, 2.0, 6.0]
    world.compute(("a", NOON + HOUR, 8.0))
    world.publish()
    assert world.online("a", "b", "new") == world.offline("a", "b", "new") == [8.0, None, 6.0]


def test_a_pushed_row_withdrawn_from_the_lake_leaves_the_store(world: World) -> None:
    world.compute(("a", NOON, 1.0))
    world.publish()
    world.push(("a", NOON + HOUR, 5.0), ("b", NOON, 6.0))
    world.ingest()
    world.lake.replace(pushed_table(world.view), world.lake.read(pushed_table(world.view)).collect().clear())
    world.publish()
    assert world.online("a", "b") == world.offline("a", "b") == [1.0, None]


def test_without_the_log_a_push_stays_until_the_lake_has_had_it(world: World) -> None:
    world.compute(("a", NOON, 1.0), ("c", NOON, 3.0))
    world.publish()
    world.push(("a", NOON + HOUR, 5.0), ("b", NOON, 6.0), ("c", NOON, 7.0))
    world.compute(("a", NOON, 1.0), ("c", NOON, 4.0))
    publish_view(world.lake, world.view, world.store)
    assert world.online("a", "b", "c") == [5.0, 6.0, 7.0]
    world.ingest()
    publish_view(world.lake, world.view, world.store)
    world.lake.replace(pushed_table(world.view), world.lake.read(pushed_table(world.view)).collect().clear())
    publish_view(world.lake, world.view, world.store)
    assert world.online("a", "b", "c") == [1.0, None, 4.0]


def test_a_push_during_publishing_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.compute(("a", NOON, 1.0), ("b", NOON, 2.0), ("c", NOON, 3.0))
    world.publish()
    world.compute(("a", NOON, 1.5), ("b", NOON + DAY, 2.5))
    versions = world.lake.versions

    def pushed_meanwhile(*arguments: Any, **more: Any) -> dict[str, int]:
        read = versions(*arguments, **more)
        world.push(("a", NOON, 5.0), ("b", NOON, 6.0), ("c", NOON + HOUR, 7.0), ("d", NOON, 8.0))
        return read

    monkeypatch.setattr(world.lake, "versions", pushed_meanwhile)
    world.publish()
    monkeypatch.undo()
    expected = [5.0, 2.5, 7.0, 8.0]
    assert world.online(*"abcd") == expected
    assert world.store.newest("vv") == NOON + DAY
    for step in (world.publish, world.ingest, world.publish):
        step()
        assert world.online(*"abcd") == expected
    assert world.offline(*"abcd") == expected


def test_a_push_that_was_logged_but_not_stored_is_published(world: World) -> None:
    """The server was killed between the two."""
    world.compute(("a", NOON, 1.0))
    world.publish()
    world.log(("a", NOON + HOUR, 5.0))
    world.publish()
    assert world.online("a") == [5.0]


def test_a_publisher_that_was_overtaken_writes_nothing(world: World) -> None:
    world.compute(("a", NOON, 1.0))
    world.publish()
    mark = world.store.mark("vv")
    frame = pl.DataFrame({"k": ["a"], "event_time": [NOON], "v": [1.0]}, schema_overrides={"event_time": UTC_TIME})
    world.compute(("a", NOON, 2.0), ("b", NOON, 3.0))
    world.publish()
    with pytest.raises(Overtaken, match="publish again"):
        world.store.write("vv", ("k",), frame, view_hash=world.view.hash, whole_since=mark)
    assert world.online("a", "b") == [2.0, 3.0]


def test_publishing_begins_anew_when_it_was_overtaken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.compute(("a", NOON, 1.0))
    versions, times = world.lake.versions, iter(range(9))

    def overtaken_once(*arguments: Any, **more: Any) -> dict[str, int]:
        read = versions(*arguments, **more)
        if next(times) == 0:
            world.compute(("a", NOON, 2.0), ("b", NOON, 3.0))
            monkeypatch.setattr(world.lake, "versions", versions)
            world.publish()
        return read

    monkeypatch.setattr(world.lake, "versions", overtaken_once)
    world.publish()
    assert world.online("a", "b") == [2.0, 3.0]


def test_a_new_definition_takes_the_place_of_pushed_and_computed_rows(world: World) -> None:
    world.compute(("a", NOON, 1.0), ("b", NOON, 2.0))
    world.publish()
    world.push(("a", FAR, 5.0), ("z", NOON, 5.0))
    world.view = world.declared(sql=SQL + " WHERE v > 1")
    compute_view(world.lake, world.view)
    world.publish()
    assert world.online("a", "b", "z") == [None, 2.0, None]
    assert world.store.newest("vv") == NOON


def test_many_entities_leave_and_others_stay(world: World) -> None:
    world.compute(*((f"k{n}", NOON, float(n)) for n in range(5000)))
    assert world.publish() == 5000
    other = world.store.write("vvv", ("k",), pl.DataFrame({"k": ["k1"], "event_time": [NOON], "v": [1.0]}))
    world.compute(*((f"k{n}", NOON, float(n)) for n in range(0, 5000, 2)))
    assert (world.publish(), other) == (2500, 1)
    assert world.online("k0", "k1", "k4998", "k4999") == [0.0, None, 4998.0, None]
    assert [row and row.values for row in world.store.read([("vvv", ("k1",))])] == [{"v": 1.0}]


def test_a_mark_counts_publications_and_pushes(world: World) -> None:
    assert world.store.mark("vv") == Mark(0, 0)
    world.compute(("a", NOON, 1.0))
    world.publish()
    world.push(("a", NOON, 2.0))
    world.push(("a", NOON, 3.0))
    assert world.store.mark("vv") == Mark(1, 2)
    assert world.store.mark("other") == Mark(0, 0)


PUBLISH = """
import os, signal, sys
from pathlib import Path
import polars as pl
from ml_platform.features.online import packing
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.publish import publish_view
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
settings = Settings(home=Path(sys.argv[1]))
view = FeatureView.model_validate_json(sys.argv[3])
parts = packing.PackedRows.parts
def killed(self, *prefix):
    for number, part in enumerate(parts(self, *prefix)):
        yield part
        os.kill(os.getpid(), signal.SIGKILL)
packing.PackedRows.parts = killed
with open_online_store(sys.argv[2]) as store:
    publish_view(Lake(settings.lake_uri), view, store, push_log=settings.push_log_dir)
"""


def test_a_publisher_killed_with_9_is_healed_by_the_next(world: World, uri: str) -> None:
    world.compute(("a", NOON, 1.0), ("b", NOON, 2.0))
    world.publish()
    world.compute(("b", NOON - DAY, 3.0))  # the table is committed, and then the publisher is killed
    command = [sys.executable, "-c", PUBLISH, str(world.settings.home), uri, world.view.model_dump_json()]
    killed = subprocess.run(command, check=False, cwd=Path(__file__).parents[3], env=dict(os.environ))
    assert killed.returncode == -signal.SIGKILL
    world.publish()
    assert world.online("a", "b") == [None, 3.0]
