"""Which Polars types a Delta table holds, and how a frame is fitted to a table that exists."""

from typing import TYPE_CHECKING

import polars as pl
import polars.selectors as cs

from ml_platform.lake.errors import SchemaMismatch

if TYPE_CHECKING:
    import pyarrow

TIMESTAMP = pl.Datetime("us", "UTC")
_UNSIGNED: dict[type[pl.DataType], type[pl.DataType]] = {
    pl.UInt8: pl.Int16,
    pl.UInt16: pl.Int32,
    pl.UInt32: pl.Int64,
    pl.UInt64: pl.Int64,
}


def storable(frame: pl.DataFrame | pl.LazyFrame, table: str) -> pl.DataFrame:
    """Collect a frame in types that Delta has: UTC microseconds, signed integers, plain strings.

    Raises
    ------
    SchemaMismatch
        For types that would lose meaning in the table: timestamps without a zone, durations, times, objects.
    """
    rows = frame.lazy().collect(engine="streaming") if isinstance(frame, pl.LazyFrame) else frame
    problems = []
    for name, dtype in rows.schema.items():
        if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
            problems.append(f"column '{name}' is a timestamp without time zone, UTC was wanted")
        elif dtype in (pl.Duration, pl.Time, pl.Object):
            problems.append(f"column '{name}' is {dtype}, which Delta cannot hold")
    if problems:
        raise SchemaMismatch(
            f"Table '{table}'", problems, "Convert with dt.replace_time_zone/convert_time_zone or cast before writing."
        )
    return rows.with_columns(
        cs.by_dtype(pl.Categorical, pl.Enum).cast(pl.String),
        (cs.datetime(time_zone="*") - cs.by_dtype(TIMESTAMP)).dt.convert_time_zone("UTC").dt.cast_time_unit("us"),
        *[pl.col(name).cast(_UNSIGNED[type(dtype)]) for name, dtype in rows.schema.items() if type(dtype) in _UNSIGNED],
    )


def as_arrow(rows: pl.DataFrame) -> "pyarrow.Table":
    """Give Delta's writer a frame in one piece, which keeps the order of its rows, and as types that Arrow filters by.

    The files keep the type of what they were written from, and Polars' own strings (views) are one that pyarrow's
    datasets, by which SQL reads a lake in a bucket, cannot compare.
    """
    return rows.rechunk().to_arrow()


def conform(rows: pl.DataFrame, schema: pl.Schema, table: str, *, add_columns: bool) -> pl.DataFrame:
    """Fit a frame to a table: its column order, its types (lossless casts only).

    Raises
    ------
    SchemaMismatch
        For a missing column, a new one, or values that the table's type cannot hold, naming column, wanted and found.
    """
    missing = [name for name in schema if name not in rows.columns]
    added = [name for name in rows.columns if name not in schema]
    problems = []
    if not add_columns:
        problems += [f"column '{name}' ({schema[name]}) is missing" for name in missing]
        problems += [f"column '{name}' ({rows.schema[name]}) is not in the table" for name in added]
    fitted = []
    for name in [name for name in schema if name in rows.columns]:
        wanted, found = schema[name], rows.schema[name]
        try:
            fitted.append(_cast_exactly(rows[name], wanted))
        except pl.exceptions.PolarsError:
            problems.append(f"column '{name}': wanted {wanted}, found {found}")
    if problems:
        raise SchemaMismatch(
            f"Table '{table}'", problems, "Fix the frame, pass add_columns=True for new columns, or replace the table."
        )
    return pl.DataFrame(fitted + [rows[name] for name in added])


def _cast_exactly(series: pl.Series, wanted: pl.DataType) -> pl.Series:
    if series.dtype == wanted:
        return series
    if series.dtype == pl.Null or (series.dtype.is_numeric() and wanted.is_numeric()):
        if wanted == pl.Float32 and series.dtype != pl.Null:
            raise pl.exceptions.InvalidOperationError("digits would be cut off")
        cast = series.cast(wanted)
        if series.dtype.is_float() and wanted.is_integer() and not (cast.cast(series.dtype) == series).all():
            raise pl.exceptions.InvalidOperationError("fractions would be cut off")
        return cast
    raise pl.exceptions.InvalidOperationError("no lossless cast")
