"""What counts as missing for a model: null, NaN, and numbers that are infinite, as of a division by zero."""

import numpy as np


def infinite_as_missing(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix (float64) in which infinite values are NaN; the same object when it has none.

    A linear model would answer an infinite feature with certainty, and what was infinite in training would spoil its
    scale. No input is infinite (it is refused); a feature that is derived or looked up may be.

    Examples
    --------
    >>> infinite_as_missing(np.array([[1.0, np.inf], [-np.inf, np.nan]])).tolist()
    [[1.0, nan], [nan, nan]]
    """
    infinite = np.isinf(matrix)
    return np.where(infinite, np.nan, matrix) if infinite.any() else matrix
