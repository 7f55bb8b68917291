"""Reads timestamps from text: one rule for requests, for what they left in the logs, and for anything read again.

Read are a date and a time as in ISO 8601, `2013-07-01T12:00Z`: with or without seconds and their fraction, `T`, `t` or
a space between them, and the offset from UTC as `Z`, `z`, `+02:00`, `+0200` or `+02`. `24:00` is the end of its day.
Instants have microseconds: of further decimals of a second only zeros are read, as ingest does.
"""

import calendar
import re
from datetime import datetime, timedelta

import msgspec

FORMS = "read are 2013-07-01T12:00Z, with or without seconds and their fraction, and as offset Z, +02:00, +0200 or +02"

_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?([Zz]|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)
_END_OF_DAY = 24
# No two instants of the years 1 to 9999 lie that far apart: a longer span means the same, but overflows in 64 bits.
LONGEST = datetime.max - datetime.min + timedelta(days=1)
# The whole years that nanosecond timestamps span: date arithmetic cannot overflow in them.
FIRST_YEAR, LAST_YEAR = 1678, 2261
_MICROSECONDS = 6  # decimals of a second


def read_instant(text: str, *, recorded: bool = False) -> datetime:
    """Read a timestamp, to the microsecond.

    Parameters
    ----------
    text
        As it was sent.
    recorded
        Whether it was taken before, and is read again from a log or bundle. Then a timestamp without offset counts as
        UTC, a date alone as its midnight, and nanoseconds are rounded; all are refused otherwise.

    Returns
    -------
    datetime
        With the offset that it was written with.

    Raises
    ------
    ValueError
        For another form, a missing offset, a part of a microsecond, and a date or time that does not exist; the message
        says which.

    Examples
    --------
    >>> read_instant("2013-07-01T12:00+02").isoformat(), read_instant("2013-12-31t24:00:00z").isoformat()
    ('2013-07-01T12:00:00+02:00', '2014-01-01T00:00:00+00:00')
    >>> read_instant("2013-02-30T12:00:00Z")
    Traceback (most recent call last):
    ValueError: February 2013 has 28 days
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError(FORMS)
    date, offset = tuple(int(part) for part in match.group(1, 2, 3)), match[8]
    hour, minute, second = (int(part or 0) for part in match.group(4, 5, 6))
    _check_date(*date)
    if not recorded and offset is None:
        raise ValueError("it has no offset from UTC" if match[4] else "it is a date without a time")
    fraction = (match[7] or "").lstrip(".")
    if not recorded and fraction[_MICROSECONDS:].strip("0"):
        raise ValueError("seconds have at most six decimals: round it to microseconds")
    is_end = hour == _END_OF_DAY and not (minute or second or fraction.strip("0"))
    if second == 60:
        raise ValueError("seconds go from 00 to 59: a leap second has no place in the time that is counted here")
    if (hour >= _END_OF_DAY and not is_end) or minute > 59 or second > 59:
        raise ValueError("times go from 00:00:00 to 24:00:00")
    year, month, day = date
    plain = f"{year:04}-{month:02}-{day:02}T{0 if is_end else hour:02}:{minute:02}:{second:02}{match[7] or ''}"
    try:
        instant = msgspec.convert(plain + _full(offset), datetime)
        return instant + timedelta(days=1) if is_end else instant
    except (OverflowError, msgspec.ValidationError) as error:  # nothing else is left that could be wrong
        in_range = re.fullmatch(r"Z|[+-]([01]\d|2[0-3]):[0-5]\d", _full(offset)) is not None
        raise ValueError("years go from 1 to 9999" if in_range else "offsets go from -23:59 to +23:59") from error


def earlier(instant: datetime, span: timedelta) -> datetime:
    """Go back by a span of any length, at most to the start of the year 1.

    Examples
    --------
    >>> earlier(datetime(2013, 7, 2), timedelta(days=1)), earlier(datetime(2013, 7, 1), timedelta.max)
    (datetime.datetime(2013, 7, 1, 0, 0), datetime.datetime(1, 1, 1, 0, 0))
    """
    first = datetime.min.replace(tzinfo=instant.tzinfo)
    return instant - span if instant - first >= span else first


def later(instant: datetime, span: timedelta) -> datetime:
    """Go on by a span of any length, at most to the end of the year 9999.

    Examples
    --------
    >>> later(datetime(2013, 7, 1), timedelta(days=1)), later(datetime(2013, 7, 1), timedelta.max) == datetime.max
    (datetime.datetime(2013, 7, 2, 0, 0), True)
    """
    last = datetime.max.replace(tzinfo=instant.tzinfo)
    return instant + span if last - instant >= span else last


def bounded(span: timedelta) -> timedelta:
    """A span that can be taken from any instant in 64 bits, with the same result as any longer one."""
    return min(span, LONGEST)


def has_offset(text: str) -> bool:
    """Whether a text has the form of a timestamp with an offset, or no form that is read at all."""
    match = _FORM.fullmatch(text)
    return match is None or match[8] is not None


def _check_date(year: int, month: int, day: int) -> None:
    if year == 0:
        raise ValueError("years go from 1 to 9999")
    if not 1 <= month <= 12:
        raise ValueError("months go from 01 to 12")
    days = calendar.monthrange(year, month)[1]
    if not 1 <= day <= days:
        raise ValueError(f"{calendar.month_name[month]} {year} has {days} days")


def _full(offset: str | None) -> str:
    """An offset as RFC 3339 writes it."""
    if offset is None or offset in "Zz":
        return "Z"
    return f"{offset[:3]}:{offset[-2:] if len(offset) > 3 else '00'}"
