"""The rows of streamed views as of the instant of each row of a request."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ml_platform.features.online.store import Row
from ml_platform.features.streaming.timeline import changes_within, newer, row_as_stored

Places = tuple[np.ndarray, int, int]  # entity of each row of the request; first and end of the entities' rows


class _View(Protocol):
    @property
    def stream(self) -> str | None: ...


def with_timelines(
    views: Sequence[_View], places: Sequence[Places], entries: Sequence[Row | None], as_of: np.ndarray
) -> tuple[list[Places], list[Row | None]]:
    """Put in place of each streamed view's rows those that count at the instants of the request's rows.

    Parameters
    ----------
    views
        The views looked up; `stream` names the timelines of a streamed one.
    places
        Where each view's rows are among the entries; a streamed view's timelines follow on its rows.
    entries
        What was read.
    as_of
        Instant of each row of the request in microseconds since 1970 (UTC).

    Returns
    -------
    tuple
        New places and entries, without timelines.
    """
    resolved: list[Row | None] = []
    moved = []
    for view, (index, first, last) in zip(views, places, strict=True):
        start = len(resolved)
        if view.stream is None:
            resolved += entries[first:last]
            moved.append((index, start, len(resolved)))
        else:
            rows_of, rows = _at(index, entries[first:last], entries[last : 2 * last - first], as_of)
            resolved += rows
            moved.append((rows_of, start, len(resolved)))
    return moved, resolved


def _at(
    index: np.ndarray, plain: Sequence[Row | None], timelines: Sequence[Row | None], as_of: np.ndarray
) -> tuple[np.ndarray, list[Row | None]]:
    """The rows that count, and which of them each row of the request takes."""
    first, last = int(as_of.min()), int(as_of.max())
    if first == last or not any(row is not None and changes_within(row, first, last) for row in timelines):
        at_last = [None if row is None else row_as_stored(row, last) for row in timelines]
        return index, [newer(*both) for both in zip(plain, at_last, strict=True)]
    distinct, rows_of = np.unique(np.stack([index, as_of], axis=1), axis=0, return_inverse=True)
    rows: list[Row | None] = []
    for entity, micros in distinct.tolist():
        timeline = timelines[entity]
        rows.append(newer(plain[entity], None if timeline is None else row_as_stored(timeline, micros)))
    return rows_of.reshape(-1), rows
