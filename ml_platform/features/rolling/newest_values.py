"""Extremes and newest values of trailing windows, also when events arrive late."""

from bisect import bisect_right
from typing import Any, Literal


class NewestValues:
    """The events of one key that are the `max`, `min` or `last` of some window now, or will be as time passes.

    An event that is no older and no smaller than another hides it for good. What is left falls in value as it rises in
    time, so the greatest of a window is the first that is in it. For `last` only the newest event is left.

    Examples
    --------
    >>> largest = NewestValues("max")
    >>> for us, value in ((10, 5.0), (20, 3.0), (15, 4.0)):
    ...     largest.add(us, value)
    >>> largest.after(0), largest.after(10), largest.after(15), largest.after(20)
    (5.0, 4.0, 3.0, None)
    """

    __slots__ = ("_function", "_times", "_values")

    def __init__(self, function: Literal["max", "min", "last"]) -> None:
        self._function = function
        self._times: list[int] = []
        self._values: list[Any] = []

    def add(self, us: int, value: Any) -> None:
        """Add an event; in any order."""
        times, values = self._times, self._values
        place = bisect_right(times, us)
        if self._function == "last":
            if times and (us, value) <= (times[-1], values[-1]):
                return
            times[:], values[:] = [us], [value]
            return
        hides = (lambda new, old: new >= old) if self._function == "max" else (lambda new, old: new <= old)
        if place < len(times) and hides(values[place], value):
            return
        if place and times[place - 1] == us and hides(values[place - 1], value):
            return
        first = place
        while first and hides(value, values[first - 1]):
            first -= 1
        times[first:place], values[first:place] = [us], [value]

    def after(self, us: int) -> Any:
        """Value for the window of all events later than an instant; None if it has none."""
        place = bisect_right(self._times, us)
        return self._values[place] if place < len(self._times) else None

    def forget(self, us: int) -> None:
        """Drop the events up to an instant."""
        place = bisect_right(self._times, us)
        del self._times[:place], self._values[:place]
