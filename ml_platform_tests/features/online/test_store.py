"""The online store: newest values, never back in time, one writer beside many readers."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest
import redis

from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.publish import latest_rows, publish_view
from ml_platform.features.online.store import (
    Definition,
    DefinitionChanged,
    OnlineStore,
    PushedRow,
    Row,
    ViewSchema,
    to_micros,
)
from ml_platform.features.views.view import FeatureColumn, FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Input

NOON = datetime(2013, 7, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def rows(*items: tuple[str | None, datetime, float | None]) -> pl.DataFrame:
    return pl.DataFrame(
        items, schema={"origin": pl.String, "event_time": pl.Datetime("us", "UTC"), "temp": pl.Float64}, orient="row"
    )


@pytest.fixture(params=["sqlite", "redis"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_uri"))
    return f"sqlite:///{tmp_path / 'state' / 'online.db'}"


@pytest.fixture
def store(uri: str):
    with open_online_store(uri) as opened:
        yield opened


def temp(store: OnlineStore, origin: str) -> float | None:
    (row,) = store.read([("weather", (origin,))])
    return None if row is None else row.values["temp"]


def test_what_was_written_is_read_with_its_time_and_types(store: OnlineStore):
    at = NOON + timedelta(microseconds=1)
    frame = pl.DataFrame(
        [("UA", 15, at, 0.25, 3, True, "ü", None)],
        schema={"carrier": pl.String, "flight": pl.Int64, "event_time": pl.Datetime("us", "UTC"), "share": pl.Float64,
                "n": pl.Int64, "late": pl.Boolean, "note": pl.String, "gap": pl.Float64},
        orient="row",
    )  # fmt: skip
    store.write("flights", ("carrier", "flight"), frame)
    assert store.read([("flights", ("UA", 15))]) == [
        Row(to_micros(at), {"share": 0.25, "n": 3, "late": True, "note": "ü", "gap": None})
    ]


def test_one_read_answers_in_order_for_known_unknown_null_and_repeated_keys(store: OnlineStore):
    store.write("weather", ("origin",), rows(("EWR", NOON, 1.0), ("JFK", NOON, 2.0)))
    keys = [
        ("weather", "JFK"),
        ("weather", "XXX"),
        ("none", "JFK"),
        ("weather", None),
        ("weather", "EWR"),
        ("weather", "JFK"),
    ]
    asked = [(view, (origin,)) for view, origin in keys]
    assert [row and row.values["temp"] for row in store.read(asked)] == [2.0, None, None, None, 1.0, 2.0]
    assert store.read([]) == []


def test_thousands_of_keys_are_read_at_once(store: OnlineStore):
    store.write("weather", ("origin",), rows(*((f"A{i}", NOON, float(i)) for i in range(3000))))
    found = store.read([("weather", (f"A{i}",)) for i in range(3500)])
    assert [row and row.values["temp"] for row in found] == [float(i) if i < 3000 else None for i in range(3500)]


def test_time_never_goes_back(store: OnlineStore):
    assert store.write("weather", ("origin",), rows(("EWR", NOON, 2.0))) == 1
    assert store.write("weather", ("origin",), rows(("EWR", NOON - HOUR, 1.0))) == 0
    assert temp(store, "EWR") == 2.0
    assert store.newest("weather") == NOON
    assert store.write("weather", ("origin",), rows(("EWR", NOON + HOUR, 3.0), ("EWR", NOON, 2.5))) == 1
    assert temp(store, "EWR") == 3.0
    assert store.newest("weather") == NOON + HOUR


def test_writing_again_changes_nothing_and_a_correction_of_the_same_instant_counts(store: OnlineStore):
    frame = rows(("EWR", NOON, 2.0), ("JFK", NOON, 4.0))
    assert [store.write("weather", ("origin",), frame) for _ in range(3)] == [2, 0, 0]
    assert store.write("weather", ("origin",), rows(("EWR", NOON, 2.5))) == 1
    assert temp(store, "EWR") == 2.5


def test_a_changed_definition_replaces_even_newer_values_and_is_told(store: OnlineStore):
    assert store.view_hash("weather") is None
    store.write("weather", ("origin",), rows(("EWR", NOON, 2.0), ("JFK", NOON, 3.0)), view_hash="one")
    renamed = rows(("EWR", NOON - HOUR, 10.0)).rename({"temp": "celsius"})
    assert store.write("weather", ("origin",), renamed, view_hash="two") == 1
    assert store.view_hash("weather") == "two"
    assert store.newest("weather") == NOON - HOUR
    assert [row and row.values for row in store.read([("weather", ("EWR",)), ("weather", ("JFK",))])] == [
        {"celsius": 10.0}, None,
    ], "JFK is not written under the new definition yet"  # fmt: skip
    assert store.write("weather", ("origin",), rows(("EWR", NOON - 2 * HOUR, 2.0)), view_hash="one") == 1, "and back"
    assert [row and row.values for row in store.read([("weather", ("EWR",)), ("weather", ("JFK",))])] == [
        {"temp": 2.0}, None,
    ]  # fmt: skip


def test_another_views_rows_stay_when_one_definition_changes(store: OnlineStore):
    for view in ("weather", "traffic"):
        store.write(view, ("origin",), rows(("EWR", NOON, 2.0)), view_hash="one")
    store.write("weather", ("origin",), rows(), view_hash="two")
    assert [row and row.values for row in store.read([("weather", ("EWR",)), ("traffic", ("EWR",))])] == [
        None, {"temp": 2.0},
    ]  # fmt: skip
    assert (store.newest("weather"), store.newest("traffic")) == (None, NOON)


def test_a_reader_that_knows_the_old_definition_sees_the_new_one_at_once(uri: str):
    with open_online_store(uri) as reader, open_online_store(uri) as writer:
        writer.write("weather", ("origin",), rows(("EWR", NOON, 2.0)), view_hash="one")
        assert temp(reader, "EWR") == 2.0
        writer.write("weather", ("origin",), rows(("EWR", NOON, 9.0)).rename({"temp": "t"}), view_hash="two")
        (row,) = reader.read([("weather", ("EWR",))])
        assert row == Row(to_micros(NOON), {"t": 9.0}, "two")


def test_times_before_1970_and_far_ahead_are_ordered(store: OnlineStore):
    old, far = datetime(1901, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    for at, expected in ((old, 1), (old + HOUR, 1), (old, 0), (far, 1), (far - timedelta(microseconds=1), 0)):
        assert store.write("weather", ("origin",), rows(("EWR", at, 1.0))) == expected
    assert store.newest("weather") == far


def test_a_row_without_key_or_time_is_refused(store: OnlineStore):
    with pytest.raises(ValueError, match="online view 'weather': 1 of 1 rows have no 'origin'"):
        store.write("weather", ("origin",), rows((None, NOON, 1.0)))


def test_reading_before_the_first_write_finds_nothing_and_sees_it_afterwards(uri: str):
    with open_online_store(uri) as reader, open_online_store(uri) as writer:
        assert reader.read([("weather", ("EWR",))]) == [None]
        assert (reader.newest("weather"), reader.view_hash("weather")) == (None, None)
        writer.write("weather", ("origin",), rows(("EWR", NOON, 1.0)))
        assert temp(reader, "EWR") == 1.0


def test_a_write_that_fails_leaves_nothing(store: OnlineStore):
    store.write("weather", ("origin",), rows(("EWR", NOON, 1.0)))
    poisoned = rows(("EWR", NOON + HOUR, 2.0), ("JFK", NOON, 3.0)).with_columns(
        temp=pl.Series([1.0, object()], dtype=pl.Object)
    )
    with pytest.raises(TypeError):
        store.write("weather", ("origin",), poisoned)
    assert temp(store, "EWR") == 1.0
    assert temp(store, "JFK") is None


def test_threads_read_while_another_process_writes(uri: str):
    writer = """
import sys, polars as pl
from datetime import UTC, datetime, timedelta
from ml_platform.features.online.open import open_online_store
with open_online_store(sys.argv[1]) as store:
    for n in range(60):
        at = datetime(2013, 7, 4, tzinfo=UTC) + timedelta(minutes=n)
        frame = pl.DataFrame({"k": ["a", "b"], "event_time": [at] * 2, "n": [n, n]})
        store.write("v", ("k",), frame)
"""
    faults: list[str] = []
    done = threading.Event()

    def watch(reader: OnlineStore) -> None:
        last = -1
        while not done.is_set():
            a, b = reader.read([("v", ("a",)), ("v", ("b",))])
            if a is None or b is None:
                continue
            if a.values["n"] != b.values["n"] or a.values["n"] < last:
                faults.append(f"torn or older: {a.values} {b.values} after {last}")
            last = a.values["n"]

    with open_online_store(uri) as store:
        threads = [threading.Thread(target=watch, args=(store,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        finished = subprocess.run([sys.executable, "-c", writer, uri], check=False, capture_output=True, text=True)
        done.set()
        for thread in threads:
            thread.join()
        assert finished.returncode == 0, finished.stderr
        assert faults == []
        (row,) = store.read([("v", ("a",))])
        assert row is not None
        assert row.values == {"n": 59}


SCHEMA = ViewSchema(
    entity=(Input(name="origin", type="string"),),
    event_time="event_time",
    columns=(Input(name="temp", type="number", unit="F"),),
)


def pushed(*items: tuple[str, datetime, float | None]) -> list[PushedRow]:
    return [PushedRow((origin,), at, (value,)) for origin, at, value in items]


def test_a_push_keeps_what_is_newest_and_counts_what_is_older(store: OnlineStore):
    store.write("weather", ("origin",), rows(("EWR", NOON, 2.0), ("JFK", NOON, 4.0)), view_hash="one")
    sent = pushed(
        ("EWR", NOON - HOUR, 1.0), ("JFK", NOON, 5.0), ("LGA", NOON + HOUR, 7.0), ("LGA", NOON, 6.0), ("LGA", NOON, 5.0)
    )
    for _ in range(2):
        assert store.push("weather", "one", sent) == 3  # EWR, and LGA's of noon
        assert [temp(store, origin) for origin in ("EWR", "JFK", "LGA")] == [2.0, 5.0, 7.0]
    assert store.newest("weather") == NOON + HOUR
    assert store.write("weather", ("origin",), rows(("LGA", NOON, 6.0)), view_hash="one") == 0


def test_thousands_of_rows_are_pushed_at_once(store: OnlineStore):
    store.write("weather", ("origin",), rows(("A7", NOON, 1.0)), view_hash="one")
    assert store.push("weather", "one", pushed(*((f"A{i}", NOON - HOUR, float(i)) for i in range(5000)))) == 1
    assert [temp(store, origin) for origin in ("A7", "A4999")] == [1.0, 4999.0]


def test_a_push_of_another_definition_is_refused_and_changes_nothing(store: OnlineStore):
    with pytest.raises(DefinitionChanged, match="the store holds no values of it"):
        store.push("weather", "one", pushed(("EWR", NOON, 1.0)))
    store.write("weather", ("origin",), rows(("EWR", NOON, 2.0)), view_hash="two")
    with pytest.raises(
        DefinitionChanged, match="of the definition one were pushed, the store holds the definition two"
    ):
        store.push("weather", "one", pushed(("EWR", NOON + HOUR, 1.0)))
    assert (temp(store, "EWR"), store.view_hash("weather")) == (2.0, "two")


def test_a_schema_is_recorded_with_its_definition(store: OnlineStore):
    assert (store.definition("weather"), store.views()) == (None, [])
    store.write("weather", ("origin",), rows(("EWR", NOON, 2.0)), view_hash="one")
    store.write("traffic", ("origin",), rows(("EWR", NOON, 2.0)), view_hash="one")
    assert store.definition("weather") == Definition("one", None)
    assert store.write("weather", ("origin",), rows(), view_hash="one", schema=SCHEMA) == 0  # no values are lost by it
    assert store.definition("weather") == Definition("one", SCHEMA)
    assert (temp(store, "EWR"), store.views()) == (2.0, ["weather"])
    store.write("weather", ("origin",), rows(), view_hash="one")
    assert store.definition("weather") == Definition("one", SCHEMA)
    store.write("weather", ("origin",), rows(), view_hash="two")
    assert store.definition("weather") == Definition("two", None)


def test_a_store_written_before_schemas_were_recorded_is_read_and_gets_them_at_the_next_publishing(
    store: OnlineStore, uri: str
):
    store.write("weather", ("origin",), rows(("EWR", NOON, 2.0)), view_hash="one")
    if uri.startswith("sqlite"):
        with sqlite3.connect(uri.removeprefix("sqlite:///")) as connection:
            connection.execute("DROP TABLE schemas")
        connection.close()
    else:
        with redis.Redis.from_url(uri) as client:
            key = b"ml_platform:online:view:weather"
            record: list[object] = msgspec.msgpack.decode(client.get(key))
            client.set(key, msgspec.msgpack.encode(record[:3]))
    with open_online_store(uri) as reopened:
        assert reopened.definition("weather") == Definition("one", None)
        assert (reopened.views(), temp(reopened, "EWR")) == ([], 2.0)
        assert reopened.push("weather", "one", pushed(("EWR", NOON + HOUR, 3.0))) == 0
        reopened.write("weather", ("origin",), rows(), view_hash="one", schema=SCHEMA)
        assert (reopened.definition("weather"), reopened.views()) == (Definition("one", SCHEMA), ["weather"])
        assert temp(reopened, "EWR") == 3.0


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memcached://localhost", r"no store for the scheme 'memcached'; there are sqlite:///<path>, redis://"),
        ("online.db", r"no store for the scheme 'online\.db'"),
        ("sqlite://", r"wanted sqlite:///<path of a file>"),
        ("sqlite:///:memory:", r"wanted sqlite:///<path of a file>, found none"),
        ("sqlite:///online.db?timeout=60", r"wanted sqlite:///<path> without options"),
    ],
)
def test_an_unknown_address_is_refused(address: str, message: str):
    with pytest.raises(ValueError, match=message):
        open_online_store(address)


@pytest.mark.parametrize("ttl", [None, timedelta(hours=1), timedelta.max])
def test_the_first_and_the_last_instant_are_published_and_read(lake: Lake, store: OnlineStore, ttl: timedelta | None):
    first, last = (at.replace(tzinfo=UTC) for at in (datetime.min, datetime.max))
    view = FeatureView(
        name="weather", description="Weather.", owner="a@b", entity=("origin",), ttl=ttl,
        columns={"temp": FeatureColumn(type="number", description="Temperature.")}, sql="SELECT 1",
    )  # fmt: skip
    lake.append(view.table, rows(("EWR", first, 1.0), ("JFK", first, 2.0), ("JFK", last, 3.0)))
    report = publish_view(lake, view, store)
    assert (report.rows, report.newest, store.newest("weather")) == (2, last, last)
    found = store.read([("weather", (origin,)) for origin in ("EWR", "JFK")])
    assert [(row.event_time, row.values["temp"]) for row in found if row] == [(first, 1.0), (last, 3.0)]
    assert (
        store.push("weather", view.hash, [PushedRow(("EWR",), last, (4.0,)), PushedRow(("JFK",), first, (5.0,))]) == 1
    )
    assert [temp(store, "EWR"), temp(store, "JFK")] == [4.0, 3.0]
    lake.replace(view.table, rows(("EWR", first, 6.0)))
    publish_view(lake, view, store)
    assert [temp(store, "EWR"), temp(store, "JFK")] == [4.0, None], "what was pushed stays, what was withdrawn does not"


def test_publishing_takes_the_newest_row_of_each_entity(lake: Lake, store: OnlineStore):
    view = FeatureView(
        name="weather", description="Weather.", owner="a@b", entity=("origin",), created="seen",
        columns={"temp": FeatureColumn(type="number", description="Temperature.")}, sql="SELECT 1",
    )  # fmt: skip
    frame = rows(("EWR", NOON, 1.0), ("EWR", NOON + HOUR, 2.0), ("EWR", NOON + HOUR, 3.0), ("JFK", NOON, 4.0))
    lake.append(view.table, frame.with_columns(seen=pl.Series([NOON, NOON + HOUR, NOON, NOON])))
    assert latest_rows(lake, view).sort("origin").rows() == [("EWR", NOON + HOUR, 2.0), ("JFK", NOON, 4.0)]
    report = publish_view(lake, view, store)
    assert (report.rows, report.changed, report.newest, report.version) == (2, 2, NOON + HOUR, 0)
    assert store.view_hash("weather") == view.hash
    assert [temp(store, "EWR"), temp(store, "JFK")] == [2.0, 4.0]
    assert publish_view(lake, view, store).changed == 0


def test_a_write_is_noted_with_its_time_even_when_it_changes_nothing(store: OnlineStore):
    assert store.written_at("weather") is None
    begin = datetime.now(UTC)
    store.write("weather", ("origin",), rows(("EWR", NOON, 1.0)))
    first = store.written_at("weather")
    assert first is not None
    assert begin <= first <= datetime.now(UTC)
    store.write("weather", ("origin",), rows(("EWR", NOON, 1.0)))
    again = store.written_at("weather")
    assert again is not None
    assert again > first
    assert store.newest("weather") == NOON
    assert store.written_at("other") is None
    store.push("weather", store.view_hash("weather") or "", pushed(("EWR", NOON, 9.0)))
    assert (store.written_at("weather") or NOON) > again


def test_a_file_from_before_writes_were_noted_is_read(tmp_path: Path):
    uri = f"sqlite:///{tmp_path / 'online.db'}"
    with open_online_store(uri) as store:
        store.write("weather", ("origin",), rows(("EWR", NOON, 1.0)))
    with closing(sqlite3.connect(tmp_path / "online.db")) as connection:
        connection.execute("DROP TABLE written")
    with open_online_store(uri) as store:
        assert store.written_at("weather") is None
        assert temp(store, "EWR") == 1.0
        store.write("weather", ("origin",), rows(("EWR", NOON, 2.0)))
        assert store.written_at("weather") is not None


def test_threads_that_still_read_a_replaced_file_leave_the_others_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Both files number their definitions from 1 on; each thread looks for another file on its own."""
    monkeypatch.setattr("ml_platform.features.online.sqlite_store._LOOK_SECONDS", 3600.0)
    path, other = tmp_path / "online.db", tmp_path / "other.db"
    for file, name in ((path, "temp"), (other, "wind")):
        with open_online_store(f"sqlite:///{file}") as store:
            store.write("weather", ("origin",), rows(("EWR", NOON, 1.0), ("JFK", NOON, 2.0)).rename({"temp": name}))

    def read(origin: str) -> dict[str, float]:
        (row,) = store.read([("weather", (origin,))])
        assert row is not None
        return row.values

    with open_online_store(f"sqlite:///{path}") as store, ThreadPoolExecutor(1) as thread:
        assert store.view_hash("weather") is not None  # opens the old file
        other.replace(path)
        assert thread.submit(store.view_hash, "weather").result() is not None  # and this thread the new one
        assert read("EWR") == {"temp": 1.0}
        assert thread.submit(read, "EWR").result() == {"wind": 1.0}
        assert read("JFK") == {"temp": 2.0}
