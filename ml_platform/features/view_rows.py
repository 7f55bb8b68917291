"""Checks the rows that a view's query or function gives against the view's declaration: columns, types, keys."""

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from ml_platform.features.views import FeatureView

UTC_MICROSECONDS = pl.Datetime("us", "UTC")
DTYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "timestamp": UTC_MICROSECONDS,
}


def checked_rows(view: "FeatureView", frame: pl.DataFrame) -> pl.DataFrame:
    """Convert rows to the declared types and sort them by their keys, event time first.

    Raises
    ------
    ValueError
        If a column is missing, not declared or of another type, or a row lacks a key or has the same keys as another.
    """
    times = [name for name in (view.event_time, view.created) if name]
    rows = _typed(view, frame, times).sort(view.event_time, *view.entity, *times[1:])
    _check_keys(view, rows)
    return rows


def _typed(view: "FeatureView", frame: pl.DataFrame, times: list[str]) -> pl.DataFrame:
    wanted = {*view.keys, *view.columns}
    missing, surplus = sorted(wanted - set(frame.columns)), sorted(set(frame.columns) - wanted)
    if missing or surplus:
        raise ValueError(
            f"view '{view.name}': its query must give {sorted(wanted)}; missing {missing}, not declared {surplus}. "
            "Change the SELECT list or `columns:` in the leading comment"
        )
    return frame.select(
        *view.entity,
        *(_utc(view, frame, name) for name in times),
        *(_feature(view, frame, name) for name in view.columns),
    )


def _utc(view: "FeatureView", frame: pl.DataFrame, name: str) -> pl.Expr:
    dtype = frame.schema[name]
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return pl.col(name).dt.convert_time_zone("UTC").cast(UTC_MICROSECONDS)
    raise ValueError(
        f"view '{view.name}': column '{name}' must be a timestamp with a time zone (TIMESTAMPTZ), found {dtype}; give "
        "it one: … AT TIME ZONE 'UTC' in SQL, dt.replace_time_zone('UTC') in Polars"
    )


def _feature(view: "FeatureView", frame: pl.DataFrame, name: str) -> pl.Series:
    """Convert a feature to its declared type (raises ValueError if that changes a value)."""
    found, type_ = frame.get_column(name), view.columns[name].type
    typed = _as_type(found, DTYPES[type_])
    example = "" if typed is None else _changed(found, typed)
    if typed is None or example:
        raise ValueError(
            f"view '{view.name}': column '{name}' is declared as {type_}, its values are {found.dtype}{example}; cast "
            "it in the query, or declare another type"
        )
    return typed


def _as_type(found: pl.Series, dtype: pl.DataType) -> pl.Series | None:
    if found.dtype.is_nested() or (found.dtype.is_temporal() and dtype != pl.String):
        return None
    try:
        return found.cast(dtype, strict=False)
    except pl.exceptions.InvalidOperationError:
        return None


def _changed(found: pl.Series, typed: pl.Series) -> str:
    """Example of a value that the conversion changed, for a message; empty if there is none."""
    lost = typed.is_null() & found.is_not_null()
    if found.dtype.is_numeric() and typed.dtype in (pl.Int64(), pl.Boolean()):
        lost |= (typed.cast(found.dtype) != found).fill_null(value=False)
    return f", e.g. {found.filter(lost)[0]!r}" if lost.any() else ""


def _check_keys(view: "FeatureView", frame: pl.DataFrame) -> None:
    """Check rows that are sorted by their keys."""
    for name in view.keys:
        if nulls := frame.get_column(name).null_count():
            raise ValueError(
                f"view '{view.name}': {nulls} of {frame.height} rows have no '{name}'; leave them out in SQL"
            )
    again = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift()) for name in view.keys)
    repeated = frame.filter(again & (pl.int_range(pl.len()) > 0))
    if twice := repeated.height:
        example = repeated.row(0, named=True)
        raise ValueError(
            f"view '{view.name}': {twice} rows share {view.keys} with another, e.g. "
            f"{ {name: str(example[name]) for name in view.keys} }; aggregate them, or declare a `created` column"
        )
