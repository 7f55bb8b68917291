"""Counts, sums and means of trailing windows in NumPy, several times as fast as window functions in SQL.

Sums are put together from sums of blocks, by a disjoint sparse table: nothing is ever subtracted, so that a huge,
infinite or missing value leaves no trace once it left the window. Sliding sums (as of Polars' `rolling`) and
differences of running totals do not hold that.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import polars as pl

from ml_platform.features.rolling import Rolling, microseconds, value_column, window_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

FUNCTIONS = {"count", "sum", "mean"}
CHUNK = 1_000_000  # events computed at a time, whole keys each
_PLACES = 2**61  # keys × microseconds that one chunk may span


def compute_sums(
    connection: duckdb.DuckDBPyConnection, rolling: Rolling, entity: Sequence[str], event_time: str
) -> pl.DataFrame | None:
    """Compute what `Rolling.sql` says, with the same rows, if all of it is counts, sums and means of numbers.

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
    polars.DataFrame or None
        Entity, event time and features; None where it is left to SQL: another function, a clock (`every`), columns that
        are neither integers nor floats, or no event.
    """
    if rolling.every is not None or any(item.function not in FUNCTIONS for item in rolling.aggregates.values()):
        return None
    source = rolling.events_sql(entity)
    events = connection.sql(f"SELECT * EXCLUDE (__counts) FROM ({source}) WHERE __counts").pl()
    values = [name for name in events.columns if name not in {*entity, "__us"}]
    if events.is_empty() or not all(
        events.schema[name].is_integer() or events.schema[name].is_float() for name in values
    ):
        return None
    newest = connection.sql(f"SELECT max(__us) AS newest FROM ({source})").pl().item()
    keys = events.select(pl.struct(entity).n_unique()).item()
    parts = max(-(-events.height // CHUNK), -(-keys * _width(events, rolling) // _PLACES))
    part = pl.struct(entity).hash() % parts
    chunks = (events.filter(part == number).sort(*entity, "__us") for number in range(parts))
    computed = [_of_keys(chunk, rolling, entity, newest) for chunk in chunks if not chunk.is_empty()]
    at = pl.from_epoch("__us", "us").dt.replace_time_zone("UTC").alias(event_time)
    return pl.concat(computed).select(*entity, *rolling.columns(), at)


def range_sums(values: "Floats", starts: "Integers", ends: "Integers") -> "Floats":
    """Sum values[start:end] for many ranges, without subtraction.

    Level by level of a disjoint sparse table: a block of 2 ** level values holds, in its left half, the sums up to its
    middle and, in its right half, those from there. A range that spans the middle of a block is one of either.

    Parameters
    ----------
    values
        Shape (n,).
    starts, ends
        Shape (m,), 0 ≤ start ≤ end ≤ n.

    Returns
    -------
    numpy.ndarray
        Shape (m,); 0 for an empty range.

    Examples
    --------
    >>> range_sums(np.array([1.0, 1e20, 2.0, 3.0]), np.array([0, 2, 1]), np.array([1, 4, 1])).tolist()
    [1.0, 5.0, 0.0]
    """
    sums = np.zeros(len(starts))
    lasts = ends - 1
    single = starts == lasts
    sums[single] = values[starts[single]]
    level = np.where(lasts > starts, np.frexp((starts ^ lasts).astype(np.float64))[1], 0).astype(np.uint8)
    order = np.argsort(level, kind="stable")
    bounds = np.searchsorted(level[order], np.arange(int(level.max(initial=0)) + 2))
    for number in range(1, len(bounds) - 1):
        asked = order[bounds[number] : bounds[number + 1]]
        if len(asked):
            table = _blocks(values, 2 ** (number - 1))
            with np.errstate(over="ignore", invalid="ignore"):
                sums[asked] = table[starts[asked]] + table[lasts[asked]]
    return sums


def _blocks(values: "Floats", half: int) -> "Floats":
    blocks = np.pad(values, (0, -len(values) % (2 * half))).reshape(-1, 2, half)
    with np.errstate(over="ignore", invalid="ignore"):  # sums of ranges that nobody may ask for
        left = np.cumsum(blocks[:, 0, ::-1], axis=1)[:, ::-1]
        return np.stack([left, np.cumsum(blocks[:, 1], axis=1)], axis=1).reshape(-1)


def _width(events: pl.DataFrame, rolling: Rolling) -> int:
    """Microseconds set aside for a key: no shifted instant of one reaches into the next."""
    span = events.select(pl.col("__us").max() - pl.col("__us").min()).item()
    return int(span) + microseconds(max(rolling.windows)) + 2


def _of_keys(events: pl.DataFrame, rolling: Rolling, entity: Sequence[str], newest: int) -> pl.DataFrame:
    """Compute the rows of some keys, whose events are sorted by key and time."""
    first, width = events.get_column("__us").min(), _width(events, rolling)
    key = events.select(pl.struct(entity).rle_id().cast(pl.Int64)).to_series().to_numpy()
    # One integer tells key and instant, so that one binary search finds where a window starts or ends.
    places = key * width + (events.get_column("__us").to_numpy() - first)
    windows = {window: microseconds(window) for window in rolling.windows}
    points = np.sort(np.concatenate([places + shift for shift in (0, *windows.values())]))
    points = points[np.diff(points, prepend=-1) > 0]  # many times as fast as np.unique, which hashes
    owner = points // width
    points, owner = (found[points - owner * width + first <= newest] for found in (points, owner))
    ends = np.searchsorted(places, points, side="right")
    inputs = {item.column for item in rolling.aggregates.values() if item.column}
    columns: dict[str, Any] = {}
    for window, length in windows.items():
        starts = np.searchsorted(places, np.maximum(points - length, owner * width - 1), side="right")
        found = {column: _sum_and_mean(events, column, starts, ends) for column in inputs}
        for name, item in rolling.aggregates.items():
            total, mean = found[item.column] if item.column else (pl.Series(ends - starts), None)
            columns[f"{name}_{window_name(window)}"] = mean if item.function == "mean" else total
    heads = np.searchsorted(places, owner * width, side="left")
    at = pl.Series("__us", points - owner * width + first)
    return events.select(entity)[heads].with_columns(at, **columns).select(*entity, "__us", *rolling.columns())


def _sum_and_mean(
    events: pl.DataFrame, column: str, starts: "Integers", ends: "Integers"
) -> tuple[pl.Series, pl.Series]:
    values = events.get_column(value_column(column)).cast(pl.Float64)
    sums = pl.Series(range_sums(values.fill_null(0.0).to_numpy(), starts, ends))
    known = np.concatenate([[0], np.cumsum(values.is_not_null().to_numpy())])
    number = pl.Series(known[ends] - known[starts])
    return sums, pl.select(pl.when(number > 0).then(sums / number)).to_series()
