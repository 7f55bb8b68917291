"""A view in memory, sorted once: finds the row that each of many rows may use, chunk after chunk.

It gives what `point_in_time_join` gives, which reads the view anew for each spine, and what serving's look-ups give.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Self

import numpy as np
import polars as pl

from ml_platform.features.point_in_time.keyed_instants import KeyedInstants
from ml_platform.features.point_in_time.lookup import SEEN, TIME, VISIBLE, ResolvedLookup, feature_column, named_columns
from ml_platform.features.point_in_time.memory_engine import newest_when_visible
from ml_platform.features.point_in_time.ticks import AT, FROM, between, usable_ticks
from ml_platform.features.views.declared_types import UTC_MICROSECONDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]

_KEY, _INDEX = "__key", "__index"


class LookupIndex:
    """The rows of one look-up by key and time; make it with `point_in_time` or `newest`.

    Attributes
    ----------
    values
        Features of each row of the index, as `<view>__<feature>`.

    Examples
    --------
    >>> from datetime import timedelta, timezone
    >>> def at(hour): return datetime(2013, 1, 1, hour, tzinfo=timezone.utc)
    >>> weather = pl.LazyFrame({"origin": ["EWR", "EWR"], "event_time": [at(8), at(9)], "temp": [30.0, 31.0]})
    >>> lookup = ResolvedLookup("weather", weather, {"origin": "origin"}, ("temp",), ttl=timedelta(hours=2))
    >>> rows, asked = pl.DataFrame({"origin": ["EWR", "EWR", "JFK"]}), pl.Series([at(8), at(12), at(9)])
    >>> LookupIndex.point_in_time(lookup).find(rows, asked).tolist()
    [0, -1, -1]
    >>> LookupIndex.newest(lookup).find(rows, asked).tolist()
    [0, -1, -1]
    """

    def __init__(self, lookup: ResolvedLookup, known: pl.DataFrame, time: str, *, newest: bool) -> None:
        self.on = dict(lookup.on)
        self.names = tuple(feature_column(lookup.view, name) for name in lookup.features)
        self.values = known.select(self.names)
        self._ttl = lookup.ttl
        self._clock = known.schema[TIME]
        keys = list(lookup.on.values())
        self._groups = known.select(keys).unique(maintain_order=True).with_row_index(_KEY)
        self._times = known.get_column(TIME).to_physical().to_numpy().astype(np.int64)
        self._instants: KeyedInstants | None = None
        if not newest and known.height:
            codes = known.select(pl.struct(keys).rle_id().alias(_KEY)).to_series().to_numpy()
            ticks = known.get_column(time).to_physical().to_numpy().astype(np.int64)
            self._instants = KeyedInstants(codes, ticks, self._groups.height)

    @classmethod
    def point_in_time(cls, lookup: ResolvedLookup, *, span: tuple[datetime, datetime] | None = None) -> Self:
        """Index all rows of a view, to be found as they were known at an instant.

        Parameters
        ----------
        lookup
            The view.
        span
            First and last instant (UTC) that will be asked about, if that is known: other rows need not be held.
        """
        named, keys = named_columns(lookup), list(lookup.on.values())
        if span is not None:
            clock = named.collect_schema()[TIME]
            ticks = pl.DataFrame(usable_ticks(pl.Series(span, dtype=UTC_MICROSECONDS), clock, lookup.ttl))
            first = ticks.get_column(FROM).min() if lookup.ttl is not None else -(2**63)
            named = named.filter(between(pl.col(TIME), clock, first, ticks.get_column(AT).max()))
        # Of rows with equal keys and times the one created last counts, else the last one.
        seen = [SEEN] if lookup.created else []
        known = named.with_row_index(_INDEX).sort(*keys, TIME, *seen, _INDEX).drop(_INDEX)
        identity = [*keys, TIME, *(seen if lookup.knowledge_time else [])]
        known = known.unique(identity, keep="last", maintain_order=True)
        if lookup.knowledge_time:
            known = newest_when_visible(known, keys).sort(*keys, VISIBLE)
        time = VISIBLE if lookup.knowledge_time else TIME
        return cls(lookup, known.collect(engine="streaming"), time, newest=False)

    @classmethod
    def newest(cls, lookup: ResolvedLookup) -> Self:
        """Index the newest row of each entity, whatever instant is asked about, as the online store has it."""
        order = [TIME, *([SEEN] if lookup.created else [])]
        keys = list(lookup.on.values())
        known = named_columns(lookup).sort(order).unique(keys, keep="last", maintain_order=True).sort(keys)
        return cls(lookup, known.collect(), TIME, newest=True)

    def find(self, rows: pl.DataFrame, at: pl.Series) -> "Integers":
        """Position in `values` of the row that each row may use; -1 for none.

        Parameters
        ----------
        rows
            Rows with the look-up's keys.
        at
            Instant of each row, without nulls.

        Raises
        ------
        ValueError
            When a key is of another type than the view's.
        """
        keys = list(self.on.values())
        if not len(self._times):
            return np.full(rows.height, -1)
        asked = rows.select(keys)
        if asked.schema != (wanted := self._groups.drop(_KEY).schema):
            asked = self._in_types(asked, wanted)
        places = asked.join(self._groups, on=keys, how="left", maintain_order="left").get_column(_KEY)
        codes = places.cast(pl.Int64).fill_null(-1).to_numpy()
        ticks = dict(zip((AT, FROM), usable_ticks(at, self._clock, self._ttl), strict=False))
        if self._instants is None:
            positions = codes.copy()
        else:
            known = self._instants
            positions = known.latest(known.encode(np.maximum(codes, 0), ticks[AT].to_numpy()))
            positions[codes < 0] = -1
        if FROM in ticks:
            positions[self._times[positions] < ticks[FROM].to_numpy()] = -1
        return positions

    def _in_types(self, asked: pl.DataFrame, wanted: pl.Schema) -> pl.DataFrame:
        """The keys in the types of the view, null where it has no such value."""
        columns = []
        for name, dtype in wanted.items():
            found = asked.schema[name]
            if not (found in (dtype, pl.Null()) or (found.is_integer() and dtype.is_integer())):
                raise ValueError(f"look-up: '{name}' of the rows is {found}, of the view {dtype}; cast one of them")
            columns.append(pl.col(name).cast(dtype, strict=False))
        return asked.select(columns)
