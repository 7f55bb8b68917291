"""Point-in-time join: to each row, of every view, the newest values that were known at the row's own instant.

A view is read twice. First its keys and times alone, for the instant of the row that each row of the spine meets: one
as-of join of narrow columns. Then its features, of those rows only. So the features of all other rows are never held,
sorted or joined.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Literal

import polars as pl

from ml_platform.features.views import FeatureView
from ml_platform.spec import Lookup

Engine = Literal["polars", "duckdb"]

ROW, SEEN, TIME, VISIBLE = "__row", "__seen", "__time", "__visible"

_INDEX, _PLACE = "__index", "__place"
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class ResolvedLookup:
    """A view's rows and how they meet the spine.

    Attributes
    ----------
    view
        Name of the view; its features arrive as `<view>__<feature>`.
    frame
        The view's rows: entity columns, event time, features.
    on
        The view's entity column → the spine's column.
    features
        Features to take.
    event_time
        Column with the instant from which a row was known.
    created
        Column that decides between rows of one event time; the latest wins.
    ttl
        Age up to which a row may be used, inclusive; any when None.
    knowledge_time
        Whether a row counts from its `created` on only, so that what was written later is not seen before.
    """

    view: str
    frame: pl.LazyFrame
    on: dict[str, str]
    features: tuple[str, ...]
    event_time: str = "event_time"
    created: str | None = None
    ttl: timedelta | None = None
    knowledge_time: bool = False

    def __post_init__(self) -> None:
        if self.knowledge_time and self.created is None:
            raise ValueError(
                f"lookups: knowledge_time of '{self.view}' needs a view with a `created` column: the instant at which "
                "a row was written"
            )


def feature_column(view: str, feature: str) -> str:
    """Name of a view's feature in matrices and logs: `<view>__<feature>`."""
    return f"{view}__{feature}"


def resolve_lookup(lookup: Lookup, view: FeatureView, frame: pl.LazyFrame) -> ResolvedLookup:
    """Bring a model's `lookups` entry and the view it names together.

    Raises
    ------
    ValueError
        If the entry names a feature or an entity column that the view has not.
    """
    if unknown := sorted(set(lookup.features) - set(view.columns)):
        raise ValueError(f"lookups: view '{view.name}' has no feature {unknown}; it has {sorted(view.columns)}")
    if unknown := sorted(set(lookup.keys) - set(view.entity)):
        raise ValueError(
            f"lookups: keys {unknown} are no entity columns of '{view.name}'; those are {list(view.entity)}"
        )
    return ResolvedLookup(
        view=view.name,
        frame=frame,
        on={column: lookup.keys.get(column, column) for column in view.entity},
        features=lookup.features or tuple(view.columns),
        event_time=view.event_time,
        created=view.created,
        ttl=view.ttl,
        knowledge_time=lookup.knowledge_time,
    )


def point_in_time_join(
    spine: pl.LazyFrame,
    lookups: Sequence[ResolvedLookup],
    *,
    timestamp: str,
    engine: Engine = "polars",
    memory_limit: str | None = None,
) -> pl.LazyFrame:
    """Add each look-up's features to the spine, as they were known at the row's timestamp.

    Of the rows of one entity with `event_time` ≤ timestamp (and, by `knowledge_time`, `created` ≤ timestamp) the latest
    is taken; between equal event times the latest `created`. If it is older than `ttl` the features are null, as they
    are for an entity never seen and for a row whose key or timestamp is null. The spine keeps its rows, their order and
    their number.

    Parameters
    ----------
    spine
        Rows to add features to.
    lookups
        What to add.
    timestamp
        Column of the spine with the instant (UTC) as of which features are taken.
    engine
        `polars` holds a view's keys and times in memory, about 70 bytes a row; `duckdb` spills them to disk.
    memory_limit
        What DuckDB may hold, e.g. `4GB`; its own default when absent. The joined rows come on top.

    Returns
    -------
    polars.LazyFrame
        The spine's columns, then `<view>__<feature>` for each look-up in turn: joined already, one view at a time.

    See Also
    --------
    ml_platform.features.online : the newest rows alone, for requests.

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
    names = spine.collect_schema().names()
    wanted = {timestamp, *(column for lookup in lookups for column in lookup.on.values())}
    if missing := sorted(wanted - set(names)):
        raise ValueError(f"point-in-time join: the spine has no column {missing}; it has {names}")
    match: Callable[..., pl.DataFrame] = match_in_memory
    if engine == "duckdb":
        from ml_platform.features.join_duckdb import match_spilling

        match = partial(match_spilling, memory_limit=memory_limit)
    rows = spine.collect(engine="streaming")
    joined = [rows]
    for lookup in lookups:
        asked = rows.select(*lookup.on.values(), timestamp).with_row_index(ROW).drop_nulls()
        bounds = _within_reach(asked.get_column(timestamp), lookup.ttl)
        known = named_columns(lookup).filter(bounds).select(*_identity(lookup))
        joined.append(_values(lookup, match(asked, known, lookup, timestamp), rows.height))
    return pl.concat(joined, how="horizontal").lazy()


def named_columns(lookup: ResolvedLookup) -> pl.LazyFrame:
    """Give a look-up's rows under the names that they have beside the spine, without those that name no entity."""
    seen = [pl.col(lookup.created).alias(SEEN)] if lookup.created else []
    return lookup.frame.select(
        *(pl.col(column).alias(key) for column, key in lookup.on.items()),
        pl.col(lookup.event_time).alias(TIME),
        *seen,
        *(pl.col(feature).alias(feature_column(lookup.view, feature)) for feature in lookup.features),
    ).drop_nulls(
        [*lookup.on.values(), TIME]
    )  # a null key is no entity: without it here, a null in the spine finds none


def match_in_memory(asked: pl.DataFrame, known: pl.LazyFrame, lookup: ResolvedLookup, timestamp: str) -> pl.DataFrame:
    """Find, for each row asked for, the newest row of a view that was known and fresh.

    Parameters
    ----------
    asked
        Number of the spine's row, keys and timestamp, none of them null.
    known
        Keys and time of the view's rows; by knowledge time also when each was written.
    lookup
        The view.
    timestamp
        Column of `asked`.

    Returns
    -------
    polars.DataFrame
        Number of the spine's row and the columns of `known`, for those that found one, in any order.
    """
    time = TIME
    if lookup.knowledge_time:
        time, known = VISIBLE, _newest_in_sight(known, list(lookup.on.values()))
    rows = known.collect(engine="streaming")
    if not rows.get_column(time).is_sorted():  # a view's own table is
        rows = rows.sort(time)
    found = asked.sort(timestamp).join_asof(
        rows,
        left_on=timestamp,
        right_on=time,
        by=list(lookup.on.values()),
        strategy="backward",
        coalesce=False,
        check_sortedness=False,  # both sides are sorted; within groups Polars cannot see that
    )
    fresh = pl.lit(value=True) if lookup.ttl is None else pl.col(TIME) >= pl.col(timestamp) - lookup.ttl
    return found.filter(pl.col(TIME).is_not_null() & fresh).select(ROW, *_identity(lookup))


def _newest_in_sight(known: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    """Leave the rows of a view that are the newest event when they come into sight, with that instant.

    A row can be seen from the later of its event and its writing. One that comes into sight when a newer event is there
    already is never the newest, so that what is left is again one as-of join.
    """
    return (
        known.drop_nulls(SEEN)
        .with_columns(pl.max_horizontal(TIME, SEEN).alias(VISIBLE))
        .sort(TIME, SEEN)
        .with_row_index("__rank")
        .sort(VISIBLE, "__rank")
        .filter(pl.col("__rank") == pl.col("__rank").cum_max().over(keys))
        .unique([*keys, VISIBLE], keep="last", maintain_order=True)
        .drop("__rank")
    )


def _values(lookup: ResolvedLookup, found: pl.DataFrame, rows: int) -> pl.DataFrame:
    """Read the features of the rows that were found, in the spine's order; null for the others."""
    by = _identity(lookup)
    between = pl.col(TIME).is_between(found.get_column(TIME).min(), found.get_column(TIME).max())
    met = (
        named_columns(lookup)
        .filter(between)
        .with_row_index(_INDEX)
        .join(found.lazy(), on=by, how="semi")
        .collect(engine="streaming")
        .sort(*([SEEN] if lookup.created else []), _INDEX)
        .unique(by, keep="last", maintain_order=True)
        .with_row_index(_PLACE)
    )
    placed = found.join(met.select(_PLACE, *by), on=by)
    places = pl.Series([None], dtype=pl.get_index_type()).new_from_index(0, rows)
    places = places.scatter(placed.get_column(ROW), placed.get_column(_PLACE))
    return met.select(pl.col(feature_column(lookup.view, name)).gather(places) for name in lookup.features)


def _identity(lookup: ResolvedLookup) -> list[str]:
    """Columns that tell which row of a view is met; between rows alike in them `created` decides, or the order."""
    return [*lookup.on.values(), TIME, *([SEEN] if lookup.knowledge_time else [])]


def _within_reach(timestamps: pl.Series, ttl: timedelta | None) -> pl.Expr:
    """Tell the rows of a view that some timestamp could see, by time alone: what Parquet files can skip by."""
    earliest, latest = timestamps.min(), timestamps.max()
    if not isinstance(earliest, date) or not isinstance(latest, date):  # nobody asks
        return pl.lit(value=False)
    reach = pl.col(TIME) < latest + _MICROSECOND  # Python's instants drop nanoseconds
    return reach if ttl is None else reach & (pl.col(TIME) >= earliest - ttl)
