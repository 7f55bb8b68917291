"""The windows of all entities of one view: in memory those in use, on disk all of them."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ml_platform.features.streaming.key_windows import NEVER, KeyWindows
from ml_platform.features.streaming.plan import WindowPlan
from ml_platform.features.streaming.state_file import KeyRecord, StateFile, encode
from ml_platform.features.streaming.timeline import MOST, Timeline
from ml_platform.features.views.view import FeatureView

HELD = 500_000  # events in memory, of entities that were used last
_TRIMMED = 1024  # events that an entity may have on disk beyond those in its windows


class Event(NamedTuple):
    """An event of one view."""

    key: bytes
    us: int
    known: int
    sequence: int
    values: tuple[Any, ...]


class ViewWindows:
    """Takes the events of one view, and says what the online store has to get.

    Parameters
    ----------
    number
        Of the view in the state file.
    """

    def __init__(self, view: FeatureView, number: int, state: StateFile, *, held: int = HELD) -> None:
        assert view.rolling is not None
        self.view = view
        self.number = number
        self.plan = WindowPlan(view.rolling)
        self._state = state
        self._held = held
        self._windows: OrderedDict[bytes, KeyWindows] = OrderedDict()
        self._sizes: dict[bytes, int] = {}
        self._size = 0
        self._trimmed: dict[bytes, int] = {}  # key → events added since those on disk were trimmed

    def add(self, events: Sequence[Event], sequence: int) -> list[tuple[bytes, Timeline]]:
        """Let events enter; inside the transaction of their batch.

        Returns
        -------
        list
            The timelines of their entities.
        """
        touched: dict[bytes, KeyWindows] = {}
        kept = []
        for event in events:
            windows = touched.get(event.key)
            if windows is None:
                windows = touched[event.key] = self._load(event.key)
            if windows.add(event.us, event.known, event.values):
                kept.append((event.key, event.us, event.sequence, encode(event.values)))
                self._trimmed[event.key] = self._trimmed.get(event.key, 0) + 1
        self._state.add_events(self.number, kept)
        return self._written(touched, sequence)

    def refresh(self, until: int, sequence: int, most: int = 1000) -> list[tuple[bytes, Timeline]]:
        """Let time pass for entities whose timelines run out; inside a transaction."""
        touched = {}
        for key in self._state.keys_to_refresh(self.number, until, most):
            windows = touched[key] = self._load(key)
            windows.advance(until)
        return self._written(touched, sequence)

    def timelines(self, keys: Iterable[bytes]) -> Iterable[tuple[bytes, Timeline]]:
        """Timelines as the state has them."""
        for key in keys:
            windows = self._load(key)
            if windows.clock > NEVER:
                yield key, windows.timeline(MOST)
            self._evict()

    def forget(self, clock: int) -> int:
        """Delete what can be in no window any more; inside a transaction. Returns the number of entities."""
        gone = self._state.forget_quiet(self.number, clock - self.plan.longest)
        if gone:  # rare: whatever of them is in memory is read again
            self._windows.clear()
            self._sizes.clear()
            self._size = 0
        return gone

    def _written(self, touched: dict[bytes, KeyWindows], sequence: int) -> list[tuple[bytes, Timeline]]:
        timelines, records, horizons = [], [], []
        for key, windows in touched.items():
            if windows.clock == NEVER:
                continue  # its events were in no window when they arrived
            timeline = windows.timeline(MOST)
            timelines.append((key, timeline))
            refresh = timeline.changes[MOST // 2] if timeline.runs_out else None
            records.append(KeyRecord(key, windows.clock, windows.changed, refresh, sequence))
            self._resize(key, len(windows))
            if self._trimmed.get(key, 0) > _TRIMMED:
                horizons.append((key, windows.clock - self.plan.longest))
                del self._trimmed[key]
        self._state.set_keys(self.number, records)
        if horizons:
            self._state.forget_events(self.number, horizons)
        self._evict()
        return timelines

    def _load(self, key: bytes) -> KeyWindows:
        windows = self._windows.get(key)
        if windows is not None:
            self._windows.move_to_end(key)
            return windows
        record = self._state.key(self.number, key)
        if record is None:
            windows = KeyWindows(self.plan)
        else:
            events = self._state.events(self.number, key, record.clock - self.plan.longest)
            windows = KeyWindows(self.plan, record.clock, record.changed, events)
        self._windows[key] = windows
        self._resize(key, len(windows))
        return windows

    def _resize(self, key: bytes, size: int) -> None:
        size += 8  # what an entity takes without events, in events
        self._size += size - self._sizes.get(key, 0)
        self._sizes[key] = size

    def _evict(self) -> None:
        while self._size > self._held and len(self._windows) > 1:
            key, _ = self._windows.popitem(last=False)
            self._size -= self._sizes.pop(key)
            self._trimmed.pop(key, None)
