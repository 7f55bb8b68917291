"""Tables written frame by frame: one commit with all rows, or none."""

from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl
import pytest

from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.storage.tables import Lake

AT = datetime(2013, 6, 1, 12, tzinfo=UTC)


def batch(number: int) -> pl.DataFrame:
    return pl.DataFrame(
        {"sensor": [f"s{number}"] * 3, "value": [number + place / 2 for place in range(3)], "at": AT},
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )


def test_all_frames_are_one_version_in_place_of_the_old_rows(lake: Lake) -> None:
    lake.append("raw/readings", pl.DataFrame({"old": [1]}))
    assert lake.replace_in_batches("raw/readings", lambda: map(batch, range(4))) == 1
    found = lake.read("raw/readings").collect()
    assert found.sort("value", "sensor").equals(pl.concat(map(batch, range(4))).sort("value", "sensor"))
    assert lake.read("raw/readings", version=0).collect()["old"].to_list() == [1]


def test_one_frame_without_rows_is_an_empty_table_with_its_columns(lake: Lake) -> None:
    lake.replace_in_batches("raw/readings", lambda: [batch(0).clear()])
    assert lake.schema("raw/readings") == batch(0).schema
    assert lake.read("raw/readings").collect().is_empty()


def test_partitions_take_rows_of_every_frame(lake: Lake) -> None:
    lake.replace_in_batches("raw/readings", lambda: map(batch, [1, 2, 1]), partition_by=("sensor",))
    assert lake.snapshot("raw/readings").metadata().partition_columns == ["sensor"]
    counts = lake.read("raw/readings").group_by("sensor").len().sort("sensor").collect()
    assert counts.rows() == [("s1", 6), ("s2", 3)]


def test_what_a_frame_raises_comes_through_and_the_table_stays(lake: Lake) -> None:
    lake.append("raw/readings", batch(0))

    def failing() -> Iterator[pl.DataFrame]:
        yield batch(1)
        raise ZeroDivisionError("no frame")

    with pytest.raises(ZeroDivisionError, match="no frame"):
        lake.replace_in_batches("raw/readings", failing)
    assert lake.version("raw/readings") == 0
    assert lake.read("raw/readings").collect().equals(batch(0))


def test_a_frame_unlike_the_first_is_named(lake: Lake) -> None:
    frames = [batch(0), batch(1).with_columns(pl.col("value").cast(pl.Int64))]
    with pytest.raises(SchemaMismatch, match=r"column 'value' \(Float64\) is in one frame only; column 'value' \(Int"):
        lake.replace_in_batches("raw/readings", lambda: frames)
    assert not lake.exists("raw/readings")


def test_after_a_lost_race_the_frames_are_asked_for_again(lake: Lake) -> None:
    lake.append("raw/readings", batch(0))
    asked = []

    def raced() -> Iterator[pl.DataFrame]:
        asked.append(1)
        yield batch(7)
        if len(asked) == 1:  # another writer comes first, with other columns
            lake.replace("raw/readings", pl.DataFrame({"other": [1]}))
        yield batch(8)

    assert lake.replace_in_batches("raw/readings", raced) == 2
    assert len(asked) == 2
    assert lake.read("raw/readings").collect().height == 6
