"""Point-in-time join: adds to each row the newest values of every view that were known at the row's timestamp.

A view is read twice. First only its keys and times: one as-of join of these narrow columns finds the view's row for
each row of the spine. Then the features of the rows that were found. So the features of all other rows are never held,
sorted or joined.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
import polars as pl

from ml_platform.features.point_in_time.lookup import (
    ROW,
    SEEN,
    TIME,
    ResolvedLookup,
    feature_column,
    identity,
    named_columns,
)
from ml_platform.features.point_in_time.ticks import AT, FROM, between, usable_ticks

Engine = Literal["polars", "duckdb"]


_INDEX, _MATCH = "__index", "__match"
_NEVER = -(2**63)  # without a TTL a row of any age may be used


def point_in_time_join(
    spine: pl.LazyFrame,
    lookups: Sequence[ResolvedLookup],
    *,
    timestamp: str,
    engine: Engine = "polars",
    memory_limit: str | None = None,
) -> pl.LazyFrame:
    """Add each look-up's features to the spine, as they were known at the row's timestamp.

    Of an entity's rows with `event_time` ≤ timestamp (and, with `knowledge_time`, `created` ≤ timestamp) the latest is
    taken; between equal event times the one with the latest `created`. Features are null if that row is older than
    `ttl`, if there is none, and if the spine's key or timestamp is null. The spine keeps its rows and their order.

    Parameters
    ----------
    spine
        Rows to add features to.
    lookups
        What to add.
    timestamp
        Column of the spine with the instant (of any time zone) as of which features are taken.
    engine
        `polars` holds a view's keys and times in memory, about 50 bytes a row; `duckdb` spills them to disk.
    memory_limit
        Memory that DuckDB may use, e.g. `4GB`; its own default when absent. The joined rows come on top.

    Returns
    -------
    polars.LazyFrame
        The spine's columns, then `<view>__<feature>` for each look-up in turn; already computed.

    Raises
    ------
    ValueError
        If the spine lacks a column, has one of another type than the view's, or has one with the name of a feature; if
        two look-ups have the same name; or if there is no such engine.

    See Also
    --------
    ml_platform.features.online.store : the newest rows alone, for requests.

    Examples
    --------
    >>> from datetime import datetime, timedelta, timezone
    >>> def at(hour): return datetime(2013, 1, 1, hour, tzinfo=timezone.utc)
    >>> spine = pl.LazyFrame({"origin": ["EWR", "EWR", "JFK"], "at": [at(9), at(12), at(9)]})
    >>> weather = pl.LazyFrame({"origin": ["EWR", "EWR"], "event_time": [at(8), at(9)], "temp": [30.0, 31.0]})
    >>> lookup = ResolvedLookup("weather", weather, {"origin": "origin"}, ("temp",), ttl=timedelta(hours=2))
    >>> point_in_time_join(spine, [lookup], timestamp="at").collect()["weather__temp"].to_list()
    [31.0, None, None]
    """
    _check_columns(spine.collect_schema().names(), lookups, timestamp)
    match = _matcher(engine, memory_limit)
    rows = spine.collect(engine="streaming")
    joined = [rows]
    for lookup in lookups:
        clock = named_columns(lookup).collect_schema()[TIME]
        spine_keys = _spine_keys(rows, lookup, timestamp).with_row_index(ROW).drop_nulls()
        first = _NEVER if lookup.ttl is None else spine_keys.get_column(FROM).min()
        bounds = between(pl.col(TIME), clock, first, spine_keys.get_column(AT).max())
        known = named_columns(lookup).filter(bounds).select(*identity(lookup))
        joined.append(_values(lookup, match(spine_keys, known, lookup), clock, rows.height))
    return pl.concat(joined, how="horizontal").lazy()


def _check_columns(names: list[str], lookups: Sequence[ResolvedLookup], timestamp: str) -> None:
    """Refuse a spine that lacks a column, and features that would have the same name as another column."""
    wanted = {timestamp, *(column for lookup in lookups for column in lookup.on.values())}
    if missing := sorted(wanted - set(names)):
        raise ValueError(f"point-in-time join: the spine has no column {missing}; it has {names}")
    features = [feature_column(lookup.view, name) for lookup in lookups for name in lookup.features]
    if duplicates := sorted({name for name in features if (names + features).count(name) > 1}):
        raise ValueError(
            f"point-in-time join: {duplicates} would appear twice; rename the spine's column, or give one look-up a "
            "`name`"
        )


def _matcher(engine: Engine, memory_limit: str | None) -> Callable[..., pl.DataFrame]:
    """The engine's function that finds the view's row for each row of the spine (raises ValueError)."""
    if engine not in get_args(Engine):
        raise ValueError(f"point-in-time join: there is no engine '{engine}'; there are {', '.join(get_args(Engine))}")
    if engine == "duckdb":
        from ml_platform.features.point_in_time.duckdb_engine import match_spilling

        return partial(match_spilling, memory_limit=memory_limit)
    from ml_platform.features.point_in_time.memory_engine import match_in_memory

    return match_in_memory


def _spine_keys(rows: pl.DataFrame, lookup: ResolvedLookup, timestamp: str) -> pl.DataFrame:
    """Keys of the spine in the view's types, and the ticks of the view that each row may use (raises ValueError)."""
    wanted = named_columns(lookup).collect_schema()
    columns = []
    for column, key in lookup.on.items():
        found, dtype = rows.schema[key], wanted[key]
        whole = found.is_integer() and dtype.is_integer()
        text = isinstance(found, pl.Categorical | pl.Enum) and dtype == pl.String
        if not (found in (dtype, pl.Null()) or whole or text):
            raise ValueError(
                f"point-in-time join: '{key}' of the spine is {found}, '{column}' of '{lookup.view}' is {dtype}; cast "
                "one of them"
            )
        columns.append(pl.col(key).cast(dtype, strict=False))  # null for a number that the view's type cannot hold
    found, dtype = rows.schema[timestamp], wanted[TIME]
    zoned = [isinstance(one, pl.Datetime) and one.time_zone is not None for one in (found, dtype)]
    if not all(zoned) and (found != dtype or not isinstance(dtype, pl.Datetime | pl.Date)):
        raise ValueError(
            f"point-in-time join: '{timestamp}' of the spine is {found}, '{lookup.event_time}' of '{lookup.view}' is "
            f"{dtype}; give it a time zone: dt.replace_time_zone('UTC'), or in SQL {timestamp}::TIMESTAMP AT TIME ZONE "
            "'UTC'"
        )
    return rows.select(*columns, *usable_ticks(rows.get_column(timestamp), dtype, lookup.ttl))


def _values(lookup: ResolvedLookup, matches: pl.DataFrame, clock: pl.DataType, rows: int) -> pl.DataFrame:
    """Read the features of the matches, in the spine's order; null where none was found."""
    by = identity(lookup)
    # `matches` is sorted, so rows of the spine that share a row of the view are neighbours.
    numbered = matches.with_columns(pl.struct(by).rle_id().alias(_MATCH))
    distinct = numbered.filter(pl.col(_MATCH).ne_missing(pl.col(_MATCH).shift(-1)))
    ticks = matches.get_column(TIME).to_physical()
    values = (
        named_columns(lookup)
        .filter(between(pl.col(TIME), clock, ticks.min(), ticks.max()))
        .with_row_index(_INDEX)
        .join(distinct.lazy().select(_MATCH, *by), on=by)
        .collect(engine="streaming")
    )
    order = values.select(pl.arg_sort_by(*([SEEN] if lookup.created else []), _INDEX)).to_series()
    # Of equal rows the last one counts: numpy keeps the value that is assigned last.
    place = np.full(distinct.height, -1)
    place[values.get_column(_MATCH)[order].to_numpy()] = order.to_numpy()
    places = pl.Series([None], dtype=pl.get_index_type()).new_from_index(0, rows)
    places = places.scatter(matches.get_column(ROW), place[numbered.get_column(_MATCH).to_numpy()])
    return values.select(pl.col(feature_column(lookup.view, name)).gather(places) for name in lookup.features)
