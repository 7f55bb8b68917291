"""Local times of a time zone for many instants at once."""

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = 3_600_000_000  # in microseconds
_FIRST, _LAST = -613_608, 1_139_567  # first and last hour of the years 1900 to 2099, counted from 1970
_KNOWN = 48 * _HOUR  # added to every stored offset, so that 0 stands for one that is not known yet


class WallClock:
    """Offsets of a time zone from UTC by the hour, computed when they are first needed.

    Examples
    --------
    >>> clock = wall_clock("America/New_York")
    >>> summer = np.array([1_372_680_000_000_000])  # 2013-07-01 12:00 UTC
    >>> (summer - clock.read(summer, (int(summer[0]), int(summer[0])))) // _HOUR
    array([4])
    """

    def __init__(self, zone: str) -> None:
        self._zone = ZoneInfo(zone)
        self._offsets = np.zeros(_LAST - _FIRST + 1, np.int64)  # only pages that are written take memory

    def read(self, instants: np.ndarray, bounds: tuple[int, int]) -> np.ndarray | None:
        """Local times, as microseconds, of instants (microseconds since 1970) between two bounds.

        None when some instant is outside the years 1900 to 2099 or in an hour in which the clocks change.
        """
        low, high = bounds
        if low < _FIRST * _HOUR or high >= (_LAST + 1) * _HOUR:
            return None
        hours = instants // _HOUR - _FIRST
        offsets = self._offsets.take(hours)
        if not offsets.all():
            for hour in set(hours[offsets == 0].tolist()):
                offset = self._offset(hour + _FIRST)
                if offset is None:
                    return None
                self._offsets[hour] = offset + _KNOWN
            offsets = self._offsets.take(hours)
        wall: np.ndarray = instants + (offsets - _KNOWN)
        return wall

    def _offset(self, hour: int) -> int | None:
        """Offset from UTC in microseconds during an hour; None when it changes in that hour."""
        start = _EPOCH + timedelta(hours=hour)
        last = start + timedelta(hours=1, microseconds=-1)
        offset = start.astimezone(self._zone).utcoffset()
        if offset is None or offset != last.astimezone(self._zone).utcoffset():
            return None
        return offset // timedelta(microseconds=1)


wall_clock = cache(WallClock)  # models share the clock of a zone
