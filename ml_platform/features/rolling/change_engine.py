"""Windows whose events count from their arrival on, in NumPy: what each event changes, added up over time.

An event enters a window when it has arrived and leaves it a window's length after its time. Counts and sums of scaled
integers are running totals of these changes: subtracting whole numbers is exact, so the rows are those of
`arrival_sql`, and of the online store, to the last digit.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import polars as pl

from ml_platform.features.rolling.arrival_sql import arrival_events_sql, scaled_column
from ml_platform.features.rolling.newest_values import NewestValues
from ml_platform.features.rolling.spec import Rolling, microseconds, value_column, window_name
from ml_platform.lake.names import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

CHANGES = 4_000_000  # changes computed at a time
LARGEST = 2**62  # bound of all sums of a part in units of their last decimal place: 64 bits hold what is below
_KEY, _AT = "__key", "__at"


def compute_changes(
    connection: duckdb.DuckDBPyConnection, rolling: Rolling, entity: Sequence[str], event_time: str
) -> Iterator[pl.DataFrame] | None:
    """Compute the rows of `arrival_sql`, if the declaration has `arrived` or exact sums.

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
        Entity, features and event time, with all rows of a key in the same frame. None when another engine must compute
        them, or there is no event.

    Raises
    ------
    ValueError
        If sums do not fit 64 bits.
    """
    if not (rolling.arrived or rolling.is_exact):
        return None
    source = arrival_events_sql(rolling, entity)
    counted = connection.sql(f"SELECT count(*) FILTER (__counts) AS events, max(__us) FROM ({source})")
    events, newest = counted.pl().row(0)
    if not events:
        return None
    parts = -(-events * (len(rolling.windows) + 1) // CHANGES)
    keys = ", ".join(map(quoted, entity))

    def frames() -> Iterator[pl.DataFrame]:
        for part in range(parts):
            chosen = "" if parts == 1 else f" AND hash({keys}) % {parts} = {part}"
            some = connection.sql(f"SELECT * EXCLUDE (__counts) FROM ({source}) WHERE __counts{chosen}").pl()
            rows = rows_of_changes(some, rolling, entity, newest)
            yield rows.with_columns(pl.from_epoch(_AT, "us").dt.replace_time_zone("UTC").alias(event_time)).drop(_AT)

    return frames()


def rows_of_changes(events: pl.DataFrame, rolling: Rolling, entity: Sequence[str], newest: int) -> pl.DataFrame:
    """Compute the rows of some keys, up to an instant: entity, features, and `__at` in microseconds since 1970.

    Parameters
    ----------
    events
        Rows of `arrival_events_sql` that count, with all events of their keys.
    """
    longest = max(map(microseconds, rolling.windows))
    events = events.filter(pl.col("__known") < pl.col("__us") + longest)
    keys = events.select(entity).unique(maintain_order=True).with_row_index(_KEY)
    events = events.join(keys, on=list(entity), maintain_order="left").with_columns(pl.col(_KEY).cast(pl.Int64))
    grid = _Grid(events, rolling)
    features: dict[str, Any] = {}
    for name, item in rolling.aggregates.items():
        column = None if item.column is None else events.get_column(value_column(item.column))
        for window in rolling.windows:
            length = microseconds(window)
            label = f"{name}_{window_name(window)}"
            if item.function == "count":
                features[label] = grid.totals(length)
            elif column is not None and item.decimals is not None:
                scaled = events.get_column(scaled_column(item))
                _check_size(scaled, name)
                total = grid.totals(length, scaled.fill_null(0).to_numpy()) / 10.0**item.decimals
                if item.function == "mean":
                    number = pl.Series(grid.totals(length, column.is_not_null().cast(pl.Int64).to_numpy()))
                    features[label] = pl.select(pl.when(number > 0).then(pl.Series(total) / number)).to_series()
                else:
                    features[label] = total
            elif column is not None and item.function == "distinct":
                features[label] = grid.distinct(length, column)
            elif column is not None and item.function == "last":
                features[label] = grid.last(length, column)
        if item.function in {"min", "max"} and column is not None:
            found = grid.extremes(item.function, [microseconds(window) for window in rolling.windows], column)
            features |= {f"{name}_{window_name(w)}": v for w, v in zip(rolling.windows, found, strict=True)}
    rows = grid.points.with_columns(**features).filter(pl.col(_AT) <= newest)
    written = rows if rolling.rows == "changes" else rows.filter("__enters")
    return written.join(keys, on=_KEY, maintain_order="left").select(*entity, *rolling.columns(), _AT)


class _Grid:
    """All instants at which something changes for a key, sorted by key and instant, and what enters or leaves there."""

    def __init__(self, events: pl.DataFrame, rolling: Rolling) -> None:
        self._events = events.select(_KEY, "__us", "__known").with_row_index("__event")
        enters = self._events.select(_KEY, pl.col("__known").alias(_AT)).with_columns(__enters=True)
        leaves = [
            self._events.filter(pl.col("__known") < pl.col("__us") + microseconds(window)).select(
                _KEY, pl.col("__us").alias(_AT) + microseconds(window), pl.lit(value=False).alias("__enters")
            )
            for window in rolling.windows
        ]
        self.points = pl.concat([enters, *leaves]).group_by(_KEY, _AT).agg(pl.col("__enters").any()).sort(_KEY, _AT)
        numbered = self.points.select(_KEY, _AT).with_row_index("__place")
        self._numbered = numbered
        self._enter = self._places(pl.col("__known"))
        self._leave: dict[int, Integers] = {}
        us, known = (self._events.get_column(name).to_numpy() for name in ("__us", "__known"))
        self._us, self._known = us, known
        self._point_at = self.points.get_column(_AT).to_numpy()
        self._point_key = self.points.get_column(_KEY).to_numpy()

    def _places(self, at: pl.Expr) -> "Integers":
        """Position among the points of an instant of each event; -1 for none."""
        wanted = self._events.select(_KEY, at.alias(_AT))
        found = wanted.join(self._numbered, on=[_KEY, _AT], how="left", maintain_order="left")
        return found.get_column("__place").cast(pl.Int64).fill_null(-1).to_numpy()

    def totals(self, length: int, amounts: "Integers | None" = None) -> "Integers":
        """Sum of the amounts (1 each if None) of the events in a window, at each point."""
        inside = self._known < self._us + length
        changes = np.zeros(len(self._point_at), dtype=np.int64)
        added: Any = 1 if amounts is None else amounts[inside]
        np.add.at(changes, self._enter[inside], added)
        np.subtract.at(changes, self._leaves(length)[inside], added)
        return np.cumsum(changes)

    def distinct(self, length: int, values: pl.Series) -> "Integers":
        """Number of different values in a window, at each point."""
        spans = (
            self._events.with_columns(
                values.alias("__value"), pl.Series("__in", self._enter), pl.Series("__out", self._leaves(length))
            )
            .filter(pl.col("__value").is_not_null(), pl.col("__known") < pl.col("__us") + length)
            .sort(_KEY, "__value", "__in")
            .with_columns(pl.col("__out").cum_max().shift().over(_KEY, "__value").alias("__before"))
            .with_columns((pl.col("__before").is_null() | (pl.col("__in") > pl.col("__before"))).alias("__starts"))
            .with_columns(pl.col("__starts").cast(pl.Int64).cum_sum().alias("__span"))
            .group_by("__span")
            .agg(pl.col("__in").min(), pl.col("__out").max())
        )
        changes = np.zeros(len(self._point_at), dtype=np.int64)
        np.add.at(changes, spans.get_column("__in").to_numpy(), 1)
        np.subtract.at(changes, spans.get_column("__out").to_numpy(), 1)
        return np.cumsum(changes)

    def last(self, length: int, values: pl.Series) -> pl.Series:
        """Newest value in a window, at each point; of several at one instant the greatest."""
        frame = self._events.with_columns(values.alias("__value"), pl.Series("__in", self._enter))
        ranked = frame.filter(pl.col("__value").is_not_null()).sort(_KEY, "__us", "__value")
        newest = np.full(len(self._point_at), -1, dtype=np.int64)
        np.maximum.at(newest, ranked.get_column("__in").to_numpy(), np.arange(ranked.height))
        newest = np.maximum.accumulate(newest)
        if not ranked.height:
            return pl.Series(values.name, [None], dtype=values.dtype).new_from_index(0, len(newest))
        keys, us = ranked.get_column(_KEY).to_numpy(), ranked.get_column("__us").to_numpy()
        valid = (newest >= 0) & (keys[newest] == self._point_key) & (us[newest] > self._point_at - length)
        picked = ranked.get_column("__value")[np.where(valid, newest, 0)]
        return pl.select(pl.when(pl.Series(valid)).then(picked)).to_series()

    def extremes(self, function: Any, lengths: Sequence[int], values: pl.Series) -> list[pl.Series]:
        """Least or greatest value in each window, at each point."""
        order = np.argsort(self._enter, kind="stable").tolist()
        enter, us, plain = self._enter.tolist(), self._us.tolist(), values.to_list()
        results: list[list[Any]] = [[] for _ in lengths]
        kept, owner, position = NewestValues(function), -1, 0
        for place, (key, at) in enumerate(zip(self._point_key.tolist(), self._point_at.tolist(), strict=True)):
            if key != owner:
                kept, owner = NewestValues(function), key
            while position < len(order) and enter[order[position]] == place:
                event = order[position]
                position += 1
                if plain[event] is not None:
                    kept.add(us[event], plain[event])
            for result, length in zip(results, lengths, strict=True):
                result.append(kept.after(at - length))
        return [pl.Series(result, dtype=values.dtype) for result in results]

    def _leaves(self, length: int) -> "Integers":
        if length not in self._leave:
            self._leave[length] = self._places(pl.col("__us") + length)
        return self._leave[length]


def _check_size(scaled: pl.Series, name: str) -> None:
    """Refuse sums that could exceed 64 bits."""
    if float(scaled.cast(pl.Float64).abs().sum()) >= LARGEST:
        raise ValueError(
            f"aggregate '{name}': the values add up to more than {LARGEST:.1e} in units of their last decimal place, "
            "which 64 bits may not hold; declare fewer `decimals`, or leave out wrong values by `filter`"
        )
