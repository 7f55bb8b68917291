"""Clocks that tests move on by hand, in the place of a module's own."""

from datetime import datetime, timedelta, tzinfo


class Clock:
    """Stands in for the module `time`: one instant, in seconds, that all its clocks show."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return int(self.now * 1e9)


def datetime_after(delay: timedelta) -> type[datetime]:
    """`datetime` whose present is later by a delay."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + delay

    return Later
