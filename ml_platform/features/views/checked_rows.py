"""Checks the rows that a view's query or function gives against the view's declaration: columns, types, keys."""

import polars as pl

from ml_platform.features.views.declared_types import Undeclared, as_declared
from ml_platform.features.views.view import FeatureView


def checked_rows(view: FeatureView, frame: pl.DataFrame) -> pl.DataFrame:
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


def _typed(view: FeatureView, frame: pl.DataFrame, times: list[str]) -> pl.DataFrame:
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


def _utc(view: FeatureView, frame: pl.DataFrame, name: str) -> pl.Series:
    """Convert instants to UTC microseconds (raises ValueError for a time without zone, or outside the calendar)."""
    dtype = frame.schema[name]
    if not isinstance(dtype, pl.Datetime) or dtype.time_zone is None:
        raise ValueError(
            f"view '{view.name}': column '{name}' must be a timestamp with a time zone (TIMESTAMPTZ), found {dtype}; "
            "give it one: … AT TIME ZONE 'UTC' in SQL, dt.replace_time_zone('UTC') in Polars"
        )
    try:
        return as_declared(frame.get_column(name), "timestamp")
    except Undeclared as error:
        row = ", ".join(f"{key} = {frame.get_column(key)[error.row or 0]!r}" for key in view.entity)
        raise ValueError(
            f"view '{view.name}': {error} in the row with {row}; leave such rows out, or round in the query: "
            "date_trunc('microseconds', …)"
        ) from error


def _feature(view: FeatureView, frame: pl.DataFrame, name: str) -> pl.Series:
    """Convert a feature to its declared type (raises ValueError if that changes a value)."""
    try:
        return as_declared(frame.get_column(name), view.columns[name].type)
    except Undeclared as error:
        raise ValueError(f"view '{view.name}': {error}; cast it in the query, or declare another type") from error


def _check_keys(view: FeatureView, frame: pl.DataFrame) -> None:
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
