"""A stream's events: online at once, in the raw table once, and everywhere what the batch engine computes."""

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import OnlineStore, PushedRow
from ml_platform.features.point_in_time.join import point_in_time_join
from ml_platform.features.point_in_time.lookup import ResolvedLookup
from ml_platform.features.streaming.feature_stream import FeatureStream
from ml_platform.features.streaming.tables import streamed_tables
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.streams.protocols import Fenced, Message
from ml_platform_tests.features.streaming.till_views import SECOND, START, Clock, look_up, sale, views


class World:
    """A lake, an online store, and a stream that can be opened again and again."""

    def __init__(self, folder: Path, uri: str, **options: Any) -> None:
        self.lake = Lake(str(folder / "lake"))
        self.store: OnlineStore = open_online_store(uri)
        self.views = views(folder / "views", **options)
        self.till = next(view for view in self.views if view.name == "till")
        self.folder = folder / "streams"
        self.clock = Clock()

    def open(self, **options: Any) -> FeatureStream:
        return FeatureStream(self.lake, self.views, self.store, self.folder, clock=self.clock, **options)

    def at(self, second: float, *key: Any) -> dict[str, Any]:
        row = look_up(self.store, self.till, *(key or ("a",)), at=START + SECOND * second)
        assert row is not None
        return row.values


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, f"sqlite:///{tmp_path}/online.db")


def sales(number: int, seed: int = 3) -> list[Message]:
    """Sales of two minutes in two partitions, some late, some too late, some broken, some void."""
    chance = random.Random(seed)
    messages = []
    places = [0, 0]
    for _ in range(number):
        partition = chance.randrange(2)
        place = places[partition] = places[partition] + chance.randint(1, 2)  # gaps are allowed
        if chance.random() < 0.03:
            messages.append(Message(partition, place, b"no sale", None, 0))
            continue
        arrival = len(messages) * 120 / number
        delay = chance.choice([0, 0, 0, 0.5, 5, 29, 31, 300])
        message = sale(
            place,
            arrival - delay,
            delay=delay,
            partition=partition,
            shop=chance.choice("abc"),
            amount=chance.choice([None, round(chance.uniform(0, 99), 2)]),
            clerk=chance.choice(["x", "y", None]),
            status=chance.choice(["ok", "ok", "void", None]),
        )
        messages.append(message)
    return messages


def test_a_count_falls_to_zero_by_itself(world):
    with world.open() as stream:
        for place in range(3):
            world.clock.set(place)
            stream.take([sale(place, place)])
            stream.pass_time()
    assert world.at(2)["sales_10s"] == 3
    assert (world.at(10)["sales_10s"], world.at(11.5)["sales_10s"], world.at(12)["sales_10s"]) == (2, 1, 0)
    assert (world.at(12)["sales_2m"], world.at(121)["sales_2m"], world.at(9999)["sales_2m"]) == (3, 1, 0)
    assert world.at(9999)["last_clerk_2m"] is None
    row = look_up(world.store, world.till, "a", at=START + SECOND * 9999)
    assert row is not None
    assert row.event_time == START + SECOND * 122


def test_a_late_event_is_corrected_and_one_that_is_too_late_is_kept_but_does_not_count(world):
    with world.open() as stream:
        world.clock.set(60)
        stream.take([sale(0, 59), sale(1, 35, delay=25), sale(2, 29, delay=31, amount=7.0)])
        stream.land()
        assert (stream.counts.late, stream.counts.too_late, stream.counts.events) == (1, 1, 3)
    assert (world.at(60)["sales_10s"], world.at(60)["sales_2m"], world.at(60)["revenue_2m"]) == (1, 2, 2.5)
    kept = world.lake.read("raw/sales").sort("sold_at").collect()
    assert kept["__too_late"].to_list() == [True, False, False]
    assert kept["amount"].to_list() == [7.0, 1.25, 1.25]


def test_an_event_ahead_of_its_time_waits_and_one_far_ahead_is_refused(world):
    with world.open() as stream:
        world.clock.set(5)
        stream.take([sale(0, 3), sale(1, 8, delay=-3), sale(2, 70, delay=-65)])
        assert world.at(5)["sales_2m"] == 1
        stream.pass_time()
        assert world.at(5)["sales_2m"] == 1
        assert stream.counts.refused == 1
    with world.open() as stream:  # it waits across a restart, too
        world.clock.set(8)
        stream.pass_time()
    assert world.at(8)["sales_2m"] == 2


def twice(message: Message) -> Message:
    """The message with two shops."""
    assert message.value is not None
    return msgspec.structs.replace(message, value=b'{"shop": "b", ' + message.value[1:])


def test_messages_that_are_no_events_are_quarantined_and_stop_nothing(world):
    wrong = [
        Message(0, 0, b"{", None, 0),
        Message(0, 1, None, None, 0),
        Message(0, 2, b"\xff\xfe", None, 0),
        sale(3, 1, amount="many"),
        sale(4, 1, sold_at=None),
        sale(5, 1, sold_at="2024-05-01T12:00:00"),
        sale(6, 1, amount=1e300),
        sale(7, 1, shop=7),
        Message(0, 8, b"[" * 100_000, None, 0),
        Message(0, 9, b'{"shop": "a"}', None, 0),
        twice(sale(10, 1)),
    ]
    with world.open() as stream:
        world.clock.set(2)
        stream.take([*wrong, sale(11, 1)])
        stream.land()
        assert (stream.counts.refused, stream.counts.events) == (11, 1)
    assert world.at(2)["sales_2m"] == 1
    rejected = world.lake.read(quarantine(world)).sort("source_row").collect()
    assert rejected["source_row"].to_list() == list(range(11))
    assert "too large for a sum" in rejected["reasons"][6][0]
    assert rejected["reasons"][10].to_list() == ["shop: appears twice"]


def test_a_filter_that_fails_on_one_event_refuses_that_one(tmp_path):
    world = World(tmp_path, f"sqlite:///{tmp_path}/online.db", names=["till"])
    text = (tmp_path / "views" / "till.yaml").read_text().replace("status <> 'void'", "status::INTEGER > 0")
    (tmp_path / "views" / "till.yaml").write_text(text)
    world.views = [world.till] = [next(iter(views_again(tmp_path)))]
    with world.open() as stream:
        world.clock.set(9)
        stream.take([sale(place, place, status=status) for place, status in enumerate(["1", "2", "no", "0", "4"])])
        assert (stream.counts.events, stream.counts.refused) == (4, 1)
    assert world.at(9)["sales_2m"] == 3


def views_again(tmp_path: Path) -> list[FeatureView]:
    from ml_platform.features.views.load import load_views

    return list(load_views(tmp_path / "views").values())


def offline(world: World, view: FeatureView, at: list[datetime], keys: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """What training looks up at instants."""
    rows = world.lake.read(view.table)
    spine = pl.LazyFrame(
        {"at": at, **{name: [key[place] for key in keys] for place, name in enumerate(view.entity)}},
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    lookup = ResolvedLookup(view.name, rows, {name: name for name in view.entity}, tuple(view.columns), ttl=view.ttl)
    joined = point_in_time_join(spine, [lookup], timestamp="at").collect()
    names = {f"{view.name}__{name}": name for name in view.columns}
    return joined.select(list(names)).rename(names).to_dicts()


def compute_to_the_end(world: World) -> None:
    """Compute the views from the raw table, with an event long after all others, which ends nothing."""
    end = world.lake.read("raw/sales").head(1).with_columns(
        pl.lit(START + SECOND * 5000).cast(pl.Datetime("us", "UTC")).alias("sold_at"),
        pl.lit("end").alias("shop"), pl.lit(None, pl.Datetime("us", "UTC")).alias("__arrived_at"),
    )  # fmt: skip
    world.lake.append("raw/sales", end)
    for view in world.views:
        compute_view(world.lake, view)


@pytest.mark.parametrize(("held", "kind"), [(500_000, "sqlite"), (20, "sqlite"), (500_000, "redis")])
def test_online_at_any_instant_is_what_training_looks_up(tmp_path, request, held, kind):
    """At random instants, with and without further events, after restarts, with more entities than fit in memory."""
    uri = f"sqlite:///{tmp_path}/online.db" if kind == "sqlite" else request.getfixturevalue("redis_uri")
    world, chance = World(tmp_path, uri), random.Random(8)
    messages, observed = sales(400), []
    stream = world.open(held=held)
    place, second = 0, 0.0
    while place < len(messages):
        second += chance.choice([0.05, 0.7, 3.0])
        world.clock.set(second)
        number = place
        while number < len(messages) and messages[number].time <= world.clock() * 1e6:
            number += 1
        if number > place:
            stream.take(messages[place:number])
            place = number
        stream.pass_time()
        if chance.random() < 0.1:
            stream.close()
            stream = world.open(held=held)
        for view in world.views:
            key = (chance.choice("abc"), *(["x"] if len(view.entity) > 1 else []))
            row = look_up(world.store, view, *key, at=world.clock.now)
            observed.append((view, world.clock.now, key, row))
    stream.land()
    stream.close()
    compute_to_the_end(world)
    assert sum(row is not None for *_, row in observed) > 100
    for view in world.views:
        own = [one for one in observed if one[0] is view]
        wanted = offline(world, view, [at for _, at, _, _ in own], [key for _, _, key, _ in own])
        for (_, _, _, row), values in zip(own, wanted, strict=True):
            assert (row.values if row is not None else dict.fromkeys(view.columns)) == values


def test_every_message_is_in_the_raw_table_or_its_quarantine_once(world):
    messages = sales(300)
    chance = random.Random(1)
    stream, place = world.open(), 0
    while place < len(messages):
        number = place + chance.randint(1, 40)
        again = max(place - 5, 0)  # some are delivered again
        world.clock.set(messages[min(number, len(messages)) - 1].time / 1e6 - START.timestamp())
        stream.take(messages[again:number])
        place = number
        if chance.random() < 0.3:
            stream.land()
        if chance.random() < 0.3:
            stream.close()
            stream = world.open()
    stream.land()
    stream.close()
    rows = world.lake.read("raw/sales").select("__partition", "__position").collect().rows()
    refused = world.lake.read(quarantine(world)).select("__partition", "__position").collect().rows()
    assert sorted([*rows, *refused]) == sorted((one.partition, one.position) for one in messages)
    assert refused


def quarantine(world: World) -> str:
    from ml_platform.lake.ingestion.ingest import quarantine_of

    return quarantine_of("raw/sales")


TILL_A = 6  # place of the shop `a` of the view `till` in a snapshot


def snapshot(world: World, second: float) -> list[Any]:
    rows = [
        look_up(world.store, view, *key, at=START + SECOND * second)
        for view in world.views
        for shop in "abc"
        for key in ([(shop,)] if len(view.entity) == 1 else [(shop, "x"), (shop, "y")])
    ]
    return [row and (row.micros, row.values) for row in rows]


@pytest.mark.parametrize("lost", ["state", "online", "definition"])
def test_what_is_lost_is_made_again_from_the_raw_table(world, tmp_path, lost):
    messages = sales(200)
    world.clock.set(121)
    with world.open() as stream:
        stream.take(messages)
        stream.land()
        before = [snapshot(world, second) for second in (121, 130, 200, 400)]
        positions = stream.positions()
    if lost == "state":
        for path in world.folder.glob("*"):
            path.unlink()
    elif lost == "online":
        world.store.close()
        world.store = open_online_store(f"sqlite:///{tmp_path}/other.db")
    else:  # the same values under another definition
        for name in ("till", "clerk_load"):
            path = tmp_path / "views" / f"{name}.yaml"
            path.write_text(path.read_text().replace("[shop", "[ shop").replace("unit: EUR", "unit: USD"))
        world.views = views_again(tmp_path)
        world.till = next(view for view in world.views if view.name == "till")
    with world.open() as stream:
        assert stream.positions() == positions
        assert [snapshot(world, second) for second in (121, 130, 200, 400)] == before
        stream.take([sale(9999, 120.5)])
        assert world.at(121)["sales_10s"] == before[0][TILL_A][1]["sales_10s"] + 1


def test_a_restored_raw_table_gets_again_what_it_lacks(world):
    messages = sales(100)
    world.clock.set(121)
    with world.open() as stream:
        stream.take(messages[:50])
        stream.land()
        version = world.lake.version("raw/sales")
        stream.take(messages[50:])
        stream.land()
        after = snapshot(world, 121)
        number = world.lake.read("raw/sales").collect().height
    world.lake.restore("raw/sales", version)
    with world.open() as stream:
        resume = stream.positions()
        stream.take([one for one in messages if one.position > resume[one.partition].after])
        stream.land()
    assert world.lake.read("raw/sales").collect().height == number
    assert snapshot(world, 121) == after


def test_a_second_process_is_kept_out(world):
    with world.open(), pytest.raises(Fenced, match="another process keeps the streamed views of raw/sales"):
        world.open()
    world.open().close()


def test_recorded_events_are_played_again_by_their_own_clock(tmp_path):
    world = World(tmp_path, f"sqlite:///{tmp_path}/online.db", clock="events", names=["till"])
    world.clock.set(10_000_000)
    with world.open() as stream:
        stream.take([sale(0, 10, delay=5000), sale(1, 50, delay=5000), sale(2, 25, delay=5000), sale(3, 15, delay=9)])
        stream.pass_time()
        assert (stream.counts.events, stream.counts.late, stream.counts.too_late) == (4, 1, 1)
        stream.land()
    assert (world.at(50)["sales_2m"], world.at(135)["sales_2m"]) == (3, 2)
    arrived = world.lake.read("raw/sales").sort("__position").collect()["__arrived_at"].to_list()
    assert arrived == [START + SECOND * second for second in (10, 50, 50, 50)]


def test_a_pushed_row_counts_until_the_stream_has_a_later_change(world):
    with world.open() as stream:
        world.clock.set(5)
        stream.take([sale(0, 5)])
        stream.land()
        compute_view(world.lake, world.till)
        from ml_platform.features.online.publish import publish_view

        publish_view(world.lake, world.till, world.store)
        values = tuple(40 if name == "sales_10s" else None for name in world.till.columns)
        world.store.push("till", world.till.hash, [PushedRow(("a",), START + SECOND * 7, values)])
        assert (world.at(6)["sales_10s"], world.at(7)["sales_10s"], world.at(14)["sales_10s"]) == (40, 40, 40)
        assert world.at(15)["sales_10s"] == 0  # the sale left the window: a later change than the push
        world.clock.set(8)
        stream.take([sale(1, 8)])
        assert world.at(8)["sales_10s"] == 2
        world.store.push("till", world.till.hash, [PushedRow(("a",), START + SECOND * 8, values)])
        assert world.at(8)["sales_10s"] == 40  # at equal times the pushed one, as in training


def test_views_of_one_table_must_declare_the_same_stream(tmp_path):
    first, second = views(tmp_path / "views")
    assert streamed_tables({"a": first, "b": second}) == {"raw/sales": [first, second]}
    assert second.stream is not None
    other = second.model_copy(update={"stream": second.stream.model_copy(update={"lateness": SECOND})})
    with pytest.raises(ValueError, match="'clerk_load' and 'till': both get raw/sales from a stream"):
        streamed_tables({"a": first, "b": other})


def test_days_that_changed_are_computed_as_all_would_be(tmp_path):
    """An incremental view after each landing, late events and all, is in the end as if it were computed at once."""
    world = World(tmp_path, f"sqlite:///{tmp_path}/online.db", names=["till"])
    path = tmp_path / "views" / "till.yaml"
    path.write_text(
        path.read_text().replace("  windows:", "  incremental: true\n  windows:").replace("2 minutes", "3 days")
    )
    [world.till] = world.views = views_again(tmp_path)
    chance, place = random.Random(4), 0
    hours = sorted(chance.uniform(0, 200) for _ in range(150))
    messages = []
    for number, hour in enumerate(hours):
        delay = chance.choice([0, 0, 5, 29])
        messages.append(sale(number, hour * 3600 - delay, delay=delay, shop=chance.choice("ab"), amount=number / 4))
    with world.open() as stream:
        while place < len(messages):
            some = messages[place : place + chance.randint(1, 40)]
            place += len(some)
            world.clock.now = datetime.fromtimestamp(some[-1].time / 1e6, UTC)
            stream.take(some)
            stream.land()
            report = compute_view(world.lake, world.till)
    assert report.spans is not None  # not all was computed
    whole = world.till.model_copy(update={"incremental": None, "name": "whole"})
    compute_view(world.lake, whole)
    columns = [*world.till.keys, *world.till.columns]
    tables = [
        world.lake.read(one.table).select(columns).sort("event_time", "shop").collect() for one in (world.till, whole)
    ]
    assert tables[0].height > 300
    assert tables[0].equals(tables[1])
