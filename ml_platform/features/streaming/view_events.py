"""The events of each view in some rows of the raw table: what the query of its windows would take of them."""

from collections.abc import Sequence

import duckdb
import polars as pl

from ml_platform.features.online.store import to_micros
from ml_platform.features.rolling.arrival_sql import arrival_events_sql, scaled_column
from ml_platform.features.rolling.spec import value_column
from ml_platform.features.stream_spec import ARRIVED, ON_TIME, PARTITION, POSITION, TOO_LATE
from ml_platform.features.streaming.read_events import Refused
from ml_platform.features.streaming.state_file import encode
from ml_platform.features.streaming.view_windows import Event, ViewWindows

_BATCH, _SEQUENCE = "__batch", "__sequence"
_US, _KNOWN = "__us", "__known"


class ViewEvents:
    """Finds the events of views.

    The SQL of a view's events, filter included, runs on the rows in DuckDB, so that a filter means the same as in the
    view's table. That takes milliseconds a batch, so without a filter of the user's own Polars does the same.
    """

    def __init__(self, views: Sequence[ViewWindows]) -> None:
        self._views = views
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'; SET threads = 1")
        self._queries = [_query(one) for one in views]
        self._inputs = [[*dict.fromkeys(one.plan.inputs)] for one in views]

    def possible(
        self, rows: pl.DataFrame, sequence: int, refused: list[Refused]
    ) -> tuple[pl.DataFrame, list[Refused], list[list[Event]]]:
        """Find the events of each view, numbered from `sequence` on; refuse rows for which a filter or sum fails.

        Returns
        -------
        tuple
            The rows that are left, what is refused, and the events of each view.
        """
        numbered = _numbered(rows, sequence)
        left, refused, events = self._possible(numbered, refused)
        return left.drop(_SEQUENCE), refused, events

    def all(self, rows: pl.DataFrame, sequence: int) -> list[list[Event]]:
        """Find the events of each view, numbered from `sequence` on.

        Raises
        ------
        duckdb.Error
            If a filter or sum fails.
        """
        return self._found(_numbered(rows, sequence))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _possible(
        self, rows: pl.DataFrame, refused: list[Refused]
    ) -> tuple[pl.DataFrame, list[Refused], list[list[Event]]]:
        try:
            return rows, refused, self._found(rows)
        except duckdb.Error as error:
            if rows.height == 1:
                row = rows.row(0, named=True)
                reason = f"a view's filter or sum fails: {str(error).splitlines()[0]}"
                text = rows.drop(ARRIVED, TOO_LATE, PARTITION, POSITION, _SEQUENCE).write_ndjson().strip()
                letter = Refused(row[PARTITION], row[POSITION], to_micros(row[ARRIVED]), reason, text)
                return rows.clear(), [*refused, letter], [[] for _ in self._views]
        half = rows.height // 2
        first, refused, events = self._possible(rows[:half], refused)
        second, refused, others = self._possible(rows[half:], refused)
        return pl.concat([first, second]), refused, [[*one, *other] for one, other in zip(events, others, strict=True)]

    def _found(self, rows: pl.DataFrame) -> list[list[Event]]:
        if any(query is not None for query in self._queries):
            self._connection.register(_BATCH, rows)
        found = []
        for one, query, inputs in zip(self._views, self._queries, self._inputs, strict=True):
            frame = _selected(rows, one) if query is None else self._connection.sql(query).pl()
            times = [name for name in inputs if frame.schema[name].is_temporal()]
            if times:
                frame = frame.with_columns(pl.col(times).to_physical())
            columns = {name: frame.get_column(name).to_list() for name in inputs}
            values = zip(*(columns[name] for name in one.plan.inputs), strict=True) if inputs else [()] * frame.height
            about = (frame.get_column(name).to_list() for name in (_US, _KNOWN, _SEQUENCE))
            keys = map(encode, frame.select(one.view.entity).iter_rows())
            found.append(list(map(Event, keys, *about, values)))
        return found


def _numbered(rows: pl.DataFrame, after: int) -> pl.DataFrame:
    """Number events, so that those of one entity and instant are told apart."""
    return rows.with_columns(pl.Series(_SEQUENCE, range(after + 1, after + 1 + rows.height), dtype=pl.Int64))


def _query(one: ViewWindows) -> str | None:
    """SQL of a view's events; None where Polars selects them."""
    rolling = one.view.rolling
    assert rolling is not None
    if rolling.filter == ON_TIME:
        return None
    source = arrival_events_sql(rolling, one.view.entity, table=_BATCH, also=_SEQUENCE)
    return f"SELECT * EXCLUDE (__counts) FROM ({source}) WHERE __counts ORDER BY {_SEQUENCE}"


def _selected(rows: pl.DataFrame, one: ViewWindows) -> pl.DataFrame:
    """What the SQL of a view without a filter of its own selects."""
    rolling = one.view.rolling
    assert rolling is not None
    at, arrived = pl.col(rolling.time).dt.epoch("us"), pl.col(ARRIVED).dt.epoch("us")
    values = {value_column(name): pl.col(name) for name in rolling.inputs()}
    for item in rolling.aggregates.values():
        if item.decimals is not None and item.column is not None:
            scaled = (pl.col(item.column).cast(pl.Float64) * 10.0**item.decimals).round(mode="half_to_even")
            values[scaled_column(item)] = scaled.cast(pl.Int64)
    counts = [pl.col(name).is_not_null() for name in one.view.entity]
    return rows.filter(pl.col(TOO_LATE).ne_missing(other=True), pl.col(rolling.time).is_not_null(), *counts).select(
        *one.view.entity, at.alias(_US), pl.max_horizontal(at, arrived).alias(_KNOWN), _SEQUENCE, **values
    )
