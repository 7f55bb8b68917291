"""How far an ordinary week strays: the distance of the reference's own windows from the reference.

Tests of independent rows know nothing of time. Rows of one week share its weather and its traffic, so every week
differs significantly, and by more than 0.1, from the months around it, though nothing has drifted. What the training
data did itself within a window of the same length is therefore not drift: the threshold of a test is raised to it.
Measured by leaving each week of real flights out of its quarter (`benchmarks/drift_ordinary_weeks.py`).
"""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from ml_platform.monitoring.column_tests import NotComparable, reference_side
from ml_platform.monitoring.comparison import Column, full_name

MAX_WINDOWS = 26  # spread evenly over the reference
MAX_WINDOW_ROWS = 2_000
MAX_REFERENCE_ROWS = 20_000
MIN_WINDOWS = 4  # fewer say nothing of what is ordinary


def ordinary_distances(
    reference: pl.DataFrame, columns: Sequence[Column], *, timestamp: str, window: timedelta, min_rows: int
) -> dict[str, float]:
    """Largest distance of any window of the reference from the whole of it, by test.

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
        Distances as `compare` measures them, by `full_name`; empty when the reference spans fewer than four such
        windows.
    """
    first = reference[timestamp].min()
    number = (reference[timestamp] - first).dt.total_microseconds() // (window // timedelta(microseconds=1))
    numbered = reference.with_columns(number.alias("__window"))
    sizes = numbered.group_by("__window").len().filter(pl.col("len") >= min_rows).sort("__window")
    if sizes.height < MIN_WINDOWS:
        return {}
    step = -(-sizes.height // MAX_WINDOWS)
    windows = [numbered.filter(pl.col("__window") == number) for number in sizes["__window"].gather_every(step)]
    parts = [part.sample(min(part.height, MAX_WINDOW_ROWS), seed=0) for part in windows]
    whole = numbered.sample(min(numbered.height, MAX_REFERENCE_ROWS), seed=0)
    # The whole holds the window too, which hides a part of its distance from the rest: for Kolmogorov–Smirnov exactly
    # its share of the rows (the whole's distribution function is the mixture of both), for the others about that.
    rest = [1 - part.height / numbered.height for part in windows]
    largest: dict[str, float] = {}
    for column in columns:
        sides = [part[column.name] for part in parts]
        for distances, share in zip(distances_of(column, whole[column.name], sides), rest, strict=True):
            for name, distance in distances.items():
                largest[name] = max(largest.get(name, 0.0), distance / share)
    return largest


def distances_of(column: Column, reference: pl.Series, others: Sequence[pl.Series]) -> list[dict[str, float]]:
    """Distances of every test of a column by `full_name`, for each of several samples; none that cannot be compared."""
    try:
        side = reference_side(column.kind, reference)
        return [{full_name(column.name, test.name): test.distance for test in side.tests(other)} for other in others]
    except NotComparable:  # `compare` says so of the column
        return [{} for _ in others]
