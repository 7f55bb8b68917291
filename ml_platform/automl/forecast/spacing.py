"""Which periods a table's times are, and whether they are: frequency, duplicates, and times that do not fit."""

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from ml_platform.automl.forecast_documents import Frequency
from ml_platform.lake.names import quoted

SEASONS: dict[Frequency, int] = {"hour": 24, "day": 7, "week": 52, "month": 12}
HOURS: dict[Frequency, int] = {"hour": 1, "day": 24, "week": 168}
_FIRST = datetime(1900, 1, 1, tzinfo=UTC)  # a Monday; period 0 begins within a week of it
_REGULAR = 0.5  # share of neighbours at the usual distance, below which times have none


@dataclass(frozen=True)
class Spacing:
    """Periods of a table.

    Attributes
    ----------
    every
        Length of a period.
    anchor
        Start of period 0 (UTC).
    why
        What was seen.
    """

    every: Frequency
    anchor: datetime
    why: str


def find_spacing(at: pl.Series, keys: pl.DataFrame, *, time: str, groups: Sequence[str], table: str) -> Spacing:
    """Find the length of a period from the distances of neighbouring times.

    Parameters
    ----------
    at
        Instants (UTC), without nulls.
    keys
        Columns that tell series apart, row by row; without columns for one series.
    time, groups, table
        Names, for messages.

    Raises
    ------
    ValueError
        When two rows of a series have the same time, or times are not of hours, days, weeks or months; with what to do.
    """
    frame = keys.with_columns(at.alias("__at")) if keys.width else at.alias("__at").to_frame()
    _refuse_duplicates(frame, time=time, groups=groups, table=table)
    ordered = frame.sort([*keys.columns, "__at"])
    step = pl.col("__at").diff()
    distances = ordered.select((step.over(keys.columns) if keys.width else step).alias("d")).drop_nulls()
    if distances.is_empty():
        raise ValueError(f"{table}: no series has two rows; which column tells series apart? --group names it")
    hours = [value / timedelta(hours=1) for value in distances.get_column("d").to_list()]
    usual, times = Counter(hours).most_common(1)[0]
    share = f"{100 * sum(usual == one for one in hours) / len(hours):.0f} % of neighbours are {_in_words(usual)} apart"
    every: Frequency
    if 24 * 28 <= usual <= 24 * 31:
        every = "month"
    elif usual in HOURS.values():
        every = next(name for name, length in HOURS.items() if length == usual)
    else:
        raise ValueError(
            f"{table}: times of '{time}' are not equally spaced by hours, days, weeks or months: {share}. Sum "
            f"or average "
            f"them to such periods first, e.g. SELECT date_trunc('day', \"{time}\") AS day, sum(…) … GROUP BY ALL"
        )
    if every != "month" and times < _REGULAR * len(hours):
        raise ValueError(f"{table}: times of '{time}' are not equally spaced: only {share}. {_aggregate(time)}")
    if every == "month":
        twice = frame.with_columns(pl.col("__at").dt.truncate("1mo").alias("__at"))
        _refuse_duplicates(twice, time=f"the month of {time}", groups=groups, table=table)
        return Spacing(every, _FIRST, share)
    anchor = _anchor(at, every)
    off = at.filter(((at - anchor).dt.total_seconds() % (3600 * HOURS[every])) != 0)
    if off.len():
        raise ValueError(
            f"{table}: times of '{time}' are not equally spaced: {off.len():,} are not whole {every}s from the others, "
            f"such as {off[0]:%Y-%m-%d %H:%M:%S}. {_aggregate(time)}"
        )
    return Spacing(every, anchor, share)


def _anchor(at: pl.Series, every: Frequency) -> datetime:
    """The start of period 0: most times are whole periods from it."""
    offsets = (at - _FIRST).dt.total_seconds() % (3600 * HOURS[every])
    return _FIRST + timedelta(seconds=int(offsets.mode().min()))  # type: ignore[arg-type]


def _refuse_duplicates(frame: pl.DataFrame, *, time: str, groups: Sequence[str], table: str) -> None:
    counts = frame.group_by(frame.columns, maintain_order=True).len().filter(pl.col("len") > 1)
    if counts.is_empty():
        return
    first = counts.row(0, named=True)
    named = ", ".join(f"{name}={first[name]}" for name in groups)
    example = f"{named + ', ' if named else ''}{first['__at']:%Y-%m-%d %H:%M}"
    columns_text = ", ".join(map(quoted, [*groups, time]))
    option = shlex.quote(f"{','.join(groups)},") if groups else ""
    raise ValueError(
        f"{table}: {counts.height:,} times have several rows of one series, e.g. {first['len']} rows of "
        f"{example}. Name "
        f"the columns that tell series apart (--group {option}<column>), or aggregate first: "
        f"SELECT {columns_text}, sum(…) … GROUP BY {columns_text}"
    )


def _aggregate(time: str) -> str:
    return f"Aggregate first, e.g. SELECT date_trunc('day', {quoted(time)}) AS day, sum(…) … GROUP BY ALL"


def _in_words(hours: float) -> str:
    if hours >= 24 and hours % 24 == 0:
        return f"{hours / 24:g} day{'s' if hours > 24 else ''}"
    return f"{hours:g} hour{'s' if hours != 1 else ''}" if hours >= 1 else f"{60 * hours:g} minutes"
