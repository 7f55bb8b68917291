"""Counts, sums and means of trailing windows in NumPy, several times as fast as window functions in SQL.

A part of the keys is computed at a time, so that memory holds the events but not all rows. Nothing is ever subtracted
(see `range_sums`), so a huge, infinite or missing value has no effect once it has left the window; Polars' `rolling`
does not guarantee that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import polars as pl

from ml_platform.features.rolling.range_sums import range_sums
from ml_platform.features.rolling.spec import Rolling, microseconds, value_column, window_name
from ml_platform.lake.names import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

FUNCTIONS = {"count", "sum", "mean"}
HELD = 16_000_000  # events in memory at a time
ROWS = 500_000  # rows computed at a time
_PLACES = 2**61  # keys × microseconds that one integer can encode
_KEY = "__key"


@dataclass(frozen=True)
class _Span:
    """First and last instant of the events, and the range of instants reserved for each key, in microseconds."""

    oldest: int
    newest: int
    width: int


def compute_sums(
    connection: duckdb.DuckDBPyConnection, rolling: Rolling, entity: Sequence[str], event_time: str
) -> Iterator[pl.DataFrame] | None:
    """Compute the rows of `Rolling.sql`, if all aggregates are counts, sums and means of numbers.

    Parameters
    ----------
    connection
        Where the source is attached.
    rolling
        The declaration.
    entity, event_time
        Columns of the result.

    Returns
    -------
    iterator of polars.DataFrame, or None
        Entity, event time and features, with all rows of a key in the same frame. None when SQL must compute them: for
        other functions, `every`, columns that are not integers, floats or booleans, or when there is no event.
    """
    if rolling.arrived or rolling.is_exact:  # `change_engine` computes these
        return None
    if rolling.every is not None or any(item.function not in FUNCTIONS for item in rolling.aggregates.values()):
        return None
    source = rolling.events_sql(entity)
    schema = connection.sql(f"SELECT * FROM ({source}) LIMIT 0").pl().schema
    values = [schema[value_column(name)] for name in rolling.inputs()]
    counted = connection.sql(
        "SELECT count(*) FILTER (__counts) AS events, min(__us) AS oldest, max(__us) AS newest, "
        f"max(__us) FILTER (__counts) AS latest FROM ({source})"
    )
    events, oldest, newest, latest = counted.pl().row(0)
    if not events or not all(dtype.is_integer() or dtype.is_float() or dtype == pl.Boolean for dtype in values):
        return None
    # Wide enough that no instant of a key, shifted by a window, reaches the range of the next key.
    span = _Span(oldest, newest, latest - oldest + microseconds(max(rolling.windows)) + 2)
    at = pl.from_epoch("__us", "us").dt.replace_time_zone("UTC").alias(event_time)
    return (
        _of_keys(some, keys, rolling, span).select(*entity, *rolling.columns(), at)
        for events_of_part in _event_parts(connection, source, entity, -(-events // HELD))
        for some, keys in _by_keys(events_of_part, entity, rolling, span)
    )


def _event_parts(
    connection: duckdb.DuckDBPyConnection, source: str, entity: Sequence[str], parts: int
) -> Iterator[pl.DataFrame]:
    """Read the events that count, in a number of parts by the hash of the key."""
    keys = ", ".join(map(quoted, entity))
    for part in range(parts):
        chosen = "" if parts == 1 else f" AND hash({keys}) % {parts} = {part}"
        yield connection.sql(f"SELECT * EXCLUDE (__counts) FROM ({source}) WHERE __counts{chosen}").pl()


def _by_keys(
    events: pl.DataFrame, entity: Sequence[str], rolling: Rolling, span: _Span
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Give the events of a part of the keys at a time, with the numbers of their keys, and these keys."""
    parts = -(-events.height * len(rolling.shifts()) // ROWS)
    hashed = events.with_columns((pl.struct(entity).hash() % parts).alias(_KEY))
    for part in hashed.partition_by(_KEY, include_key=False):
        whole = part.select(entity).unique(maintain_order=True)
        for keys in whole.iter_slices(_PLACES // span.width):
            numbered = keys.with_row_index(_KEY)
            yield part.join(numbered, on=list(entity), maintain_order="left"), keys


def _of_keys(events: pl.DataFrame, keys: pl.DataFrame, rolling: Rolling, span: _Span) -> pl.DataFrame:
    """Compute the rows of some keys."""
    # One integer encodes key and instant, so that one binary search finds where a window starts or ends.
    placed = events.select(pl.col(_KEY).cast(pl.Int64) * span.width + (pl.col("__us") - span.oldest))
    unordered = placed.to_series().to_numpy()
    order = np.argsort(unordered)
    places = unordered[order]
    points = np.sort(np.concatenate([places + microseconds(shift) for shift in rolling.shifts()]))
    points = points[np.diff(points, prepend=-1) > 0]  # distinct; many times as fast as np.unique, which hashes
    owner = points // span.width
    us = points - owner * span.width + span.oldest
    points, owner, us = (found[us <= span.newest] for found in (points, owner, us))
    ends = np.searchsorted(places, points, side="right")
    values = {name: events.get_column(value_column(name))[order] for name in rolling.inputs()}
    columns: dict[str, Any] = {}
    for window in rolling.windows:
        first = np.maximum(points - microseconds(window), owner * span.width - 1)
        starts = np.searchsorted(places, first, side="right")
        sums = {name: _sum_and_mean(column, starts, ends) for name, column in values.items()}
        for name, item in rolling.aggregates.items():
            total, mean = sums[item.column] if item.column else (pl.Series(ends - starts), None)
            columns[f"{name}_{window_name(window)}"] = mean if item.function == "mean" else total
    return keys[owner].with_columns(pl.Series("__us", us), **columns)


def _sum_and_mean(column: pl.Series, starts: "Integers", ends: "Integers") -> tuple[pl.Series, pl.Series]:
    values = column.cast(pl.Float64)
    number = ends - starts
    if values.null_count():
        known = np.concatenate([[0], np.cumsum(values.is_not_null().to_numpy())])
        number = known[ends] - known[starts]
        values = values.fill_null(0.0)
    sums = pl.Series(range_sums(values.to_numpy(), starts, ends))
    means = pl.select(pl.when(pl.Series(number) > 0).then(sums / pl.Series(number))).to_series()
    return sums, means
