"""The types that DuckDB gives to a frame of the same Polars types, and what is no type of the lake."""

import duckdb
import polars as pl
import pytest

from ml_platform.lake.query.duckdb_types import duckdb_type

TYPES = [
    *(pl.Boolean(), pl.String(), pl.Binary(), pl.Date(), pl.Duration("us")),
    *(pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.UInt8(), pl.UInt16(), pl.UInt32(), pl.UInt64()),
    *(pl.Float32(), pl.Float64(), pl.Decimal(12, 3)),
    *(pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("ns"), pl.Datetime("us", "UTC")),
    *(pl.List(pl.Int64()), pl.List(pl.Struct({"a": pl.Date()})), pl.Array(pl.Float32(), 3)),
    pl.Struct({"a b": pl.String(), "c": pl.List(pl.Datetime("us", "UTC"))}),
]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_it_is_the_type_that_duckdb_gives_to_a_frame(dtype: pl.DataType) -> None:
    with duckdb.connect(":memory:") as connection:
        wanted = connection.from_arrow(pl.DataFrame(schema={"x": dtype}).to_arrow()).types
        connection.execute(f"CREATE TABLE made (x {duckdb_type(dtype)})")
        assert connection.table("made").types == wanted


def test_what_no_table_has_is_refused() -> None:
    with pytest.raises(TypeError, match="Object is no type of a column of the lake"):
        duckdb_type(pl.Object())
