"""Which Polars types a Delta table can hold, and how a frame is fitted to an existing table."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import polars as pl

from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.exact_casts import cast_exactly, first_lost, is_flag, is_same_kind, shown

if TYPE_CHECKING:
    import pyarrow
    from polars._typing import PolarsDataType

TIMESTAMP = pl.Datetime("us", "UTC")
_STORED: dict[Any, pl.DataType] = {
    pl.Categorical: pl.String(),
    pl.Enum: pl.String(),
    pl.UInt8: pl.Int16(),
    pl.UInt16: pl.Int32(),
    pl.UInt32: pl.Int64(),
    pl.UInt64: pl.Int64(),
    pl.Int128: pl.Int64(),
    pl.UInt128: pl.Int64(),
}


class _NotStorable(Exception):
    """A type that would lose its meaning in a Delta table."""


class _Inexact(Exception):
    """A value would change; with an example of one."""


def storable(frame: pl.DataFrame | pl.LazyFrame, table: str) -> pl.DataFrame:
    """Collect a frame, converted to types that Delta has: UTC microseconds, signed integers, text; also when nested.

    Raises
    ------
    SchemaMismatch
        For types that would lose meaning in the table (timestamps without a zone, durations, times, objects), values
        that would not be the same there (see `ml_platform.lake.exact_casts`), columns without a name, and names that
        differ only in case.
    """
    rows = frame.lazy().collect(engine="streaming") if isinstance(frame, pl.LazyFrame) else frame
    problems, columns = _names(rows.columns), []
    for name, dtype in rows.schema.items():
        try:
            stored = _stored(dtype)
            columns.append(_cast(rows[name], stored))
        except _NotStorable as error:
            problems.append(f"column '{name}' {error}")
        except _Inexact as error:
            problems.append(f"column '{name}' ({dtype}) has values that {stored} cannot hold{error}")
    if problems:
        raise SchemaMismatch(
            f"Table '{table}'",
            problems,
            "Rename, cast, round (dt.truncate('1us')), or give a time zone (dt.replace_time_zone) before writing.",
        )
    return pl.DataFrame(columns)


def _names(columns: list[str]) -> list[str]:
    problems = ["a column has no name"] if "" in columns else []
    alike = [name for name, times in Counter(map(str.lower, columns)).items() if times > 1]
    return problems + [
        f"columns {[one for one in columns if one.lower() == name]} differ in nothing but case" for name in alike
    ]


def _stored(dtype: "PolarsDataType") -> "PolarsDataType":
    """Type in which a table stores a frame's type."""
    if isinstance(dtype, pl.List | pl.Array):
        return pl.List(_stored(dtype.inner))
    if isinstance(dtype, pl.Struct):
        if not dtype.fields:
            raise _NotStorable("is a struct without fields, which Delta cannot hold")
        return pl.Struct({field.name: _stored(field.dtype) for field in dtype.fields})
    if isinstance(dtype, pl.Datetime):
        if dtype.time_zone is None:
            raise _NotStorable("is a timestamp without time zone, UTC was wanted")
        return TIMESTAMP
    if dtype in (pl.Duration, pl.Time, pl.Object):
        raise _NotStorable(f"is {dtype}, which Delta cannot hold")
    return _STORED.get(dtype.base_type(), dtype)


def untyped(rows: pl.DataFrame) -> list[str]:
    """Columns without a type, since they are null in every row: a table with one could never take a value in it."""
    return [name for name, dtype in rows.schema.items() if dtype == pl.Null]


def as_arrow(rows: pl.DataFrame) -> "pyarrow.Table":
    """Convert a frame for Delta's writer: in one chunk, which keeps the order of rows, and with Arrow's plain strings.

    The files keep the Arrow types they were written from, and pyarrow's datasets, through which SQL reads a lake in a
    bucket, cannot compare Polars' own strings (views).
    """
    return rows.rechunk().to_arrow()


def conform(rows: pl.DataFrame, schema: pl.Schema, table: str, *, add_columns: bool) -> pl.DataFrame:
    """Fit a frame to a table's column order and types, by exact casts only (`ml_platform.lake.exact_casts`).

    Raises
    ------
    SchemaMismatch
        For a missing column, a new one, or values that the table's type cannot hold; the message names column, wanted
        and found.
    """
    missing = [name for name in schema if name not in rows.columns]
    added = [name for name in rows.drop(untyped(rows) if add_columns else []).columns if name not in schema]
    problems = []
    if not add_columns:
        problems += [f"column '{name}' ({schema[name]}) is missing" for name in missing]
        problems += [f"column '{name}' ({rows.schema[name]}) is not in the table" for name in added]
    fitted = []
    for name in [name for name in schema if name in rows.columns]:
        try:
            fitted.append(_cast(rows[name], schema[name]))
        except _Inexact as error:
            problems.append(f"column '{name}': wanted {schema[name]}, found {rows.schema[name]}{error}")
    if problems:
        raise SchemaMismatch(
            f"Table '{table}'", problems, "Fix the frame, pass add_columns=True for new columns, or replace the table."
        )
    return pl.DataFrame(fitted + [rows[name] for name in added])


def _cast(values: pl.Series, wanted: "PolarsDataType") -> pl.Series:
    """Cast to a type of the same kind, or 1 and 0 to booleans, if every value stays the same (raises _Inexact)."""
    if not (is_same_kind(values.dtype, wanted) or is_flag(values.dtype, wanted)):
        raise _Inexact("")
    cast = cast_exactly(values, wanted)
    if (lost := first_lost(values, cast)) is not None:
        raise _Inexact(f", e.g. {shown(values, lost)} in row {lost}")
    return cast
