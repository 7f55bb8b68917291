"""Splits of libraries that compare in float32, as thresholds for doubles that send every value the same way."""

import numpy as np

LARGEST = 1e30  # of which float32 can hold the sum over all rows, too


def in_float32_range(X: np.ndarray) -> np.ndarray:
    """Clip a matrix to what float32 can reckon with; NaN stays.

    Libraries that work in float32 refuse larger values, or read them as infinite.
    """
    return np.clip(X, -LARGEST, LARGEST)


def double_thresholds(splits: np.ndarray, *, inclusive: bool = True) -> np.ndarray:
    """For each split the largest double that, rounded to float32, is at most the split (or below it).

    Rounding never changes the order of two numbers, so `x <= threshold` in double goes every way that
    `float32(x) <= split` goes, also one unit in the last place beside it.

    Parameters
    ----------
    splits
        Float64 or float32 (any shape).
    inclusive
        False: for `float32(x) < split`.

    Examples
    --------
    >>> split = np.float64(0.1)
    >>> [threshold] = double_thresholds(np.array([split]))
    >>> bool(np.float32(threshold) <= split), bool(np.float32(np.nextafter(threshold, 1)) <= split)
    (True, False)
    """
    exact = splits.astype(np.float64)
    below = exact.astype(np.float32)
    too_large = below.astype(np.float64) > exact if inclusive else below.astype(np.float64) >= exact
    below = np.where(too_large, np.nextafter(below, np.float32(-np.inf)), below)
    middle = (below.astype(np.float64) + np.nextafter(below, np.float32(np.inf)).astype(np.float64)) / 2
    return np.where(middle.astype(np.float32) == below, middle, np.nextafter(middle, -np.inf))
