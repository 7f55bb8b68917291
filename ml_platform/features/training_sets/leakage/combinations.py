"""Features that give the label away together: sums, differences, products and ratios of two, three or four."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import polars as pl

from ml_platform.features.training_sets.leakage.measures import (
    FEWEST_ROWS,
    Floats,
    enough_of_each,
    label_auc,
    numbers_of,
    rank_auc,
    ranks_of,
)

_PAIR_ROWS = 4000  # rows of a classification by which sums and differences are ranked
_MOST_TOGETHER = 4  # with more features a good fit is what a model is for
_MOST_MISSING = 0.05  # share of a feature's rows, beyond which it is left out of larger combinations


def joint_subset(
    columns: dict[str, Floats], label: Floats, *, bound: float, is_class: bool
) -> tuple[tuple[str, ...], float] | None:
    """Find the few features of which one linear combination reaches a bound.

    All are fitted at once, so that large columns which cancel each other out are seen as well. Then the least useful is
    left out as long as the others reach the bound.

    Parameters
    ----------
    columns
        Features without missing values, of equal length.
    label
        A number, or 0 and 1.
    bound
        R² (of a number) or AUC (of a class) to reach.
    is_class
        Whether the label is 0 or 1.

    Returns
    -------
    tuple or None
        Two to four names and what they reach together; None where no so small subset does.
    """
    scales = {name: float(values.std()) for name, values in columns.items()}
    names = [name for name, scale in scales.items() if scale > 0]
    if len(names) < 2 or label.std() == 0 or len(label) < max(FEWEST_ROWS, 10 * len(names)):
        return None
    x = np.column_stack([(columns[name] - columns[name].mean()) / scales[name] for name in names])
    y = (label - label.mean()) / label.std()

    def fit(chosen: list[int]) -> tuple[float, Floats]:
        part = x[:, chosen]
        weights = np.linalg.lstsq(part, y, rcond=None)[0]
        predicted = part @ weights
        value = label_auc(predicted, label) if is_class else 1.0 - float(np.mean((y - predicted) ** 2))
        return value, weights

    remaining = list(range(len(names)))
    value, weights = fit(remaining)
    while value >= bound and len(remaining) > 2:
        trials = sorted(remaining, key=lambda column: abs(weights[remaining.index(column)]))
        if len(remaining) > 2 * _MOST_TOGETHER:
            trials = trials[:1]
        smaller = [(fit([other for other in remaining if other != column]), column) for column in trials]
        (less, fewer), column = max(smaller, key=lambda one: one[0][0])
        if less < bound:
            break
        remaining.remove(column)
        value, weights = less, fewer
    if value < bound or not 2 <= len(remaining) <= _MOST_TOGETHER:
        return None
    return tuple(names[column] for column in remaining), value


def complete_columns(rows: pl.DataFrame, names: Sequence[str]) -> tuple[dict[str, Floats], np.ndarray]:
    """Numeric features with few missing values, in the rows in which all are known, and which rows these are."""
    values = {name: numbers_of(rows.get_column(name)) for name in names}
    chosen = {name: column for name, column in values.items() if np.isnan(column).mean() <= _MOST_MISSING}
    known = np.ones(rows.height, dtype=bool)
    for column in chosen.values():
        known &= ~np.isnan(column)
    return {name: column[known] for name, column in chosen.items()}, known


def logarithms(columns: dict[str, Floats]) -> dict[str, Floats]:
    """Logarithms of the columns that are positive throughout: their sums are products and ratios."""
    return {name: np.log(values) for name, values in columns.items() if values.size and values.min() > 0}


def equal_pairs(rows: pl.DataFrame, names: Sequence[str], label: Floats) -> Iterator[tuple[tuple[str, str], float]]:
    """R² of the label on every two numeric features, over the rows in which both are known.

    It is computed from sums of products, so that all pairs cost a few matrix products. A pair that seems exact is then
    fitted on its rows, since sums lose digits.
    """
    if len(names) < 2:
        return
    values = np.column_stack([numbers_of(rows.get_column(name)) for name in names])
    known = ~np.isnan(values)
    centred = np.where(known, values - np.nanmean(np.where(known.any(axis=0), values, 0.0), axis=0), 0.0)
    scale = np.sqrt((centred**2).sum(axis=0) / np.maximum(known.sum(axis=0), 1))
    x = centred / np.where(scale > 0, scale, 1.0)
    y = (label - label.mean()) / (label.std() or 1.0)
    mask = known.astype(float)
    n = np.maximum(mask.T @ mask, 1.0)
    mean_a, mean_y = (x.T @ mask) / n, ((mask * y[:, None]).T @ mask) / n  # [a, b]: over the rows of both
    cov_ay = ((x * y[:, None]).T @ mask) / n - mean_a * mean_y
    cov_ab = (x.T @ x) / n - mean_a * mean_a.T
    var_a = ((x**2).T @ mask) / n - mean_a**2
    var_y = ((mask * (y**2)[:, None]).T @ mask) / n - mean_y**2
    with np.errstate(divide="ignore", invalid="ignore"):
        determinant = var_a * var_a.T - cov_ab**2
        explained = (cov_ay**2 * var_a.T + cov_ay.T**2 * var_a - 2 * cov_ay * cov_ay.T * cov_ab) / determinant
        squared = np.where((determinant > 1e-9) & (n >= FEWEST_ROWS) & (var_y > 0), explained / var_y, 0.0)
    for a, b in zip(*np.nonzero(np.triu(squared > 1 - 1e-5, k=1)), strict=True):
        both = known[:, a] & known[:, b]
        design = np.column_stack([x[both, a], x[both, b], np.ones(both.sum())])
        residual = y[both] - design @ np.linalg.lstsq(design, y[both], rcond=None)[0]
        yield (names[a], names[b]), 1.0 - float(residual.var() / y[both].var())


def ranked_pairs(
    rows: pl.DataFrame, names: Sequence[str], labels: list[Floats]
) -> Iterator[tuple[tuple[str, str], float]]:
    """AUC of the sum or the difference of every two numeric features, whichever is better."""
    values = [numbers_of(rows.get_column(name).head(_PAIR_ROWS)) for name in names]
    for a, first in enumerate(values):
        for b in range(a + 1, len(values)):
            best = 0.0
            for combined in (first + values[b], first - values[b]):
                known = ~np.isnan(combined)
                of_known = [label[:_PAIR_ROWS][known] for label in labels]
                if known.sum() >= FEWEST_ROWS and (len(labels) > 1 or enough_of_each(of_known)):
                    best = max(best, _combined_auc(combined[known], of_known))
            yield (names[a], names[b]), best


def _combined_auc(combined: Floats, labels: list[Floats]) -> float:
    """AUC of a number for two classes; for more, the lowest AUC of neighbouring classes in the order of their means."""
    classes = [label for label in ([1.0 - labels[0], *labels] if len(labels) == 1 else labels) if label.any()]
    ranks = ranks_of(combined)
    classes.sort(key=lambda label: np.average(ranks, weights=label))
    aucs = []
    for lower, upper in pairwise(classes):
        either = lower + upper > 0
        aucs.append(rank_auc(ranks_of(ranks[either]), upper[either]))
    return min(aucs, default=0.5)
