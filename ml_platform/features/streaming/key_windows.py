"""The windows of one entity, kept up to date event by event.

All that is kept are whole numbers, counts of values and the newest values, so that what enters and leaves again leaves
no trace: the features are those that `rolling.change_engine` computes of the same events, to the last digit.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from heapq import merge
from typing import Any

from ml_platform.features.rolling.newest_values import NewestValues
from ml_platform.features.streaming.plan import WindowPlan
from ml_platform.features.streaming.timeline import Delta, Timeline

_FORGET = 256  # events that have left all windows, before they are dropped
NEVER = -(2**62)


class _Window:
    """What is kept of one window."""

    __slots__ = ("count", "counters", "numbers", "start", "sums")

    def __init__(self, plan: WindowPlan) -> None:
        self.start = 0  # position of the first event that has not left
        self.count = 0
        self.sums = [0] * len(plan.kinds)
        self.numbers = [0] * len(plan.kinds)  # of values that are not null
        self.counters: list[dict[Any, int]] = [{} for _ in plan.kinds]

    def copy(self, plan: WindowPlan) -> "_Window":
        other = _Window(plan)
        other.start, other.count = self.start, self.count
        other.sums, other.numbers = self.sums.copy(), self.numbers.copy()
        other.counters = [_Overlay(counter) if counter else {} for counter in self.counters]
        return other

    def change(self, plan: WindowPlan, values: tuple[Any, ...], sign: int) -> None:
        """Add (1) or remove (-1) an event."""
        self.count += sign
        for place in plan.sums:
            if (value := values[place]) is not None:
                self.sums[place] += sign * value
                self.numbers[place] += sign
        for place in plan.distinct:
            if (value := values[place]) is not None:
                counter = self.counters[place]
                number = counter.get(value, 0) + sign
                if number:
                    counter[value] = number
                else:
                    del counter[value]


class _Overlay(dict[Any, int]):
    """A counter's numbers as they would become, over those that stay as they are."""

    def __init__(self, base: dict[Any, int]) -> None:
        super().__init__()
        self._base, self._length = base, len(base)

    def get(self, value: Any, default: Any = None) -> Any:
        return super().get(value, self._base.get(value, default))

    def __delitem__(self, value: Any) -> None:
        super().__setitem__(value, 0)
        self._length -= 1

    def __len__(self) -> int:
        return self._length


class KeyWindows:
    """The windows of one entity as of an instant.

    Parameters
    ----------
    plan
        What the windows compute.
    clock
        Instant in microseconds since 1970 (UTC).
    changed
        When the values last changed.
    events
        Events (time, values) that had arrived by then and may be in a window, sorted by time.
    """

    __slots__ = ("_newest", "_plan", "_times", "_values", "_windows", "changed", "clock")

    def __init__(
        self, plan: WindowPlan, clock: int = NEVER, changed: int = NEVER, events: Iterable[tuple[int, Any]] = ()
    ) -> None:
        self._plan = plan
        self.clock = clock
        self.changed = changed
        self._times: list[int] = []
        self._values: list[tuple[Any, ...]] = []
        self._windows = [_Window(plan) for _ in plan.lengths]
        self._newest = [NewestValues(kind) if kind in {"last", "min", "max"} else None for kind in plan.kinds]  # type: ignore[arg-type]
        for us, values in events:
            self._enter(us, values)

    def __len__(self) -> int:
        return len(self._times)

    def add(self, us: int, known: int, values: tuple[Any, ...]) -> bool:
        """Let an event enter that counts from `known` on; return whether it is in any window then."""
        if known >= us + self._plan.longest:
            return False
        if known > self.clock:
            self.advance(known)
        self.changed = max(self.changed, known)
        if known < self.clock and not self._plan.only_events:  # it may have left windows again before now
            left = [us + length for length in self._plan.lengths if known < us + length <= self.clock]
            self.changed = max(self.changed, *left, known)
        self._enter(us, values)
        return True

    def advance(self, clock: int) -> None:
        """Let time pass: events leave the windows."""
        times, plan = self._times, self._plan
        for window, length in zip(self._windows, plan.lengths, strict=True):
            start, until = window.start, clock - length
            while start < len(times) and times[start] <= until:
                window.change(plan, self._values[start], -1)
                start += 1
            if start > window.start:
                if not self._plan.only_events:
                    self.changed = max(self.changed, times[start - 1] + length)
                window.start = start
        self.clock = max(self.clock, clock)
        gone = min(window.start for window in self._windows)
        if gone > _FORGET and gone * 2 > len(times):
            self._forget(gone)

    def timeline(self, most: int) -> Timeline:
        """Values as of the clock, and at most so many of their next changes."""
        values: list[Any] = [None] * self._plan.size
        for number, window in enumerate(self._windows):
            for place, value in self._features(number, window, self.clock):
                values[place] = value
        if self._plan.only_events:
            return Timeline(self.changed, values, [], [])
        changes, deltas, runs_out = self._changes(values.copy(), most)
        return Timeline(self.changed, values, changes, deltas, runs_out)

    def _enter(self, us: int, values: tuple[Any, ...]) -> None:
        times = self._times
        place = len(times) if not times or us >= times[-1] else bisect_right(times, us)
        times.insert(place, us)
        self._values.insert(place, values)
        for window, length in zip(self._windows, self._plan.lengths, strict=True):
            if us > self.clock - length:
                window.change(self._plan, values, 1)
            else:
                window.start += 1
        for place in self._plan.newest:
            newest, value = self._newest[place], values[place]
            if newest is not None and value is not None:
                newest.add(us, value)

    def _changes(self, values: list[Any], most: int) -> tuple[list[int], list[Delta], bool]:
        """The next changes, found by letting events leave copies of the windows, and whether there are more."""
        windows = [window.copy(self._plan) for window in self._windows]
        leaving = merge(
            *(
                self._leaving(window.start, length, number)
                for number, (window, length) in enumerate(zip(windows, self._plan.lengths, strict=True))
            )
        )
        changes: list[int] = []
        deltas: list[Delta] = []
        touched: set[int] = set()
        for at, number in leaving:
            if not changes or at != changes[-1]:
                if changes:
                    deltas.append(self._delta(windows, touched, changes[-1], values))
                if len(changes) == most:
                    self._add_ends(windows, changes, deltas, values)
                    return changes, deltas, True
                changes.append(at)
                touched = set()
            window = windows[number]
            window.change(self._plan, self._values[window.start], -1)
            window.start += 1
            touched.add(number)
        if changes:
            deltas.append(self._delta(windows, touched, changes[-1], values))
        return changes, deltas, False

    def _add_ends(self, windows: list[_Window], changes: list[int], deltas: list[Delta], values: list[Any]) -> None:
        """Add when each window will be empty, if no event comes."""
        for number in sorted(range(len(windows)), key=self._plan.lengths.__getitem__):
            end = self._times[-1] + self._plan.lengths[number]
            if windows[number].start < len(self._times) and end > changes[-1]:
                windows[number] = _Window(self._plan)
                changes.append(end)
                deltas.append(self._delta(windows, {number}, end, values))

    def _leaving(self, start: int, length: int, number: int) -> Iterator[tuple[int, int]]:
        """When the events from a position on leave a window, with the window's number."""
        times = self._times
        return ((times[place] + length, number) for place in range(start, len(times)))

    def _delta(self, windows: list[_Window], touched: set[int], at: int, values: list[Any]) -> Delta:
        delta = []
        for number in touched:
            for place, value in self._features(number, windows[number], at):
                if value != values[place] or type(value) is not type(values[place]):
                    values[place] = value
                    delta.append((place, value))
        return delta

    def _features(self, number: int, window: _Window, at: int) -> Iterable[tuple[int, Any]]:
        after = at - self._plan.lengths[number]
        for place, function, source, unit in self._plan.features[number]:
            if function == "count":
                yield place, window.count
            elif function == "sum":
                yield place, float(window.sums[source]) / unit
            elif function == "mean":
                total = window.numbers[source]
                yield place, float(window.sums[source]) / unit / total if total else None
            elif function == "distinct":
                yield place, len(window.counters[source])
            else:
                newest = self._newest[source]
                assert newest is not None
                yield place, newest.after(after)

    def _forget(self, gone: int) -> None:
        """Drop events that have left all windows."""
        last = self._times[gone - 1]
        del self._times[:gone], self._values[:gone]
        for window in self._windows:
            window.start -= gone
        for newest in self._newest:
            if newest is not None:
                newest.forget(last)
