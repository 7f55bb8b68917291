"""Two-sample tests: could these two samples come from one distribution?

Evidently computes the distances and draws the report. The tests are run here, because each of Evidently's metrics draws
its plots too (25 ms a column), and because its chi-square takes the reference for the exact truth: with two samples of
equal size it rejects too often, and a single row of a category that the reference lacks makes its p-value 0.
"""

from collections.abc import Mapping
from typing import Any

import polars as pl

_SMALLEST_EXPECTED = 5.0  # Cochran's rule for the approximation to hold


def two_sample_chi_square(reference: Mapping[Any, int], current: Mapping[Any, int]) -> float:
    """P-value that two samples of categories, given as counts, come from one distribution.

    Categories whose expected count is below 5 in the smaller sample are tested as one; if even together they stay
    below it, they are left out.

    Examples
    --------
    >>> two_sample_chi_square({"a": 500, "b": 500}, {"a": 250, "b": 250})
    1.0
    >>> two_sample_chi_square({"a": 500, "b": 500}, {"a": 400, "b": 100}) < 1e-9
    True
    >>> two_sample_chi_square({"a": 1000}, {"a": 999, "b": 1})  # one row proves nothing
    1.0
    """
    import numpy as np
    from scipy.stats import chi2_contingency

    keys = sorted(set(reference) | set(current), key=str)
    table = np.array([[counts.get(key, 0) for key in keys] for counts in (reference, current)], dtype=float)
    smaller_share = table.sum(axis=1).min() / table.sum()
    rare = table.sum(axis=0) * smaller_share < _SMALLEST_EXPECTED
    pooled = table[:, rare].sum(axis=1, keepdims=True)
    cells = table[:, ~rare]
    if pooled.sum() * smaller_share >= _SMALLEST_EXPECTED:
        cells = np.hstack([cells, pooled])
    return 1.0 if cells.shape[1] < 2 else float(chi2_contingency(cells, correction=False)[1])


def kolmogorov_smirnov(reference: pl.Series, current: pl.Series) -> float:
    """P-value of the two-sample Kolmogorov–Smirnov test of numbers without nulls."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(reference.to_numpy(), current.to_numpy()).pvalue)
