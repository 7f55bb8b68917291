"""Point-in-time join: to each row, of every view, the newest values that were known at the row's own instant."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import polars as pl

from ml_platform.features.views import FeatureView
from ml_platform.spec import Lookup

Engine = Literal["polars", "duckdb"]

ROW, SEEN, TIME, VISIBLE = "__row", "__seen", "__time", "__visible"


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
        `polars` is the faster while all fits in memory; `duckdb` spills to disk and joins at once, one view at a time.
    memory_limit
        What DuckDB may hold, e.g. `4GB`; its own default when absent. The joined rows come on top.

    Returns
    -------
    polars.LazyFrame
        The spine's columns, then `<view>__<feature>` for each look-up in turn. Collect it with `engine="streaming"`
        where memory counts.

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
    if engine == "duckdb":
        from ml_platform.features.join_duckdb import join_spilling

        return join_spilling(spine, lookups, timestamp, memory_limit=memory_limit)
    joined = spine.with_row_index(ROW).sort(timestamp)
    for lookup in lookups:
        joined = _join_one(joined, lookup, timestamp)
    return joined.sort(ROW).drop(ROW)


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


def _join_one(spine: pl.LazyFrame, lookup: ResolvedLookup, timestamp: str) -> pl.LazyFrame:
    keys = list(lookup.on.values())
    if lookup.knowledge_time:
        return _join_known(spine, lookup, timestamp)
    known = (
        named_columns(lookup)
        .sort(TIME, *([SEEN] if lookup.created else []), maintain_order=lookup.created is None)
        .unique([*keys, TIME], keep="last", maintain_order=True)
        .drop(SEEN, strict=False)
    )
    return _asof(spine, known, timestamp, TIME, keys, tolerance=lookup.ttl).drop(TIME)


def _join_known(spine: pl.LazyFrame, lookup: ResolvedLookup, timestamp: str) -> pl.LazyFrame:
    """Join by the instant from which a row could be seen: the later of its event and its writing.

    A row that comes into sight when a newer event is there already is never the newest, so that what is left is again
    one as-of join.
    """
    keys = list(lookup.on.values())
    known = (
        named_columns(lookup)
        .drop_nulls(SEEN)
        .with_columns(pl.max_horizontal(TIME, SEEN).alias(VISIBLE))
        .sort(TIME, SEEN, maintain_order=True)
        .with_row_index("__rank")
        .sort(VISIBLE, "__rank")
        .filter(pl.col("__rank") == pl.col("__rank").cum_max().over(keys))
        .unique([*keys, VISIBLE], keep="last", maintain_order=True)
        .drop("__rank", SEEN)
    )
    joined = _asof(spine, known, timestamp, VISIBLE, keys, tolerance=None)
    if lookup.ttl is not None:
        fresh = pl.col(TIME) >= pl.col(timestamp) - lookup.ttl
        joined = joined.with_columns(
            pl.when(fresh)
            .then(pl.col(feature_column(lookup.view, feature)))
            .alias(feature_column(lookup.view, feature))
            for feature in lookup.features
        )
    return joined.drop(TIME, VISIBLE)


def _asof(
    spine: pl.LazyFrame, known: pl.LazyFrame, left: str, right: str, keys: list[str], *, tolerance: timedelta | None
) -> pl.LazyFrame:
    return spine.join_asof(
        known,
        left_on=left,
        right_on=right,
        by=keys,
        strategy="backward",
        tolerance=tolerance,
        coalesce=False,
        check_sortedness=False,  # both sides are sorted by the caller; within groups Polars cannot see that
    )
