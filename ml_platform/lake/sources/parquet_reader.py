"""Reads Parquet files, also those whose timestamps are of the old type INT96, as Spark and Impala write them.

INT96 reaches over all years and to the nanosecond, which no type of 64 bits does. Polars reads it as nanoseconds, of
the years 1678 to 2261, and gives 2262-04-11 for every instant outside of them without a word. Columns with such
instants are read as microseconds here, so that one of the year 9999 arrives as what it is. Files that keep their Arrow
schema, as pandas and PyArrow write them, say themselves what the timestamps were, and Polars obeys.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from ml_platform.lake.sources.stored_files import opened

if TYPE_CHECKING:
    from polars._typing import PolarsDataType

_MICROSECOND = 1_000  # nanoseconds
_ARROW_SCHEMA = b"ARROW:schema"


def read_parquet(path: Path | str) -> pl.DataFrame:
    """Read the rows of a local file, or of the object at a URI.

    Raises
    ------
    ValueError
        If a column of INT96 has instants outside of the years 1678 to 2261 beside parts of a microsecond: no type has
        both. The message names column, row and remedy.
    """
    scan = pl.scan_parquet(path, hive_partitioning=False, glob=False)
    rows = scan.collect()
    read = rows.schema
    if not any(_in_microseconds(dtype) != dtype for dtype in read.values()):
        return rows
    old = _int96(path, read.names())
    wanted = {name: _in_microseconds(read[name]) if name in old else read[name] for name in read}
    if wanted == dict(read):
        return rows
    exact = pl.scan_parquet(path, schema=wanted, hive_partitioning=False, glob=False).select(old).collect()
    return rows.with_columns(_fitting(rows[name], exact[name], path) for name in old)


def _int96(path: Path | str, names: list[str]) -> list[str]:
    """Columns that hold, or are, timestamps of INT96 of which no Arrow schema says what they were."""
    import pyarrow.parquet as pq

    with opened(path) as file:
        read = pq.ParquetFile(file)
    if _ARROW_SCHEMA in (read.metadata.metadata or {}):
        return []
    schema = read.schema
    leaves = [schema.column(place).path for place in range(len(schema.names)) if _is_int96(schema.column(place))]
    return [name for name in names if any(leaf == name or leaf.startswith(f"{name}.") for leaf in leaves)]


def _is_int96(column: object) -> bool:
    return getattr(column, "physical_type", None) == "INT96"


def _in_microseconds(dtype: "PolarsDataType") -> "PolarsDataType":
    """A type with nanoseconds replaced by microseconds, also within lists and structs."""
    if isinstance(dtype, pl.Datetime):
        return pl.Datetime("us", dtype.time_zone) if dtype.time_unit == "ns" else dtype
    if isinstance(dtype, pl.List):
        return pl.List(_in_microseconds(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _in_microseconds(field.dtype) for field in dtype.fields})
    return dtype


def _fitting(nanoseconds: pl.Series, microseconds: pl.Series, path: Path | str) -> pl.Series:
    """The reading that keeps every value: nanoseconds where all instants have them, else microseconds."""
    if not isinstance(nanoseconds.dtype, pl.Datetime):  # nested: its parts cannot be compared one by one
        return microseconds
    ticks = pl.DataFrame({"ns": nanoseconds.to_physical(), "us": microseconds.to_physical()}).cast(pl.Int128)
    off = ticks.select(pl.col("ns") - pl.col("us") * pl.lit(_MICROSECOND, pl.Int128)).to_series()
    outside = off.abs() >= _MICROSECOND
    if not outside.any():
        return nanoseconds
    if ((off != 0) & ~outside).any():
        row = int(((off != 0) & ~outside).arg_max() or 0)
        raise ValueError(
            f"{path}: column '{nanoseconds.name}' has instants outside of the years 1678 to 2261 "
            f"({microseconds.filter(outside)[0]}), which are read as microseconds, and one with parts of a microsecond "
            f"in row {row} ({nanoseconds.dt.to_string('iso')[row]}); round them, or write TIMESTAMP(MICROS) instead of "
            "INT96 (in Spark spark.sql.parquet.outputTimestampType)"
        )
    return microseconds
