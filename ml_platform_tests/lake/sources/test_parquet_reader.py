"""Timestamps of the old type INT96, as Spark writes them: every instant arrives as what it is, or is refused."""

import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.lake.sources.file_readers import read_file
from ml_platform.lake.sources.parquet_reader import read_parquet

USUAL, FIRST, LAST = datetime(2024, 1, 31, 12, 30, 0, 5), datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)
MICROSECONDS, NANOSECONDS = pa.timestamp("us"), pa.timestamp("ns")


def written(path: Path, columns: dict[str, pa.Array], *, stored_schema: bool = False) -> Path:
    """Write a file as Spark does: no Arrow schema says what the timestamps were."""
    pq.write_table(pa.table(columns), path, use_deprecated_int96_timestamps=True, store_schema=stored_schema)
    return path


@pytest.mark.parametrize("stored_schema", [False, True])
def test_all_years_arrive(tmp_path: Path, *, stored_schema: bool) -> None:
    instants = [USUAL, FIRST, LAST, None, datetime(1600, 5, 5)]
    columns = {"at": pa.array(instants, MICROSECONDS), "n": pa.array(range(5))}
    rows = read_file(written(tmp_path / "a.parquet", columns, stored_schema=stored_schema))
    assert rows["at"].to_list() == instants
    assert rows["n"].to_list() == list(range(5))


def test_nested_instants_arrive(tmp_path: Path) -> None:
    instants: list[dict[str, Any]] = [{"at": FIRST, "n": 1}, {"at": LAST, "n": 2}]
    kind = pa.struct([("at", MICROSECONDS), ("n", pa.int64())])
    lists = pa.array([[FIRST], [USUAL, LAST]], pa.list_(MICROSECONDS))
    rows = read_parquet(written(tmp_path / "a.parquet", {"s": pa.array(instants, kind), "l.x": lists}))
    assert rows["s"].to_list() == instants
    assert rows["l.x"].to_list() == [[FIRST], [USUAL, LAST]]


def test_files_of_pandas_keep_zones_and_nested_nanoseconds(tmp_path: Path) -> None:
    zoned = pa.array([USUAL, None], pa.timestamp("ns", tz="Europe/Berlin"))
    nested = pa.array([[1], []], pa.list_(pa.int64())).cast(pa.list_(NANOSECONDS))
    rows = read_parquet(written(tmp_path / "a.parquet", {"at": zoned, "l": nested}, stored_schema=True))
    assert rows.schema == {"at": pl.Datetime("ns", "Europe/Berlin"), "l": pl.List(pl.Datetime("ns"))}
    assert rows["at"].dt.convert_time_zone("UTC").to_list() == [USUAL.replace(tzinfo=UTC), None]
    assert rows["l"].explode(empty_as_null=False).to_physical().to_list() == [1]


@pytest.mark.parametrize("stored_schema", [False, True])
def test_nanoseconds_stay_where_all_instants_have_them(tmp_path: Path, *, stored_schema: bool) -> None:
    ticks = pa.array([1_700_000_000_000_000_001, -7, None], pa.int64())
    columns = {"at": ticks.cast(NANOSECONDS)}
    rows = read_parquet(written(tmp_path / "a.parquet", columns, stored_schema=stored_schema))
    assert rows.schema == {"at": pl.Datetime("ns")}
    assert rows["at"].to_physical().to_list() == ticks.to_pylist()


def test_nanoseconds_beside_the_year_9999_are_refused(tmp_path: Path) -> None:
    path, table = tmp_path / "a.parquet", pa.table({"at": pa.array([LAST, USUAL], MICROSECONDS)})
    pq.write_table(
        table,
        path,
        use_deprecated_int96_timestamps=True,
        store_schema=False,
        use_dictionary=False,
        compression="none",
        write_statistics=False,
    )
    time_of_day = struct.pack("<q", ((12 * 60 + 30) * 60 * 1_000_000 + 5) * 1_000)
    data = path.read_bytes()
    assert data.count(time_of_day) == 1
    path.write_bytes(data.replace(time_of_day, struct.pack("<q", struct.unpack("<q", time_of_day)[0] + 1)))
    with pytest.raises(ValueError, match=r"column 'at' has instants outside .*9999-12-31.* in row 1 \(2024-01-31"):
        read_file(path)


def test_columns_of_other_types_are_read_as_they_are(tmp_path: Path) -> None:
    frame = pl.DataFrame({"at": [USUAL.replace(tzinfo=UTC)], "ns": [USUAL]}, schema_overrides={"ns": pl.Datetime("ns")})
    frame.write_parquet(tmp_path / "a.parquet")
    assert read_parquet(tmp_path / "a.parquet").equals(frame)
