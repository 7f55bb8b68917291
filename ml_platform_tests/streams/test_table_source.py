"""Rows of a table as messages: appended ones, changed ones of a change feed, and what was deleted unread."""

from datetime import UTC, date, datetime

import msgspec
import polars as pl
import pytest
from deltalake import DeltaTable

from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.stream_sources import TableSource
from ml_platform.streams.protocols import Message, Resume, StreamMisfit
from ml_platform.streams.table_source import TableRows

TABLE = "raw/orders"
SPEC = TableSource(type="table", table=TABLE)


def frame(start: int, end: int) -> pl.DataFrame:
    numbers = list(range(start, end))
    return pl.DataFrame(
        {
            "id": numbers,
            "day": [date(2024, 1, 1 + number % 2) for number in numbers],
            "at": [datetime(2024, 1, 1, tzinfo=UTC)] * len(numbers),
            "price": [float("nan") if number % 5 == 0 else number / 2 for number in numbers],
            "note": [None if number % 3 == 0 else "a\nb" for number in numbers],
        }
    )


def drain(source: TableRows) -> list[Message]:
    messages: list[Message] = []
    while found := source.read(700, 0.5):
        messages += found
    return messages


def ids(messages: list[Message]) -> list[int]:
    return [msgspec.json.decode(one.value or b"")["id"] for one in messages]


def opened(lake: Lake, after: int = -1, spec: TableSource = SPEC) -> TableRows:
    source = TableRows(spec, lake)
    assert list(source.partitions()) == [0]
    source.assign({0: Resume(after)})
    return source


def keep_change_feed(lake: Lake) -> None:
    DeltaTable(lake.location(TABLE)).alter.set_table_properties({"delta.enableChangeDataFeed": "true"})


def test_rows_that_are_there_come_first_and_then_the_new_ones(lake):
    lake.append(TABLE, frame(0, 1500), partition_by=["day"])
    lake.append(TABLE, frame(1500, 1510))
    source = opened(lake)
    first = drain(source)
    assert sorted(ids(first)) == list(range(1510))
    assert source.lag()[0].waiting == 0
    lake.append(TABLE, frame(1510, 1513))
    assert source.lag()[0].waiting in (0, 3)  # it looks five times a second
    more = drain(source)
    assert sorted(ids(more)) == [1510, 1511, 1512]
    positions = [one.position for one in first + more]
    assert positions == sorted(set(positions))
    assert msgspec.json.decode(first[0].value or b"") == {
        "id": (number := ids(first)[0]),
        "day": f"2024-01-0{1 + number % 2}",
        "at": "2024-01-01T00:00:00+00:00",
        "price": None if number % 5 == 0 else number / 2,
        "note": None if number % 3 == 0 else "a\nb",
    }


@pytest.mark.parametrize("place", [0, 611, 1499, 1500, 1511])
def test_a_reader_goes_on_at_any_row_after_others_have_written(lake, place):
    lake.append(TABLE, frame(0, 1500), partition_by=["day"])
    source = opened(lake)
    first = drain(source)
    lake.append(TABLE, frame(1500, 1512))
    every = first + drain(source)
    lake.append(TABLE, frame(2000, 2004))
    lake.snapshot(TABLE).optimize.compact()  # rewrites files, changes no row
    again = drain(opened(lake, every[place].position))
    assert [(m.position, m.value, m.time) for m in again[: len(every) - place - 1]] == [
        (m.position, m.value, m.time) for m in every[place + 1 :]
    ]
    assert sorted(ids(again[len(every) - place - 1 :])) == list(range(2000, 2004))


def test_latest_begins_behind_what_is_there_and_columns_can_be_chosen(lake):
    lake.append(TABLE, frame(0, 10))
    spec = SPEC.model_copy(update={"start": "latest", "columns": ("id", "price")})
    source = opened(lake, spec=spec)
    assert source.read(10, 0) == []
    lake.append(TABLE, frame(11, 12))
    assert [one.value for one in drain(source)] == [b'{"id":11,"price":5.5}']
    with pytest.raises(StreamMisfit, match=r"no columns \['prize'\]; it has id, day"):
        opened(lake, spec=spec.model_copy(update={"columns": ("prize",)}))


def test_a_change_feed_gives_new_and_changed_rows_only(lake):
    lake.append(TABLE, frame(0, 10))
    keep_change_feed(lake)
    source = opened(lake)
    drain(source)
    lake.snapshot(TABLE).update(updates={"price": "-1.0"}, predicate="id = 3")
    lake.snapshot(TABLE).delete("id = 4")
    lake.replace(TABLE, frame(7, 9), where="id >= 7 AND id < 9")
    changed = drain(source)
    assert ids(changed) == [3, 7, 8]
    assert msgspec.json.decode(changed[0].value or b"")["price"] == -1.0
    lake.replace(TABLE, frame(100, 102))  # all rows are others
    assert ids(drain(source)) == [100, 101]


def test_changed_rows_without_a_change_feed_are_said(lake):
    lake.append(TABLE, frame(0, 10))
    source = opened(lake)
    last = drain(source)[-1].position
    lake.snapshot(TABLE).update(updates={"price": "-1.0"}, predicate="id = 3")
    with pytest.raises(
        StreamMisfit, match=r"version 1 of 'raw/orders' changed rows \(update\), .*enableChangeDataFeed"
    ):
        source.read(10, 5)
    with pytest.raises(StreamMisfit, match="changed rows"):
        opened(lake, last).read(10, 5)


def test_rows_that_were_vacuumed_unread_are_said(lake):
    lake.append(TABLE, frame(0, 10))
    source = opened(lake)
    last = drain(source)[-1].position
    lake.append(TABLE, frame(10, 16))
    lake.append(TABLE, frame(16, 20))
    lake.snapshot(TABLE).optimize.compact()
    lake.snapshot(TABLE).vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    with pytest.raises(StreamMisfit, match=r"version 1: up to 6 rows were deleted before .* was vacuumed"):
        opened(lake, last).read(10, 5)


def test_a_table_that_is_missing_or_was_made_anew_is_said(lake):
    with pytest.raises(StreamMisfit, match="has no table 'raw/orders'"):
        opened(lake)
    lake.append(TABLE, frame(0, 10))
    with pytest.raises(StreamMisfit, match="answers go to version 7, the table ends at 0: it was made anew"):
        opened(lake, 7 << 32 | 1 << 31)
