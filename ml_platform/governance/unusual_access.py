"""Unusual access: a day of a reader that differs from the reader's own past.

Four rules, each of which says nothing of a reader with too short a past. Their rate of false alarms is held by a test:
of readers whose days are alike, less than one in 200 days raises one.
"""

from collections.abc import Collection, Iterator
from datetime import date, timedelta
from typing import NamedTuple

import polars as pl

from ml_platform.governance.access.speaker import policy_store, project_graph
from ml_platform.settings import Settings

PAST = timedelta(days=28)
_DAYS = 7  # with reads, before volume and hours are judged
_TIMES = 3.0  # of the largest day of the past
_ROWS = 1000  # rows a day below which no volume is unusual
_READS = 50  # reads of the past before hours are judged
_REFUSALS = 10  # a day


class Unusual(NamedTuple):
    """Something unusual: whose, which rule, and what in words."""

    who: str
    rule: str  # new reader, volume, hours or refusals
    what: str


def unusual_access(reads: pl.DataFrame, day: date, *, sensitive: Collection[str] = ()) -> list[Unusual]:
    """Judge the reads of a day (UTC) by the 28 days before it.

    Parameters
    ----------
    reads
        See `read_history.reads`.
    day
        The day.
    sensitive
        Objects with tagged columns: a reader who is new to one is told.
    """
    days = reads.with_columns(day=pl.col("time").dt.date(), hour=pl.col("time").dt.hour())
    now = days.filter(pl.col("day") == day)
    past = days.filter(pl.col("day").is_between(day - PAST, day, closed="left"))
    found: list[Unusual] = []
    for (who,), mine in now.group_by("who", maintain_order=True):
        before = past.filter(pl.col("who") == who)
        found += _judge(str(who), mine, before, sensitive)
    return found


def tagged_objects(settings: Settings) -> set[str]:
    """Tables with tagged columns: by contract, view and command, and where tags flow to."""
    from ml_platform.governance.access.definitions import load_definitions
    from ml_platform.governance.access.tag_flow import column_tags

    policy, protections = policy_store(settings).policy, load_definitions().protections
    if not (policy.document.tags or any(one.tags for one in protections.values())):
        return set()
    tags = column_tags(policy, protections, project_graph())
    return {name for name, columns in tags.items() if any(columns.values())}


def _judge(who: str, mine: pl.DataFrame, before: pl.DataFrame, sensitive: Collection[str]) -> Iterator[Unusual]:
    given, given_before = mine.filter(~pl.col("refused")), before.filter(~pl.col("refused"))
    known = set(given_before["object"])
    for name in sorted(set(given["object"]).intersection(sensitive) - known):
        yield Unusual(who, "new reader", f"{who} read {name}, which has tagged columns, for the first time in 28 days")
    active = before["day"].n_unique()
    if active >= _DAYS:
        rows = int(given["rows"].sum())
        most = _largest_day(given_before, "rows")
        if rows > max(_TIMES * most, _ROWS):
            yield Unusual(who, "volume", f"{who} read {rows:,} rows; the most on a day before was {most:,}")
        hours = set(before["hour"])
        near = {(hour + step) % 24 for hour in hours for step in (-1, 0, 1)}
        if before.height >= _READS and (strange := sorted(set(mine["hour"]) - near)):
            at = ", ".join(f"{hour}:00" for hour in strange)
            yield Unusual(who, "hours", f"{who} read at {at} UTC, where the days before had nothing within an hour")
    refused = int(mine["refused"].sum())
    worst = _largest_day(before, "refused")
    if refused >= max(_REFUSALS, _TIMES * worst):
        yield Unusual(who, "refusals", f"{who} was refused {refused} reads; the most on a day before was {worst}")


def _largest_day(reads: pl.DataFrame, column: str) -> int:
    sums = reads.group_by("day").agg(pl.col(column).sum())[column].to_list()
    return int(max(sums, default=0))
