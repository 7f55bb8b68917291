"""Checks formats of dates and timestamps (`%d.%m.%Y`), so that none is read otherwise than it looks."""

import re
from typing import Literal

import polars as pl

_DIRECTIVE = re.compile(r"%[-_0]?(\.\d?|\d)?[A-Za-z+]")
_DAYS = ({"F"}, {"D"}, {"x"}, {"v"}, {"c"}, {"+"}, {"s"})  # directives that are a whole date
_YEARS, _MONTHS, _MONTH_DAYS = set("YyCG"), set("mbBh"), set("de")
_WEEKS, _WEEKDAYS = set("VUW"), set("uwaA")
_CLOCK = set("HkIlMSTRrXpPf") | {"c", "+", "s"}


def problem_of(form: str, kind: Literal["date", "timestamp"]) -> str | None:
    """Say what is wrong with a format, and what to write instead; None if nothing is.

    Examples
    --------
    >>> problem_of("%d.%m.%Y", "date"), problem_of("%Y-%m-%d %H:%M:%S%.f", "timestamp")
    (None, None)
    >>> problem_of("%Y-%m-%d %H:%M:%S.%f", "timestamp")
    '%f counts nanoseconds, so .25 would be 25 ns: write %S%.f for seconds with a fraction'
    """
    directives = [match.group().lstrip("%-_0") for match in _DIRECTIVE.finditer(form.replace("%%", ""))]
    letters = {directive[-1] for directive in directives}
    problems = {
        "wanted is something like %d.%m.%Y": not letters,
        "%Z is not supported, as names of time zones are ambiguous: leave it out and say time_zone": "Z" in letters,
        "%f counts nanoseconds, so .25 would be 25 ns: write %S%.f for seconds with a fraction": "f" in directives,
        "it has no year, month and day: wanted is something like %d.%m.%Y %H:%M; for times alone say string": (
            not _has_day(letters)
        ),
        "a date has no time of day, so it would be lost: leave it out of the format, or say timestamp": (
            kind == "date" and bool(letters & _CLOCK)
        ),
        "hours of %I are those of a 12-hour clock, which wants %p (AM or PM): write %H for 0 to 23": (
            bool(letters & {"I", "l"}) and not letters & {"p", "P"}
        ),
    }
    problem = next((problem for problem, match in problems.items() if match), None)
    return problem or _refused_by_polars(form)


def _has_day(letters: set[str]) -> bool:
    in_parts = letters & _MONTHS and letters & _MONTH_DAYS
    of_week = letters & _WEEKS and letters & _WEEKDAYS
    return any(day <= letters for day in _DAYS) or bool(letters & _YEARS and ("j" in letters or in_parts or of_week))


def _refused_by_polars(form: str) -> str | None:
    try:
        pl.Series([""]).str.to_datetime(form, strict=False)
    except pl.exceptions.PolarsError as error:
        return str(error).partition("\n")[0]
    return None
