"""Whether probabilities are what they say: of rows with a probability of 0.3, three in ten should be positive."""

from typing import NamedTuple

import numpy as np

from ml_platform.registry.manifest import Reliability
from ml_platform.spec.types import Task

BINS = 10


class CalibrationBin(NamedTuple):
    """Rows with about the same probability."""

    predicted: float  # mean of the probabilities
    observed: float  # share of the rows that were what they were said to be
    rows: int


def calibration_bins(task: Task, y: np.ndarray, score: np.ndarray, *, bins: int = BINS) -> list[CalibrationBin]:
    """Sort rows by probability into bins of about equal size; rows of equal probability stay together.

    Parameters
    ----------
    task
        `binary`, or `multiclass`, of which the most probable class is looked at.
    y
        Labels (rows,), as `encode_labels` gives them: 0 or 1, or the class's position, -1 for an unknown class.
    score
        Probabilities: (rows,) for binary, (rows × classes) for multiclass.
    bins
        How many bins there are at most.

    Raises
    ------
    ValueError
        For a regression, which has no probabilities.
    """
    if task == "regression":
        raise ValueError("calibration: wanted a classifier's probabilities, a regression has none")
    probability, outcome = said_and_happened(task, y, score)
    place = bins_of(probability, bins)
    rows = np.bincount(place, minlength=bins)
    sums = np.bincount(place, probability, bins), np.bincount(place, outcome, bins)
    return [
        CalibrationBin(sums[0][at] / rows[at], sums[1][at] / rows[at], int(rows[at])) for at in np.flatnonzero(rows)
    ]


def said_and_happened(task: Task, y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability that each row was given (rows,), and whether what it was given to has happened (rows,)."""
    if task == "binary":
        return score, y > 0.5
    return score.max(axis=1), score.argmax(axis=1) == y


def bins_of(values: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Number of each row's bin (rows,), of about equally many rows; equal values stay together.

    Examples
    --------
    >>> bins_of(np.array([0.1, 0.9, 0.9, 0.2]), 2).tolist()
    [0, 1, 1, 0]
    """
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - sizes / 2  # of each group of equal values, among the sorted rows
    return np.minimum((middle * bins / max(len(values), 1)).astype(np.int64), bins - 1)[group]


def reliability_of(task: Task, y: np.ndarray, score: np.ndarray) -> tuple[Reliability, ...]:
    """What `calibration_bins` gives, as manifests keep it; nothing for a regression."""
    if task == "regression" or not len(y):
        return ()
    return tuple(
        Reliability(predicted=float(one.predicted), observed=float(one.observed), rows=one.rows)
        for one in calibration_bins(task, y, score)
    )


def expected_calibration_error(task: Task, y: np.ndarray, score: np.ndarray, *, bins: int = BINS) -> float:
    """How far probabilities and observed shares are apart, on average over the rows; 0 is perfect.

    Chance alone makes it some 0.4 / sqrt(rows of a bin) at shares near 0.5, so few rows cannot show a small error.
    Takes what `calibration_bins` takes, and raises what it raises; NaN without rows.

    Examples
    --------
    >>> said, happened = np.array([0.25, 0.25, 0.25, 0.25, 0.9, 0.9]), np.array([0.0, 0.0, 1.0, 0.0, 1.0, 1.0])
    >>> round(expected_calibration_error("binary", happened, said), 4)
    0.0333
    """
    if not len(y):
        return float("nan")
    found = calibration_bins(task, y, score, bins=bins)
    return float(sum(one.rows * abs(one.predicted - one.observed) for one in found) / len(y))
