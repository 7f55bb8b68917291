"""What order in time says about a feature: whether it is the label of a later row.

Also how well a label is predicted by the one before it, which tells a slow series from a feature that knows too much.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from ml_platform.features.training_sets.leakage.measures import (
    FEWEST_ROWS,
    Floats,
    label_auc,
    numbers_of,
    squared_correlation,
)

_SHIFTS = 48  # rows, to both sides, in which a feature is looked for among the labels
_GROUP_KEYS = 6  # categorical features by which rows are grouped


def orders(rows: pl.DataFrame, timestamp: str, groups: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield orders of the rows by time: of all, and within the values of each group; with each row's group."""
    yield rows.get_column(timestamp).arg_sort().to_numpy(), np.zeros(rows.height, dtype=np.int64)
    for name in group_keys(rows, groups):
        order = rows.select(pl.arg_sort_by([name, timestamp])).to_series().to_numpy()
        codes = rows.get_column(name).cast(pl.String).fill_null("").rank("dense").to_numpy()[order]
        yield order, codes.astype(np.int64)


def group_keys(rows: pl.DataFrame, names: Sequence[str]) -> list[str]:
    """Columns that hold several rows of several groups, those with the most groups first."""
    counts = {name: rows.get_column(name).n_unique() for name in names}
    usable = [name for name, count in counts.items() if 2 <= count <= rows.height / 3]
    return sorted(usable, key=lambda name: -counts[name])[:_GROUP_KEYS]


def persistence(label: Floats, ordered: Sequence[tuple[np.ndarray, np.ndarray]], *, is_class: bool) -> float:
    """R² or AUC of the previous row's label for a row's own, in the best of the orders."""
    best = 0.0
    for order, group in ordered:
        values = label[order]
        same = group[1:] == group[:-1]
        before, after = values[:-1][same], values[1:][same]
        if len(after) >= FEWEST_ROWS:
            best = max(best, label_auc(before, after) if is_class else squared_correlation(before, after))
    return best


def later_label(
    feature: pl.Series, label: Floats, ordered: Sequence[tuple[np.ndarray, np.ndarray]], bound: float
) -> tuple[int, float] | None:
    """Find how many rows later a feature is the label, if it is more so than of the row itself or an earlier one.

    Returns
    -------
    tuple or None
        Rows later, and the R² of feature and label there; None where the best is below `bound`, or not of a later row.
    """
    numbers = numbers_of(feature)
    best: tuple[float, int] = (0.0, 0)
    for order, group in ordered:
        x, y = numbers[order], label[order]
        for shift in range(-_SHIFTS, _SHIFTS + 1):
            here, there = slice(max(-shift, 0), len(y) - max(shift, 0)), slice(max(shift, 0), len(y) + min(shift, 0))
            use = (group[here] == group[there]) & ~np.isnan(x[here])
            if use.sum() >= FEWEST_ROWS:
                best = max(best, (squared_correlation(x[here][use], y[there][use]), shift))
    value, shift = best
    return (shift, value) if shift > 0 and value >= bound else None
