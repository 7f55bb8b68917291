"""Numbers and instants as people read them."""

import math
from datetime import UTC, datetime

_STEPS = ((60.0, 1.0, "s"), (3600.0, 60.0, "min"), (2 * 86400.0, 3600.0, "h"), (730 * 86400.0, 86400.0, "days"))
_YEAR = 365.25 * 86400.0


def span(seconds: float) -> str:
    """A length of time, in the unit that fits it.

    Examples
    --------
    >>> span(0.2), span(90), span(86400.0 * 3), span(86400.0 * 4000)
    ('0 s', '1 min', '3 days', '10 years')
    """
    for limit, unit, name in _STEPS:
        if seconds < limit:
            return f"{math.floor(max(seconds, 0.0) / unit)} {name}"
    return f"{math.floor(seconds / _YEAR)} years"


def ago(instant: datetime) -> str:
    """How long ago an instant was."""
    seconds = (datetime.now(UTC) - instant).total_seconds()
    return f"{span(seconds)} ago" if seconds >= 0 else f"in {span(-seconds)}"


def instant(value: datetime | str) -> str:
    """An instant to the minute, in UTC.

    Examples
    --------
    >>> instant("2013-07-01T09:15:00-04:00")
    '2013-07-01 13:15 UTC'
    """
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def number(value: float) -> str:
    """A number with about three significant digits.

    Examples
    --------
    >>> number(12345.6), number(12.34), number(0.0), number(0.01234)
    ('12,346', '12.3', '0', '0.0123')
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(value: float) -> str:
    """A share in percent.

    Examples
    --------
    >>> share(0.5), share(0.004), share(0.0)
    ('50 %', '0.4 %', '0 %')
    """
    percent = 100 * value
    return f"{percent:.1f} %" if 0 < percent < 10 and percent != round(percent) else f"{percent:.0f} %"


def milliseconds(seconds: float | None) -> str:
    """Seconds as milliseconds; a dash for none.

    Examples
    --------
    >>> milliseconds(0.00123), milliseconds(None)
    ('1.2 ms', '–')
    """
    if seconds is None:
        return "–"
    value = 1000 * seconds
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"
