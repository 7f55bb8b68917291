"""Jumps of the share of nulls are found, chance is not taken for one."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from ml_platform.features.training_sets.null_shares import (
    NullCount,
    accept,
    count_nulls,
    find_jumps,
    last_accepted,
    wholly_null,
)
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import InputChecks

LIMITS = InputChecks()


def counts(rows: int, *nulls: int) -> list[NullCount]:
    return [NullCount("all rows", f"f{number}", rows, count) for number, count in enumerate(nulls)]


def test_nulls_and_nan_are_counted_of_all_rows_and_of_the_newest() -> None:
    at = [datetime(2024, 1, day, tzinfo=UTC) for day in range(1, 11)]
    frame = pl.DataFrame(
        {"at": at, "x": [1.0] * 7 + [None, float("nan"), 3.0], "s": ["a"] * 10, "n": [None] * 10},
        schema_overrides={"n": pl.Int64},
    )
    found = count_nulls(frame, ["x", "s", "n"], timestamp="at", newest=timedelta(days=3))
    assert [tuple(count) for count in found] == [
        ("all rows", "x", 10, 2), ("all rows", "s", 10, 0), ("all rows", "n", 10, 10),
        ("newest rows", "x", 3, 2), ("newest rows", "s", 3, 0), ("newest rows", "n", 3, 3),
    ]  # fmt: skip
    assert wholly_null(found) == ["n"]
    newest = count_nulls(frame, ["x"], timestamp="at", newest=timedelta.max)[1]
    assert tuple(newest) == ("newest rows", "x", 10, 2), "a span that no calendar has is all of it"


def test_a_jump_needs_to_be_large_and_no_chance() -> None:
    before = counts(2000, 20, 20, 1000, 0, 1900)
    found = find_jumps(counts(2000, 1600, 60, 1350, 600, 100), before, LIMITS)
    assert [jump.now.feature for jump in found] == ["f0", "f3"]
    assert found[0].reason == "f0: 80.0% of all 2,000 rows are null, in the last accepted set 1.0% of 2,000"
    assert find_jumps(counts(100, 80), counts(2000, 20), LIMITS) == [], "too few rows"
    assert find_jumps(counts(2000, 1600), [], LIMITS) == []
    tolerant = InputChecks(max_null_increase=0.9)
    assert find_jumps(counts(2000, 1600), counts(2000, 20), tolerant) == []


def test_chance_is_no_jump() -> None:
    """Of 2,000 pairs of small sets of 30 features, drawn from the same shares of nulls, hardly one shows a jump."""
    random = np.random.default_rng(0)
    shares = np.linspace(0, 1, 30)
    limits, alarms = InputChecks(max_null_increase=0.001), 0
    for _ in range(2000):
        old, new = (random.binomial(200, shares) for _ in range(2))
        alarms += bool(find_jumps(counts(200, *map(int, new)), counts(200, *map(int, old)), limits))
    assert alarms <= 8


def test_the_last_accepted_set_is_kept_per_model(lake: Lake) -> None:
    assert last_accepted(lake, "one") == []
    accept(lake, "one", 3, counts(10, 1, 2))
    accept(lake, "two", 1, counts(10, 3))
    accept(lake, "one", 4, counts(20, 5))
    assert last_accepted(lake, "one") == counts(20, 5)
    assert last_accepted(lake, "two") == counts(10, 3)
