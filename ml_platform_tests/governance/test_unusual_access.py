"""Unusual access: each rule tells what it is for, and seldom anything else."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from ml_platform.governance.read_history import SCHEMA
from ml_platform.governance.unusual_access import unusual_access

DAY = date(2024, 6, 1)
START = datetime(2024, 6, 1, tzinfo=UTC)


def read(days_ago, hour=10, *, rows=100, what="raw.orders", who="user:ada", refused=False):
    return {
        "time": START - timedelta(days=days_ago) + timedelta(hours=hour), "who": who, "object": what, "version": 1,
        "columns": ["x"], "rows": rows, "path": "sql", "refused": refused,
    }  # fmt: skip


PAST = [read(day, hour) for day in range(1, 15) for hour in (8, 10, 12, 14)]


def rules(*today, past=PAST, **options):
    found = unusual_access(pl.DataFrame([*past, *today], schema=SCHEMA), DAY, **options)
    return [one.rule for one in found]


def test_each_rule_tells_its_own():
    assert rules(read(0), sensitive=["raw.orders"]) == []
    assert rules(read(0, what="raw.people"), sensitive=["raw.people"]) == ["new reader"]
    assert rules(read(0, what="raw.people")) == []
    assert rules(read(0, rows=5000)) == ["volume"]
    assert rules(read(0, hour=3)) == ["hours"]
    assert rules(read(0, hour=7)) == []
    assert rules(*[read(0, refused=True)] * 10) == ["refusals"]
    assert rules(*[read(0, refused=True)] * 9) == []


def test_somebody_without_a_past_is_not_judged_by_it():
    assert rules(read(0, hour=3, rows=10**6), past=()) == []
    assert rules(read(0, who="user:new"), sensitive=["raw.orders"]) == ["new reader"]


@pytest.mark.slow
def test_alike_days_raise_less_than_one_in_200_and_a_copied_table_is_found():
    """50 readers for 60 days: 3 to 30 reads a day at office hours, log-normal rows (sd 0.8), 1 % refused."""
    random = np.random.default_rng(7)
    rows = []
    for reader in range(50):
        pace, size = random.integers(3, 30), random.lognormal(6, 1)
        for day in range(60):
            for _ in range(random.poisson(pace)):
                hour = float(np.clip(random.normal(13, 2.5), 6, 20))
                size_of = int(size * random.lognormal(0, 0.8))
                rows.append(read(day, hour, rows=size_of, who=f"user:{reader}", refused=bool(random.random() < 0.01)))
    history = pl.DataFrame(rows, schema=SCHEMA)
    alarms = sum(len(unusual_access(history, DAY - timedelta(days=day))) for day in range(30))
    assert alarms / (50 * 30) < 1 / 200
    found = 0
    for reader in range(50):
        mine = history.filter(pl.col("who") == f"user:{reader}")
        a_day = mine.filter(pl.col("time") < START)["rows"].sum() / 59
        copied = pl.DataFrame([read(0, 13, rows=int(10 * a_day) + 10_000, who=f"user:{reader}")], schema=SCHEMA)
        found += any(one.rule == "volume" for one in unusual_access(pl.concat([mine, copied]), DAY))
    assert found >= 48
