"""Two-sample tests and distances: could these two samples come from one distribution, and how far are they apart?

Every distance is a pure number that no unit and no outlier changes. The tests are those of two samples: Evidently's
chi-square takes the reference for the exact truth, so that with two samples of equal size it rejects too often, and a
single row of a category that the reference lacks makes its p-value 0.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ml_platform.monitoring.drift.chi_square import chi_square_p_value

# Rows of a category on the smaller side. Cochran's five are for the chi-square distribution; four moments need fewer,
# below three the statistic becomes coarse. With five, drift of fifty equal categories is missed in windows of 200 rows.
SMALLEST_EXPECTED = 3.0


def two_proportions(reference: float, reference_rows: float, current: float, current_rows: float) -> float:
    """P-value (two-sided) that `reference` of `reference_rows` and `current` of `current_rows` have one share.

    Fisher's exact test, so that it holds for shares next to 0 and for few rows. Counts are rounded to whole rows.

    Examples
    --------
    >>> two_proportions(20, 20_000, 20, 1_000) < 1e-9  # a flag from 0.1 % to 2 %
    True
    >>> two_proportions(0, 1_000, 1, 1_000)  # one row proves nothing
    1.0
    """
    from scipy.stats import fisher_exact

    a, n, b, m = (round(value) for value in (reference, reference_rows, current, current_rows))
    if min(n, m) == 0 or a + b in {0, n + m}:
        return 1.0
    return min(float(fisher_exact([[a, n - a], [b, m - b]])[1]), 1.0)


def cohens_h(reference: float, current: float) -> float:
    """Distance of two shares by Cohen's h, which counts small shares by their ratio and large ones by their difference.

    Examples
    --------
    >>> round(cohens_h(0.01, 0.03), 2), round(cohens_h(0.5, 0.55), 2)
    (0.15, 0.1)
    """
    return abs(2 * math.asin(math.sqrt(current)) - 2 * math.asin(math.sqrt(reference)))


def two_sample_chi_square(reference: Mapping[Any, int], current: Mapping[Any, int]) -> float:
    """P-value that two samples of categories, given as counts, come from one distribution.

    Categories whose expected count is below 3 in the smaller sample are tested as one; if even together they stay
    below it, they are left out. Where two are left, flags above all, the test is Fisher's: at the small p-values that
    many tests share a significance by, chi-square calls a share of 1 % of 1,000 rows drifted over twice too often.

    Examples
    --------
    >>> two_sample_chi_square({"a": 500, "b": 500}, {"a": 250, "b": 250})
    1.0
    >>> two_sample_chi_square({"a": 500, "b": 500}, {"a": 400, "b": 100}) < 1e-9
    True
    >>> two_sample_chi_square({"a": 1000}, {"a": 999, "b": 1})  # one row proves nothing
    1.0
    """
    table = contingency_table(reference, current)
    smaller_share = table.sum(axis=1).min() / table.sum()
    rare = table.sum(axis=0) * smaller_share < SMALLEST_EXPECTED
    pooled = table[:, rare].sum(axis=1, keepdims=True)
    cells = table[:, ~rare]
    # A side with rare categories alone is told from the other by those.
    if pooled.sum() * smaller_share >= SMALLEST_EXPECTED or not cells.sum(axis=1).all():
        cells = np.hstack([cells, pooled])
    if cells.shape[1] < 2:
        return 1.0
    if cells.shape[1] == 2:
        (old, old_other), (new, new_other) = cells
        return two_proportions(old, old + old_other, new, new + new_other)
    return chi_square_p_value(cells)


def contingency_table(reference: Mapping[Any, int], current: Mapping[Any, int]) -> np.ndarray:
    """Counts (2 × categories) of the categories of either sample."""
    keys = sorted(set(reference) | set(current), key=str)
    return np.array([[counts.get(key, 0) for key in keys] for counts in (reference, current)], dtype=float)


def jensen_shannon(reference: Mapping[Any, int], current: Mapping[Any, int]) -> float:
    """Jensen–Shannon distance of two samples of categories, given as counts; 0 to 0.83 (the root of ln 2).

    Examples
    --------
    >>> jensen_shannon({"a": 5}, {"a": 7})
    0.0
    """
    from scipy.spatial.distance import jensenshannon

    return float(np.nan_to_num(jensenshannon(*contingency_table(reference, current))))


def ks_distance(reference: np.ndarray, current: np.ndarray) -> float:
    """Kolmogorov–Smirnov distance D of two *sorted* samples: the largest difference of their distribution functions.

    Examples
    --------
    >>> ks_distance(np.array([0.0, 1, 2, 3]), np.array([2.0, 3, 4, 5]))
    0.5
    """
    steps = np.arange(len(current) + 1) / len(current)
    # The largest difference is at a value of `current` or just before one: between two of them its function is flat.
    below = np.searchsorted(reference, current, side="left") / len(reference)
    upto = np.searchsorted(reference, current, side="right") / len(reference)
    first = np.searchsorted(current, current, side="left")
    last = np.searchsorted(current, current, side="right")
    return float(max(np.abs(below - steps[first]).max(), np.abs(upto - steps[last]).max()))


def ks_p_value(distance: float, reference_rows: int, current_rows: int) -> float:
    """P-value of a Kolmogorov–Smirnov distance; on the safe side where values repeat.

    Examples
    --------
    >>> ks_p_value(0.05, 20_000, 1_000) > 0.01 > ks_p_value(0.1, 20_000, 1_000)
    True
    """
    from scipy.stats import kstwo

    return float(kstwo.sf(distance, max(1, round(reference_rows * current_rows / (reference_rows + current_rows)))))


def unseen_share(counts: np.ndarray) -> tuple[float, float]:
    """Share of rows whose value the sample has not seen, by Good–Turing, and of how many rows that is worth the share.

    Parameters
    ----------
    counts
        How often each value of the sample occurs.

    Returns
    -------
    tuple
        Values seen once over all rows; and the number of independent rows whose share would be as uncertain (its
        variance by Esty, 1983), which is less than all rows where values occur twice.

    Examples
    --------
    >>> unseen_share(np.array([1, 1, 2]))
    (0.5, 1.3333333333333333)
    """
    rows, once, twice = float(counts.sum()), float((counts == 1).sum()), float((counts == 2).sum())
    if not once:
        return 0.0, rows
    if once == rows:
        return 1.0, rows
    repeated = once * (rows - once)
    return once / rows, rows * repeated / (repeated + 2 * twice * rows)


def share_lower_bound(count: int, rows: int, *, confidence: float) -> float:
    """Lower bound of the share behind `count` of `rows`, by Clopper and Pearson; 0 without any.

    Examples
    --------
    >>> round(share_lower_bound(1, 1, confidence=0.99), 2), round(share_lower_bound(50, 1000, confidence=0.99), 3)
    (0.01, 0.035)
    """
    from scipy.stats import beta

    return float(beta.ppf(1 - confidence, count, rows - count + 1)) if count else 0.0
