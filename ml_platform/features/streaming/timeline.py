"""An entity's values now and as time goes on without further events: what a stream writes to the online store.

A count over one minute falls to 0 a minute after the last event, when nobody writes anything. So a row holds its own
future: the next instants at which an event leaves a window, with what changes there. A reader takes the values of the
instant that it asks about. A timeline is stored under the pseudo-view `<view>@stream`, beside the rows of `<view>`
that are published or pushed; of both the one with the later event time counts, and at equal times the pushed one.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from ml_platform.features.online.store import Row

CHANGES, DELTAS = "__changes", "__deltas"  # columns of the pseudo-view beside the features
MOST = 16  # instants that a row holds in advance, one after the other

Delta = list[tuple[int, Any]]  # position of a feature, its value from then on

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[list[tuple[int, Any]]]).decode


class Timeline(NamedTuple):
    """The values of one entity from `since` on.

    Attributes
    ----------
    since
        Event time of `values` in microseconds since 1970: the last instant at which something changed.
    values
        Values of the features, in the order of `feature_order`.
    changes
        Later instants at which they change, if no event comes.
    deltas
        What changes at each of them.
    runs_out
        Whether there are further changes, so that the timeline has to be written again in time. Its last changes are
        then those at which a window is empty in the end: whatever happens to the stream, no value counts for ever.
    """

    since: int
    values: list[Any]
    changes: list[int]
    deltas: list[Delta]
    runs_out: bool = False

    def stored(self) -> tuple[Any, ...]:
        """Values of the pseudo-view's row: the features, `CHANGES`, `DELTAS`."""
        return (*self.values, self.changes, _encode(self.deltas))


def stream_view(view: str) -> str:
    """Name under which the online store holds a view's timelines; no view can have it."""
    return f"{view}@stream"


def feature_order(columns: Iterable[str]) -> tuple[str, ...]:
    """Order of the features in a timeline: by name, as a view's columns may change places without another meaning."""
    return tuple(sorted(columns))


def row_at(stored: Row, micros: int) -> Row:
    """The row of an entity as of an instant in microseconds since 1970 (UTC), from its timeline.

    Before the timeline's begin it is the first one: an online store keeps the newest values alone.

    Examples
    --------
    >>> deltas = _encode([[(0, 1), (1, 4.0)], [(0, 0), (1, 0.0)]])
    >>> stored = Row(1_000, {"orders": 2, "spent": 5.0, "__changes": [2_000, 3_000], "__deltas": deltas})
    >>> for micros in (1_500, 2_000, 9_000):
    ...     print(row_at(stored, micros))
    Row(micros=1000, values={'orders': 2, 'spent': 5.0})
    Row(micros=2000, values={'orders': 1, 'spent': 4.0})
    Row(micros=3000, values={'orders': 0, 'spent': 0.0})
    """
    row = row_as_stored(stored, micros)
    values = {name: value for name, value in row.values.items() if name not in {CHANGES, DELTAS}}
    return Row(row.micros, values, stored.view_hash)


def row_as_stored(stored: Row, micros: int) -> Row:
    """Do as `row_at`, twice as fast: the timeline's own columns stay among the values."""
    changes = stored.values[CHANGES]
    if not changes or micros < changes[0]:
        return stored
    values, names = stored.values.copy(), list(stored.values)
    passed = bisect_right(changes, micros)
    for delta in _decode(values[DELTAS])[:passed]:
        for place, value in delta:
            values[names[place]] = value
    return Row(changes[passed - 1], values, stored.view_hash)


def changes_within(stored: Row, after: int, until: int) -> bool:
    """Whether a timeline changes later than one instant and no later than another."""
    changes = stored.values[CHANGES]
    return bisect_right(changes, after) != bisect_right(changes, until)


def newer(plain: Row | None, streamed: Row | None) -> Row | None:
    """Of an entity's published or pushed row and its streamed one the row that counts."""
    if plain is None or streamed is None:
        return streamed if plain is None else plain
    return plain if plain.micros >= streamed.micros else streamed
