"""One table seen over another: whose rows count, at which versions."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from ml_platform.lake.query.overlays import Overlay
from ml_platform.lake.query.sql import query
from ml_platform.lake.storage.tables import Lake

OVERLAY = Overlay("fixes/readings", ("sensor", "at"), ("value",), ("fixed_at", "number"), {"at": "of"})
SELECT = "SELECT * FROM raw.readings ORDER BY ALL"


def readings(*rows: tuple[str, int, float]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"sensor": pl.String, "at": pl.Int32, "value": pl.Float32}, orient="row")


def fixes(*rows: tuple[str, int, float, int, int]) -> pl.DataFrame:
    schema = {"sensor": pl.String, "of": pl.Int64, "value": pl.Float64, "fixed_at": pl.Int64, "number": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def overlays(table: str, version: int) -> Overlay | None:
    assert version >= 0
    return OVERLAY if table == "raw/readings" else None


@pytest.fixture
def fixed(lake: Lake) -> Lake:
    lake.append("raw/readings", readings(("a", 1, 1.0), ("a", 2, 2.0), ("b", 1, 3.0)))
    lake.append("fixes/readings", fixes(("a", 2, 20.0, 5, 0), ("a", 2, 21.0, 5, 1), ("a", 2, 22.0, 4, 9)))
    lake.append("fixes/readings", fixes(("c", 7, 70.0, 5, 0)))
    return lake


def test_the_other_s_newest_rows_stand_in_place_and_beside(fixed: Lake) -> None:
    found = query(fixed, SELECT, overlays=overlays)
    assert found.rows() == [("a", 1, 1.0), ("a", 2, 21.0), ("b", 1, 3.0), ("c", 7, 70.0)]
    assert found.schema == fixed.schema("raw/readings"), "in the types of the table itself"
    assert query(fixed, SELECT).height == 3


def test_each_is_read_at_its_own_version_or_at_one_instant(fixed: Lake) -> None:
    pinned = {"raw/readings": 0, "fixes/readings": 0}
    assert query(fixed, SELECT, versions=pinned, overlays=overlays).height == 3
    assert query(fixed, SELECT, versions={"raw/readings": 0}, overlays=overlays)["value"].to_list() == [1.0, 2.0, 3.0]
    first = fixed.history("fixes/readings")["timestamp"].min()
    created = fixed.history("raw/readings")["timestamp"].min()
    assert isinstance(first, datetime)
    assert isinstance(created, datetime)
    assert query(fixed, SELECT, as_of=datetime.now(UTC), overlays=overlays).height == 4
    before = first - timedelta(milliseconds=1)
    if before >= created:  # both were created within a millisecond otherwise
        assert query(fixed, SELECT, as_of=before, overlays=overlays)["value"].to_list() == [1.0, 2.0, 3.0]


def test_a_table_that_is_not_there_yet_lies_over_nothing(lake: Lake) -> None:
    lake.append("raw/readings", readings(("a", 1, 1.0)))
    assert query(lake, SELECT, overlays=overlays).rows() == [("a", 1, 1.0)]
