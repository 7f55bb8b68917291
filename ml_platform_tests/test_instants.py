"""Every form of a timestamp is read rightly, or refused with words that say why."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.instants import FORMS, read_instant

NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2013-07-01T12:00Z",
        "2013-07-01T12:00:00Z",
        "2013-07-01 12:00:00Z",
        "2013-07-01t12:00:00z",
        "2013-07-01T12:00:00.0000000Z",
        "2013-07-01T14:00+02:00",
        "2013-07-01T14:00+0200",
        "2013-07-01T14:00+02",
        "2013-07-01T12:00-00:00",
        "2013-07-02T11:59+23:59",
    ],
)
def test_what_is_read(text: str) -> None:
    assert read_instant(text) == NOON


@pytest.mark.parametrize(
    ("text", "midnight"),
    [("2013-02-28T24:00Z", (2013, 3, 1)), ("2012-12-31T24:00:00.000Z", (2013, 1, 1))],
)
def test_the_end_of_a_day_is_the_start_of_the_next(text: str, midnight: tuple[int, int, int]) -> None:
    assert read_instant(text) == datetime(*midnight, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2013-02-30T12:00Z", "February 2013 has 28 days"),
        ("2012-02-30T12:00Z", "February 2012 has 29 days"),
        ("2013-04-31T12:00Z", "April 2013 has 30 days"),
        ("2013-07-00T12:00Z", "July 2013 has 31 days"),
        ("2013-13-01T12:00Z", "months go from 01 to 12"),
        ("0000-01-01T12:00Z", "years go from 1 to 9999"),
        ("9999-12-31T24:00Z", "years go from 1 to 9999"),
        ("9999-12-31T23:59:59.9999999Z", "at most six decimals"),
        ("2013-07-01T12:00:00.1234567Z", "at most six decimals"),
        ("2013-07-01T11:59:59.9999996Z", "at most six decimals"),
        ("2013-07-01T12:00:00.0000000001+02:00", "at most six decimals"),
        ("2013-07-01T24:00:01Z", "times go from 00:00:00 to 24:00:00"),
        ("2013-07-01T24:00:00.5Z", "times go from 00:00:00 to 24:00:00"),
        ("2013-07-01T25:00Z", "times go from 00:00:00 to 24:00:00"),
        ("2013-07-01T12:60Z", "times go from 00:00:00 to 24:00:00"),
        ("2016-12-31T23:59:60Z", "a leap second"),
        ("2013-07-01T12:00+24:00", "offsets go from -23:59 to +23:59"),
        ("2013-07-01T12:00+02:60", "offsets go from -23:59 to +23:59"),
        ("2013-07-01T12:00", "no offset"),
        ("2013-07-01", "a date without a time"),
        ("2013-W27-1T12:00Z", FORMS),
        ("2013-182T12:00Z", FORMS),
        ("20130701T120000Z", FORMS),
        ("2013-07-01T12:00:00,5Z", FORMS),
        ("2013-07-01T12Z", FORMS),
        ("2013-7-1T12:00Z", FORMS),
        ("2013-07-01T12:00 Z", FORMS),
        ("2013-07-01T12:00Z\n", FORMS),
        ("٢٠١٣-07-01T12:00Z", FORMS),
        ("12:00Z", FORMS),
        ("01.07.2013 12:00", FORMS),
        ("now", FORMS),
        ("", FORMS),
    ],
)
def test_what_is_refused_and_why(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as refused:
        read_instant(text)
    assert told in str(refused.value)


def test_what_was_recorded_without_offset_is_utc_and_its_nanoseconds_are_rounded() -> None:
    assert read_instant("2013-07-01 12:00", recorded=True) == NOON
    assert read_instant("2013-07-01", recorded=True) == NOON - timedelta(hours=12)
    assert read_instant("2013-07-01T12:00+02", recorded=True) == NOON - timedelta(hours=2)
    assert read_instant("2013-07-01T11:59:59.9999996Z", recorded=True) == NOON


OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=OFFSETS), st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]))
def test_what_python_writes_is_read_as_it_was(instant: datetime, precision: str) -> None:
    text = instant.isoformat(timespec=precision)
    assert read_instant(text) == datetime.fromisoformat(text)


@given(
    st.from_regex(
        r"\d{4}-[01]\d-[0-3]\d[Tt ][0-2]\d:[0-5]\d:[0-5]\d(\.\d{1,9})?([Zz]|[+-][0-2]\d:?[0-5]\d)", fullmatch=True
    )
)
def test_it_agrees_with_the_decoder_of_requests(text: str) -> None:
    """Requests take the fast way first: whatever it reads must be the same instant here, nanoseconds aside."""
    try:
        decoded = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return
    assert read_instant(text, recorded=True) == decoded
