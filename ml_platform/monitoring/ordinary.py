"""How far an ordinary week strays: the distance of the reference's own windows from the reference.

Tests of independent rows know nothing of time. Rows of one week share its weather and its traffic, so every week
differs significantly, and by more than 0.1, from the months around it, though nothing has drifted. What the training
data did itself within a window of the same length is therefore not drift: the column's threshold is raised to it.
Measured by leaving each week of real flights out of its quarter (`benchmarks/drift_ordinary_weeks.py`): the plain
threshold of 0.1 alarms on 38 of 38, the largest ordinary distance on 3, its 90th percentile on 9.
"""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from ml_platform.monitoring.comparison import Column, prepare, with_categories

MAX_WINDOWS = 26  # spread evenly over the reference
MAX_WINDOW_ROWS = 2_000
MAX_REFERENCE_ROWS = 20_000
MIN_WINDOWS = 4  # fewer say nothing of what is ordinary


def ordinary_distances(
    reference: pl.DataFrame, columns: Sequence[Column], *, timestamp: str, window: timedelta, min_rows: int
) -> dict[str, float]:
    """Largest distance of any window of the reference from the whole of it, per prepared column.

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
        Distances as `compare` measures them; empty when the reference spans fewer than four such windows.
    """
    columns = with_categories(columns, reference)
    first = reference[timestamp].min()
    numbered = prepare(reference, columns).with_columns(
        ((reference[timestamp] - first).dt.total_microseconds() // (window // timedelta(microseconds=1))).alias(
            "window"
        )
    )
    sizes = numbered.group_by("window").len().filter(pl.col("len") >= min_rows).sort("window")
    if sizes.height < MIN_WINDOWS:
        return {}
    step = -(-sizes.height // MAX_WINDOWS)
    windows = [numbered.filter(pl.col("window") == number) for number in sizes["window"].gather_every(step)]
    parts = [part.sample(min(part.height, MAX_WINDOW_ROWS), seed=0) for part in windows]
    whole = numbered.sample(min(numbered.height, MAX_REFERENCE_ROWS), seed=0)
    # The whole holds the window too, which hides a part of its distance from the rest: for Wasserstein exactly its
    # share of the rows (the whole's distribution function is the mixture of both), for Jensen–Shannon about that.
    rest = [1 - part.height / numbered.height for part in windows]
    names = [name for name in whole.columns if name != "window"]
    return {
        name: max(distance_of(whole[name], part[name]) / share for part, share in zip(parts, rest, strict=True))
        for name in names
    }


def distance_of(reference: pl.Series, current: pl.Series) -> float:
    """Distance of two samples by the same formulas as Evidently's `wasserstein` and `jensenshannon`."""
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import wasserstein_distance

    if reference.dtype == pl.Float64:
        left, right = reference.drop_nulls().to_numpy(), current.drop_nulls().to_numpy()
        if not len(left) or not len(right):
            return 0.0
        return float(wasserstein_distance(left, right) / max(left.std(), 0.001))
    counts = [dict(side.value_counts().iter_rows()) for side in (reference, current)]
    keys = sorted(set(counts[0]) | set(counts[1]))
    return float(jensenshannon(*([side.get(key, 0) for key in keys] for side in counts)))
