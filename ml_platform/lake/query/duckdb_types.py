"""DuckDB's types of columns, by their Polars types: as DuckDB itself reads such a frame, without a frame and Arrow."""

import polars as pl
from polars.datatypes import DataTypeClass

from ml_platform.lake.names import quoted

_TYPES: dict[type[pl.DataType], str] = {
    pl.Boolean: "BOOLEAN",
    pl.Int8: "TINYINT",
    pl.Int16: "SMALLINT",
    pl.Int32: "INTEGER",
    pl.Int64: "BIGINT",
    pl.UInt8: "UTINYINT",
    pl.UInt16: "USMALLINT",
    pl.UInt32: "UINTEGER",
    pl.UInt64: "UBIGINT",
    pl.Float32: "FLOAT",
    pl.Float64: "DOUBLE",
    pl.String: "VARCHAR",
    pl.Binary: "BLOB",
    pl.Date: "DATE",
    pl.Duration: "INTERVAL",
}
_TIMESTAMPS = {"ms": "TIMESTAMP_MS", "us": "TIMESTAMP", "ns": "TIMESTAMP_NS"}


def duckdb_type(dtype: pl.DataType) -> str:
    """DuckDB's type of a Polars type.

    Raises
    ------
    TypeError
        For a type that the lake does not store.

    Examples
    --------
    >>> duckdb_type(pl.Datetime("us", "UTC")), duckdb_type(pl.List(pl.Int64())), duckdb_type(pl.Decimal(10, 2))
    ('TIMESTAMP WITH TIME ZONE', 'BIGINT[]', 'DECIMAL(10,2)')
    >>> duckdb_type(pl.Struct({"place": pl.String(), "at": pl.Date()}))
    'STRUCT("place" VARCHAR, "at" DATE)'
    """
    if isinstance(dtype, pl.Datetime):
        return "TIMESTAMP WITH TIME ZONE" if dtype.time_zone else _TIMESTAMPS[dtype.time_unit]
    if isinstance(dtype, pl.Decimal):
        return f"DECIMAL({dtype.precision},{dtype.scale})"
    if isinstance(dtype, pl.List):
        return f"{duckdb_type(_inner(dtype.inner))}[]"
    if isinstance(dtype, pl.Array):
        return f"{duckdb_type(_inner(dtype.inner))}[{dtype.size}]"
    if isinstance(dtype, pl.Struct):
        fields = ", ".join(f"{quoted(field.name)} {duckdb_type(_inner(field.dtype))}" for field in dtype.fields)
        return f"STRUCT({fields})"
    try:
        return _TYPES[type(dtype)]
    except KeyError:
        raise TypeError(f"{dtype} is no type of a column of the lake") from None


def _inner(dtype: DataTypeClass | pl.DataType) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()
