"""How far an ordinary week strays: the distance of the reference's own windows from the reference.

Tests of independent rows know nothing of time. Rows of one week share its weather and its traffic, so every week
differs significantly, and by more than 0.1, from the months around it, though nothing has drifted. What the training
data did itself within a window of the same length is therefore not drift: the threshold of a test is raised above it.
Measured by leaving each week of real flights out of its quarter (`benchmarks/drift_ordinary_weeks.py`).
"""

import itertools
from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from ml_platform.instants import bounded
from ml_platform.monitoring.drift.column_tests import reference_side
from ml_platform.monitoring.drift.comparison import DriftColumn, full_name
from ml_platform.monitoring.drift.share_test import ColumnTest, NotComparable

MAX_WINDOWS = 26  # spread evenly over the reference
MAX_WINDOW_ROWS = 2_000
MAX_REFERENCE_ROWS = 10_000
MIN_WINDOWS = 4  # fewer say nothing of what is ordinary
MARGIN = 1.25  # the largest of a dozen weeks is passed by the next in one case of thirteen, mostly by little


def baseline_distances(
    reference: pl.DataFrame, columns: Sequence[DriftColumn], *, timestamp: str, window: timedelta, min_rows: int
) -> dict[str, float]:
    """Distance that is still ordinary: a quarter more than the largest of any window of the reference from the rest.

    Parameters
    ----------
    reference
        Rows with `timestamp` and `columns`.
    columns
        What will be compared.
    timestamp
        Column with the instant of a row.
    window
        Span of the rows that will be compared with the reference.
    min_rows
        Smaller windows are left out: their distance is mostly chance.

    Returns
    -------
    dict
        Distances as `compare` measures them, by `full_name`, and the largest of each family, for values that stand out
        for the first time, as the temperatures of each week do. Empty when the reference spans fewer than four such
        windows.
    """
    first = reference[timestamp].min()
    number = (reference[timestamp] - first).dt.total_microseconds() // (bounded(window) // timedelta(microseconds=1))
    numbered = reference.with_columns(number.alias("__window"))
    sizes = numbered.group_by("__window").len().filter(pl.col("len") >= min_rows).sort("__window")
    if sizes.height < MIN_WINDOWS:
        return {}
    step = -(-sizes.height // MAX_WINDOWS)
    windows = [numbered.filter(pl.col("__window") == number) for number in sizes["__window"].gather_every(step)]
    parts = [part.sample(min(part.height, MAX_WINDOW_ROWS), seed=0) for part in windows]
    whole = numbered.sample(min(numbered.height, MAX_REFERENCE_ROWS), seed=0)
    # Each window beside the rows of the others: a share that it had itself would hide a part of its distance.
    others = [whole.filter(pl.col("__window") != part["__window"][0]) for part in parts]
    largest: dict[str, float] = {}
    for column in columns:
        made = [
            tests_of(column, rest[column.name], part[column.name]) for rest, part in zip(others, parts, strict=True)
        ]
        for test in itertools.chain.from_iterable(made):
            for name in {full_name(column.name, test.name), full_name(column.name, test.family)}:
                largest[name] = max(largest.get(name, 0.0), MARGIN * test.distance)
    return largest


def tests_of(column: DriftColumn, reference: pl.Series, other: pl.Series) -> list[ColumnTest]:
    """Every test of a column between two samples; none where they cannot be compared, as `compare` says."""
    try:
        return reference_side(column.kind, reference).tests(other)
    except NotComparable:
        return []
