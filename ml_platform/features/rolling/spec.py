"""Rolling aggregates declared in YAML: trailing windows over the events of a table, compiled to one SQL query."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ml_platform.features.incremental_spec import Incremental
from ml_platform.instants import LONGEST
from ml_platform.lake.names import quoted
from ml_platform.spec.types import Duration, Strict

Function = Literal["count", "sum", "mean", "min", "max", "distinct", "last", "time_since"]

SUMS = {"sum", "mean"}
_WITHOUT_COLUMN = {"count", "time_since"}
_UNITS = ((timedelta(days=1), "d"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "m"), (timedelta(seconds=1), "s"))
_MICROSECOND = timedelta(microseconds=1)


class Aggregate(Strict):
    """A function of the events in each window; it gives one feature per window, `time_since` only one."""

    function: Function = Field(
        description="What is computed of the events in a window; `time_since` are the seconds since the newest event."
    )
    column: str | None = Field(None, description="Column of the source; none for count and time_since.")
    description: str = Field(description="What it means, without the window: `Sales.` becomes `Sales, last 7d.`")
    unit: str | None = Field(None, description="Unit of its values; seconds for time_since when absent.")
    type: Literal["number", "integer", "boolean", "string"] | None = Field(
        None, description="Type of `last`, `min` and `max`; number when absent."
    )
    decimals: int | None = Field(
        None,
        ge=0,
        le=9,
        description="Decimal places that `sum` and `mean` keep of each value, so that sums are exact in any order of "
        "events; without it they are sums of binary fractions, whose last digits depend on the order.",
    )

    @model_validator(mode="after")
    def _column_where_needed(self) -> Self:
        if self.decimals is not None and self.function not in SUMS:
            raise ValueError(f"function {self.function} takes no `decimals`: only sum and mean add values up")
        if (self.column is None) != (self.function in _WITHOUT_COLUMN):
            wanted = "takes no `column`" if self.column else "needs a `column`"
            raise ValueError(f"function {self.function} {wanted}")
        return self


class Rolling(Strict):
    """Trailing windows over the events of one lake table.

    At an instant t a window of length w holds the events with t − w < time ≤ t, and with `arrived` only those that had
    arrived by t. By default a row is written at every
    event and whenever an event leaves a window, so that the newest row of an entity is exact at any time. With
    `rows: events` rows are written only at events, so the newest row is as of the entity's last event. With `every`
    they are written at regular ticks, which `time_since` needs because it changes all the time. No row is later than
    the newest event of the whole table.
    """

    source: str = Field(pattern=r"^[a-z][a-z0-9_]*(/[A-Za-z0-9_]+)+$", description="Lake table, e.g. raw/orders.")
    time: str = Field(description="Column with the instant from which an event was known (UTC).")
    arrived: str | None = Field(
        None,
        description="Column with the instant at which an event arrived, if later than `time`: it counts only from then "
        "on, so that rows hold what was known at their instant. Set by itself for a view with a `stream`.",
    )
    filter: str | None = Field(None, description="SQL condition that selects the events that count.")
    windows: tuple[Duration, ...] = Field(
        min_length=1,
        description="Lengths of the trailing windows, in whole seconds; each aggregate gives one feature per window.",
    )
    rows: Literal["changes", "events"] = Field(
        "changes", description="When a row is written: whenever an event enters or leaves a window, or only at events."
    )
    every: Duration | None = Field(None, description="Ticks at which rows are written, counted from 1970 (UTC).")
    incremental: bool = Field(False, description="Compute only the days that changed events can affect.")
    aggregates: dict[str, Aggregate] = Field(
        min_length=1, description="Name → aggregate; features are `<name>_<window>`."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        spans = [*self.windows, *([self.every] if self.every else [])]
        if wrong := [str(span) for span in spans if span <= timedelta(0) or span % timedelta(seconds=1)]:
            raise ValueError(f"windows and every: wanted positive whole seconds, found {wrong}")
        if len(set(self.windows)) < len(self.windows):
            raise ValueError(f"windows: one appears twice in {list(map(window_name, self.windows))}")
        if self.every is not None and "rows" in self.model_fields_set:
            raise ValueError("rows and every: each says when rows are written; leave one out")
        if self.every is not None and (self.arrived or self.is_exact):
            raise ValueError("every: ticks go neither with `arrived` nor with `decimals`; leave `every` out")
        inexact = [name for name, item in self.aggregates.items() if item.function in SUMS and item.decimals is None]
        if inexact and (self.arrived or self.is_exact):
            raise ValueError(
                f"aggregates: {inexact} need `decimals`, as all sums of a view with `arrived`, a stream, or another "
                "exact sum: 2 for cents, 0 for whole numbers and booleans"
            )
        since = [name for name, item in self.aggregates.items() if item.function == "time_since"]
        if since and self.every is None:
            raise ValueError(f"aggregates: {since} grows with every instant: declare `every`, e.g. `every: 1 hour`")
        return self

    @property
    def is_exact(self) -> bool:
        """Whether any sum is one of scaled integers."""
        return any(item.decimals is not None for item in self.aggregates.values())

    def columns(self) -> dict[str, dict[str, Any]]:
        """Features by name, as `FeatureView.columns` takes them."""
        columns: dict[str, dict[str, Any]] = {}
        for name, item in self.aggregates.items():
            kind = {"count": "integer", "distinct": "integer"}.get(item.function, item.type or "number")
            if item.function == "time_since":
                columns[name] = {"type": "number", "description": item.description, "unit": item.unit or "s"}
                continue
            for window in self.windows:
                text = f"{item.description.rstrip('.')}, last {window_name(window)}."
                columns[f"{name}_{window_name(window)}"] = {"type": kind, "description": text, "unit": item.unit}
        return columns

    def shifts(self) -> tuple[timedelta, ...]:
        """Times after an event at which rows are written, when there is no `every`."""
        return (timedelta(0), *(self.windows if self.rows == "changes" else ()))

    def inputs(self) -> list[str]:
        """Columns of the source that are aggregated."""
        return sorted({item.column for item in self.aggregates.values() if item.column})

    def declaration(self) -> Incremental:
        """Make the declaration for incremental computation that follows from the windows."""
        look_back = min(max(self.windows), LONGEST) + min(self.every or timedelta(0), LONGEST)
        return Incremental(look_back=look_back, times={self.source: self.time})

    def sql(self, entity: tuple[str, ...], event_time: str, *, chosen: str = "", newest: int | None = None) -> str:
        """Compile to a query over the source that gives the entity, the event time and the features.

        That of windows with `arrived` or exact sums is `arrival_sql`; `compiled_sql` chooses.

        `chosen`, a SQL condition, restricts the events; `newest` is then the time (`__us`) of the newest of all events.
        """
        keys, names = ", ".join(map(quoted, entity)), self.inputs()
        events = self.events_sql(entity) + (f" AND {chosen}" if chosen else "")
        end = "(SELECT max(__us) FROM events)" if newest is None else str(newest)
        longest = microseconds(max(self.windows))
        blanks = "".join(f", NULL AS {_value(name)}" for name in names)
        inputs = "".join(f", {_value(name)}" for name in names)
        if self.every is None:
            shifts = ", ".join(f"({microseconds(shift)})" for shift in self.shifts())
            points = f"SELECT {keys}, __us + shift AS __us FROM events, (VALUES {shifts}) AS t(shift) WHERE __counts"
        else:
            tick = microseconds(self.every)
            points = (
                f"SELECT {keys}, unnest(generate_series(tick, least(following - {tick}, tick + {longest}, "
                f"{end}), {tick})) AS __us FROM (\n"
                f"        SELECT *, coalesce(lead(tick) OVER (PARTITION BY {keys} ORDER BY tick), 9223372036854775807) "
                f"AS following FROM (\n"
                f"            SELECT DISTINCT {keys}, __us + ((-__us) % {tick} + {tick}) % {tick} AS tick "
                f"FROM events WHERE __counts))"
            )
        features = ",\n    ".join(f"{text} AS {quoted(name)}" for name, text in self._features())
        windows = ",\n    ".join(
            f"w{number} AS (PARTITION BY {keys} ORDER BY __us "
            f"RANGE BETWEEN {microseconds(window) - 1} PRECEDING AND CURRENT ROW)"
            for number, window in enumerate(self.windows)
        )
        outer = ", ".join(map(quoted, [*entity, *self.columns()]))
        return (
            f"WITH events AS MATERIALIZED (\n    {events}\n), points AS (\n    {points}\n), rows AS (\n"
            f"    SELECT {keys}, __us{inputs}, true AS __event FROM events WHERE __counts\n"
            f"    UNION ALL BY NAME SELECT DISTINCT {keys}, __us{blanks}, false AS __event FROM points\n"
            f"    WHERE __us <= {end}\n"
            f"), computed AS (\n    SELECT {keys}, __us, __event,\n    {features}\n"
            f"    FROM rows\n    WINDOW {windows}\n)\n"
            f"SELECT {outer}, make_timestamp(__us) AT TIME ZONE 'UTC' AS {quoted(event_time)}\n"
            f"FROM computed WHERE NOT __event"
        )

    def events_sql(self, entity: Sequence[str]) -> str:
        """Query for the events: entity, time (`__us` since 1970), values, and whether the event counts (`__counts`)."""
        values = "".join(f", {quoted(name)} AS {_value(name)}" for name in self.inputs())
        schema, _, table = self.source.partition("/")
        not_null = " AND ".join(f"{quoted(name)} IS NOT NULL" for name in entity)
        return (
            f"SELECT {', '.join(map(quoted, entity))}, epoch_us({quoted(self.time)}) AS __us{values}, "
            f"coalesce({not_null} AND ({self.filter or 'true'}), false) AS __counts\n"
            f"    FROM {quoted(schema)}.{quoted(table)} WHERE {quoted(self.time)} IS NOT NULL"
        )

    def _features(self) -> list[tuple[str, str]]:
        longest = max(range(len(self.windows)), key=lambda number: self.windows[number])
        features = []
        for name, item in self.aggregates.items():
            if item.function == "time_since":
                features.append((name, f"(__us - max(__us) FILTER (__event) OVER w{longest}) / 1e6"))
                continue
            for number, window in enumerate(self.windows):
                text = f"{_call(item)} OVER w{number}"
                nothing_is_zero = item.function == "sum"
                features.append((f"{name}_{window_name(window)}", f"coalesce({text}, 0)" if nothing_is_zero else text))
        return features


def window_name(window: timedelta) -> str:
    """Short name of a window, as in the names of its features.

    Examples
    --------
    >>> window_name(timedelta(days=7)), window_name(timedelta(minutes=90))
    ('7d', '90m')
    """
    unit, letter = next((unit, letter) for unit, letter in _UNITS if not window % unit)
    return f"{window // unit}{letter}"


def _call(item: Aggregate) -> str:
    if item.function == "count":
        return "count(*) FILTER (__event)"
    column = _value(item.column or "")
    if item.function == "distinct":
        return f"count(DISTINCT {column}) FILTER (__event)"
    if item.function == "last":  # of several at the same instant the greatest, so that the result is reproducible
        return f"arg_max({column}, {{'us': __us, 'value': {column}}}) FILTER (__event AND {column} IS NOT NULL)"
    if item.function == "mean":  # DuckDB can sum booleans but not average them
        return f"avg({column}::DOUBLE) FILTER (__event)"
    return f"{item.function}({column}) FILTER (__event)"


def microseconds(span: timedelta) -> int:
    """Length of a span in whole microseconds, which 64 bits hold."""
    return min(span, LONGEST) // _MICROSECOND


def value_column(name: str) -> str:
    """Name of a source's column among the events."""
    return f"__value_{name}"


def _value(name: str) -> str:
    return quoted(value_column(name))
