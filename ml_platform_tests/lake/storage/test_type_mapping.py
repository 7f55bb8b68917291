"""Frames of whatever types: kept as they are, turned into Delta's, or refused in words."""

from datetime import UTC, datetime, time
from typing import Any

import polars as pl
import pytest

from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.query.sql import query
from ml_platform.lake.storage.tables import Lake
from ml_platform.lake.storage.type_mapping import TIMESTAMP

NESTED = {
    "counts": pl.Series([[200, 1], []], dtype=pl.List(pl.UInt8)),
    "pair": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.UInt32, 2)),
    "tags": pl.Series([["a"], None], dtype=pl.List(pl.Categorical)),
    "visit": pl.Series(
        [{"at": datetime(2024, 10, 27, 0, 30, tzinfo=UTC), "kind": "x"}, None],
        dtype=pl.Struct({"at": pl.Datetime("ns", "Europe/Berlin"), "kind": pl.Enum(["x"])}),
    ),
}


def test_what_is_inside_of_lists_and_structs_is_kept_too(lake: Lake) -> None:
    lake.append("raw/nested", pl.DataFrame(NESTED))
    lake.append("raw/nested", pl.DataFrame(NESTED))
    assert lake.schema("raw/nested") == pl.Schema(
        {
            "counts": pl.List(pl.Int16),
            "pair": pl.List(pl.Int64),
            "tags": pl.List(pl.String),
            "visit": pl.Struct({"at": TIMESTAMP, "kind": pl.String}),
        }
    )
    for rows in (lake.read("raw/nested").collect(), query(lake, "SELECT * FROM raw.nested")):
        assert rows.row(0, named=True) == {
            "counts": [200, 1],
            "pair": [1, 2],
            "tags": ["a"],
            "visit": {"at": datetime(2024, 10, 27, 0, 30, tzinfo=UTC), "kind": "x"},
        }


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [datetime(2024, 1, 1)]}, "column 'a' is a timestamp without time zone"),
        ({"a": [{"b": [datetime(2024, 1, 1)]}]}, "column 'a' is a timestamp without time zone"),
        ({"a": [[time(1)]]}, "column 'a' is Time, which Delta cannot hold"),
        ({"a": [2**64 - 1]}, r"column 'a' \(UInt64\) has values that Int64 cannot hold"),
        ({"a": [2**100]}, r"column 'a' \(Int128\) has values that Int64 cannot hold"),
        ({"a": [{}]}, "column 'a' is a struct without fields"),
        ({"": [1]}, "a column has no name"),
        ({"id": [1], "Id": [2]}, r"columns \['id', 'Id'\] differ in nothing but case"),
        ({"a": [None]}, "column 'a' is null in every row and has no type"),
    ],
)
def test_what_a_table_cannot_hold_is_refused_in_words(lake: Lake, columns: dict[str, Any], message: str) -> None:
    for write in (lake.append, lake.replace):
        with pytest.raises(SchemaMismatch, match=f"Table 'raw/x': {message}"):
            write("raw/x", pl.DataFrame(columns))
    assert not lake.exists("raw/x")


def test_a_column_without_type_goes_into_one_that_is_there_and_adds_none(lake: Lake) -> None:
    lake.append("raw/x", pl.DataFrame({"a": [1]}))
    lake.append("raw/x", pl.DataFrame({"a": [None], "b": [None]}), add_columns=True)
    lake.append("raw/x", pl.DataFrame({"a": [3], "b": ["now"]}), add_columns=True)
    assert lake.read("raw/x").sort("a", nulls_last=False).collect().rows() == [(None, None), (1, None), (3, "now")]
