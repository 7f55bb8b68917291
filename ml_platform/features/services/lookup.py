"""Looks up the newest values of a plan's views: what is known of each key, from when on, and why there is none.

Serving depends on it: no Dagster, Polars or lake.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any, Literal

from ml_platform.features.online.store import Key, Row, to_instant, to_micros
from ml_platform.features.services.plan import DefinitionMoved, LookupPlan, PlannedView
from ml_platform.features.streaming.timeline import newer, row_at, stream_view

Status = Literal["present", "expired", "later", "unknown", "null_key"]
STATUSES: dict[Status, str] = {
    "present": "there are values, each of which may itself be null",
    "expired": "the values are older than the view's TTL, and not given out",
    "later": "the newest values were known only after the instant that was asked for, and there are no older ones",
    "unknown": "the online store has nothing of this key",
    "null_key": "a part of the key is null, so that nothing was looked up",
}
Read = Callable[[Sequence[tuple[str, Key]]], Sequence[Row | None]]
_NOBODY: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ViewValues:
    """What one view has for the rows of a request, in their order."""

    view: PlannedView
    status: list[Status]
    micros: list[int | None]  # event time in microseconds since 1970 (UTC), of expired values too
    values: list[Mapping[str, Any]]  # feature → value; empty where there is none

    def columns(self) -> dict[str, list[Any]]:
        """Values by the names that the answer gives them; null where there is none."""
        view = self.view
        return {
            column: [one.get(feature) for one in self.values]
            for feature, column in zip(view.features, view.columns, strict=True)
        }

    def event_times(self) -> list[datetime | None]:
        """From when on the values were known (UTC)."""
        return [None if micros is None else to_instant(micros) for micros in self.micros]

    def ages(self, now: int) -> list[float | None]:
        """Seconds since the event times, at an instant in microseconds since 1970; below 0 for one ahead of it."""
        return [None if micros is None else (now - micros) / 1e6 for micros in self.micros]


def look_up(
    plan: LookupPlan, rows: Sequence[Mapping[str, Any]], read: Read, as_of: datetime, *, strict: bool = False
) -> list[ViewValues]:
    """Look up all views for some rows in one round trip; each key is read once.

    The store keeps the newest values of each key: as of now these are what training would join to a row of this
    instant. As of an earlier instant they are that too, unless they were known only later; those are not given out.

    Parameters
    ----------
    plan
        What to look up.
    rows
        Values of the plan's fields by name, and of its request features where a key is one.
    read
        Reads (view, key) pairs: `OnlineStore.read`, or what guards it.
    as_of
        Instant from which ages and TTLs count (UTC).
    strict
        Whether values that were known only after that instant are left out; else a clock that is a little ahead of
        ours hides nothing.

    Raises
    ------
    DefinitionMoved
        When a view's values are of another definition than the plan's.

    Examples
    --------
    >>> from datetime import UTC
    >>> view = PlannedView("weather", "weather", "1f", ("origin",), ("temp",), ("temp",), 3600.0)
    >>> plan = LookupPlan("weather", None, (), frozenset(), (view,))
    >>> now = datetime(2013, 1, 1, 12, tzinfo=UTC)
    >>> stored = {"EWR": Row(to_micros(now) - 60_000_000, {"temp": 39.0}, "1f"), "JFK": Row(0, {"temp": 1.0}, "1f")}
    >>> rows = [{"origin": name} for name in ("EWR", "JFK", "LGA", None)]
    >>> [found] = look_up(plan, rows, lambda pairs: [stored.get(key[0]) for _, key in pairs], now)
    >>> found.status, found.columns(), found.ages(to_micros(now))[0]
    (['present', 'expired', 'unknown', 'null_key'], {'temp': [39.0, None, None, None]}, 60.0)
    """
    requests: dict[tuple[str, Key], int] = {}
    places = [_places(view, view.view, rows, requests) for view in plan.views]
    streams = [
        _places(view, stream_view(view.view), rows, requests) if view.is_streamed else None for view in plan.views
    ]
    stored = read(list(requests)) if requests else ()
    micros = to_micros(as_of)
    values = []
    for view, place, stream in zip(plan.views, places, streams, strict=True):
        entries = [None if one is None else stored[one] for one in place]
        if stream is not None:
            timelines = [None if one is None else stored[one] for one in stream]
            entries = [_streamed(view, *both, micros) for both in zip(entries, timelines, strict=True)]
        values.append(_values(view, place, entries, micros, strict))
    return values


def _places(
    view: PlannedView, name: str, rows: Sequence[Mapping[str, Any]], requests: dict[tuple[str, Key], int]
) -> list[int | None]:
    """Where each row's entry will be among the requests, which are added to; None for a key with a null."""
    if len(view.keys) == 1:
        [field] = view.keys
        return [
            None if (value := row[field]) is None else requests.setdefault((name, (value,)), len(requests))
            for row in rows
        ]
    fields = itemgetter(*view.keys)
    keys = map(fields, rows)
    return [None if None in key else requests.setdefault((name, key), len(requests)) for key in keys]


def _streamed(view: PlannedView, plain: Row | None, timeline: Row | None, as_of: int) -> Row | None:
    """Of a key's published or pushed row and its timeline the row that counts as of an instant."""
    if timeline is None or timeline.view_hash != view.view_hash:  # the stream has not begun for this definition
        return plain
    return newer(plain, row_at(timeline, as_of))


def _values(
    view: PlannedView, places: Sequence[int | None], entries: Sequence[Row | None], as_of: int, strict: bool
) -> ViewValues:
    oldest = None if view.ttl is None else as_of - view.ttl  # which still counts
    status: list[Status] = []
    micros: list[int | None] = []
    values: list[Mapping[str, Any]] = []
    for place, entry in zip(places, entries, strict=True):
        if entry is None:
            status.append("null_key" if place is None else "unknown")
            micros.append(None)
            values.append(_NOBODY)
            continue
        if entry.view_hash != view.view_hash:
            raise DefinitionMoved(view.view)
        micros.append(entry.micros)
        if oldest is not None and entry.micros < oldest:
            status.append("expired")
            values.append(_NOBODY)
        elif strict and entry.micros > as_of:
            status.append("later")
            values.append(_NOBODY)
        else:
            status.append("present")
            values.append(entry.values)
    return ViewValues(view, status, micros, values)
