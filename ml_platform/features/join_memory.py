"""The as-of join of keys and times in memory: a binary search among integers, each of which tells key and instant."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ml_platform.features.join import ROW, SEEN, TIME, VISIBLE, ResolvedLookup, identity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

_KEY, _MET = "__key", "__met"
_PLACES = 2**62  # keys × instants that an integer tells


def match_in_memory(asked: pl.DataFrame, known: pl.LazyFrame, lookup: ResolvedLookup, timestamp: str) -> pl.DataFrame:
    """Find, for each row asked for, the newest row of a view that was known and fresh.

    Parameters
    ----------
    asked
        Number of the spine's row, keys and timestamp, none of them null, in the view's types.
    known
        Keys and time of the view's rows; by knowledge time also when each was written.
    lookup
        The view.
    timestamp
        Column of `asked`.

    Returns
    -------
    polars.DataFrame
        Number of the spine's row and the columns of `known`, for those that found one, by key and time.
    """
    keys, time = list(lookup.on.values()), TIME
    if lookup.knowledge_time:
        time, known = VISIBLE, _newest_in_sight(known, keys).collect(engine="streaming").lazy()
    groups = asked.select(keys).unique(maintain_order=True).with_row_index(_KEY)
    events = known.join(groups.lazy(), on=keys).select(_KEY, pl.col(time).to_physical()).collect(engine="streaming")
    if events.is_empty():
        return asked.select(ROW, *keys).clear().lazy().join(known, on=keys).select(ROW, *identity(lookup)).collect()
    rows = asked.join(groups, on=keys)
    order, met = _latest(
        rows.get_column(_KEY).to_numpy(), rows.get_column(timestamp).to_physical().to_numpy().astype(np.int64),
        events.get_column(_KEY).to_numpy(), events.get_column(time).to_numpy().astype(np.int64), groups.height,
    )  # fmt: skip
    found = rows[order].with_columns(pl.Series(time, met).cast(asked.schema[timestamp]))
    if lookup.knowledge_time:
        found = found.join(known.collect(), on=[*keys, VISIBLE], maintain_order="left")
    fresh = pl.lit(value=True) if lookup.ttl is None else pl.col(TIME) >= pl.col(timestamp) - lookup.ttl
    return found.filter(fresh).select(ROW, *identity(lookup))


def _latest(
    keys: "Integers", at: "Integers", known_keys: "Integers", known_at: "Integers", number: int
) -> tuple["Integers", "Integers"]:
    """Find the latest known instant of each key that is not after the one asked for.

    Keys are below `number`. Gives the places of those asked for that have one, by key and instant, and what they have.
    """
    steps = None
    first, width = int(known_at.min()), int(known_at.max()) - int(known_at.min()) + 2
    if number * width > _PLACES:  # many keys over a long time: their rank in place of the instants
        steps = np.unique(known_at)
        at, known_at = np.searchsorted(steps, at, side="right") - 1, np.searchsorted(steps, known_at)
        first, width = 0, len(steps) + 1
    places = known_keys.astype(np.int64)
    places *= width
    places += known_at
    places -= first - 1  # 0 is for what comes before the first
    places.sort()
    wanted = keys.astype(np.int64) * width + np.clip(at - (first - 1), 0, width - 1)
    order = np.argsort(wanted)
    wanted = wanted[order]
    found = places[np.searchsorted(places, wanted, side="right") - 1]
    seen = (found <= wanted) & (found // width == wanted // width)
    met = found[seen] % width + (first - 1)
    return order[seen], met if steps is None else steps[met]


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
