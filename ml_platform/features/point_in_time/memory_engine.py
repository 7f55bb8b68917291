"""The as-of join of keys and times in memory: a binary search among integers that each encode a key and an instant."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ml_platform.features.point_in_time.keyed_instants import KeyedInstants
from ml_platform.features.point_in_time.lookup import ROW, SEEN, TIME, VISIBLE, ResolvedLookup, identity
from ml_platform.features.point_in_time.ticks import AT, FROM

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

_KEY, _MATCH = "__key", "__match"


def match_in_memory(spine_keys: pl.DataFrame, known: pl.LazyFrame, lookup: ResolvedLookup) -> pl.DataFrame:
    """Find for each row of the spine the newest row of a view that was known at its timestamp and within the TTL.

    Parameters
    ----------
    spine_keys
        Rows of the spine: number, keys in the view's types, and the ticks that it may use, none of them null.
    known
        Rows of the view: keys and time; with `knowledge_time` also when each was written.
    lookup
        The view.

    Returns
    -------
    polars.DataFrame
        Number of the spine's row and the columns of `known`, for rows with a match, sorted by key and time.
    """
    keys, time = list(lookup.on.values()), TIME
    if lookup.knowledge_time:
        time, known = VISIBLE, newest_when_visible(known, keys).collect(engine="streaming").lazy()
    groups = spine_keys.select(keys).unique(maintain_order=True).with_row_index(_KEY)
    events = known.join(groups.lazy(), on=keys).select(_KEY, pl.col(time).to_physical()).collect(engine="streaming")
    if events.is_empty():
        return (
            spine_keys.select(ROW, *keys).clear().lazy().join(known, on=keys).select(ROW, *identity(lookup)).collect()
        )
    rows = spine_keys.join(groups, on=keys)
    order, instants = _latest(
        rows.get_column(_KEY).to_numpy(), rows.get_column(AT).to_numpy(),
        events.get_column(_KEY).to_numpy(), events.get_column(time).to_numpy().astype(np.int64), groups.height,
    )  # fmt: skip
    matches = rows[order].with_columns(pl.Series(time, instants).cast(known.collect_schema()[time]))
    if lookup.knowledge_time:
        matches = matches.join(known.collect(), on=[*keys, VISIBLE], maintain_order="left")
    fresh = pl.lit(value=True) if lookup.ttl is None else pl.col(TIME).to_physical() >= pl.col(FROM)
    return matches.filter(fresh).select(ROW, *identity(lookup))


def _latest(
    keys: "Integers", at: "Integers", known_keys: "Integers", known_at: "Integers", number: int
) -> tuple["Integers", "Integers"]:
    """Find for each key and instant asked for the latest known instant of the key that is not after it.

    Keys are below `number`.

    Returns
    -------
    tuple
        Positions in `keys` and `at` for which there is one, sorted by key and instant, and the instants found.
    """
    known = KeyedInstants(known_keys, known_at, number)
    wanted = known.encode(keys, at)
    order = np.argsort(wanted)
    latest = known.latest(wanted[order])
    seen = latest >= 0
    return order[seen], known.instants(latest[seen])


def newest_when_visible(known: pl.LazyFrame, keys: list[str]) -> pl.LazyFrame:
    """Keep the rows of a view that are the newest event when they become visible, with that instant.

    A row is visible from its event time or from when it was written, whichever is later. A row that becomes visible
    after a newer event is never the newest. Without such rows, one as-of join by the instant of visibility is enough.
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
