"""Fits Platt scaling: a slope and a shift of log-odds; with several classes one slope, and a shift for each class.

Labels are smoothed as Platt does (one row more for each class), so that a few rows do not make probabilities certain.
"""

from datetime import datetime
from typing import Literal

import numpy as np
from msgspec.structs import replace

from ml_platform.inference.calibration import calibrated, log_odds
from ml_platform.registry.manifest import Calibration
from ml_platform.spec.types import Task
from ml_platform.training.artifacts.bundle import iso
from ml_platform.training.evaluation.calibration import expected_calibration_error

MIN_ROWS = 100
MIN_CLASS_ROWS = 20  # of other classes than the most frequent
SLOPES = (0.05, 20.0)
_FLOOR = 1e-12
_HIGHEST_FLOOR = 1e-3


class NotCalibratable(ValueError):
    """Rows of which no calibration can be learned; the message is the reason."""


def fit_platt(
    task: Task,
    y: np.ndarray,
    score: np.ndarray,
    *,
    fitted_on: Literal["validation", "labelled"],
    first: datetime,
    last: datetime,
    weights: np.ndarray | None = None,
) -> Calibration:
    """Learn a calibration of rows that the model has not learned from.

    Parameters
    ----------
    task
        `binary` or `multiclass`.
    y
        Labels (rows,), as `encode_labels` gives them; rows of a class that the model does not know are left out.
    score
        Probabilities: (rows,) for binary, (rows × classes) for multiclass.
    fitted_on, first, last
        What the rows are, for the manifest.
    weights
        How many rows each one stands for (rows,); one each when None.

    Raises
    ------
    NotCalibratable
        With fewer than `MIN_ROWS` rows, or `MIN_CLASS_ROWS` of other classes than the most frequent, or where the
        fitted slope is outside of `SLOPES`: then the score ranks the rows the wrong way, or hardly at all.
    """
    known = y >= 0
    labels, score = y[known].astype(np.int64), score[known]
    weights = np.ones(len(labels)) if weights is None else weights[known]
    classes = 2 if task == "binary" else score.shape[1]
    counts = np.bincount(labels, minlength=classes)
    rare = int(counts.sum() - counts.max())
    if len(labels) < MIN_ROWS or rare < MIN_CLASS_ROWS:
        raise NotCalibratable(
            f"{len(labels):,} rows, {rare:,} of them of other classes than the most frequent, are too few: "
            f"{MIN_ROWS} and {MIN_CLASS_ROWS} are wanted"
        )
    floor = _floor(score)
    slope, shifts = _fit(log_odds(score, floor), labels, counts, weights)
    if not SLOPES[0] <= slope <= SLOPES[1]:
        raise NotCalibratable(
            f"the slope {slope:.3g} is not within {SLOPES[0]:g} and {SLOPES[1]:g}: on these rows the score hardly "
            "ranks, or ranks the wrong way"
        )
    found = Calibration(
        slope=slope,
        shifts=shifts,
        floor=floor,
        fitted_on=fitted_on,
        fitted_from=iso(first),
        fitted_until=iso(last),
        rows=len(labels),
        error_before=expected_calibration_error(task, labels, score),
        error_after=0.0,
    )
    after = expected_calibration_error(task, labels, calibrated(found, score))
    return replace(found, error_after=after)


def compose(first: Calibration | None, second: Calibration) -> Calibration:
    """One calibration that does what a second one does to scores that the first one has calibrated."""
    if first is None:
        return second
    shifts = second.slope * np.array(first.shifts) + np.array(second.shifts)
    return replace(second, slope=first.slope * second.slope, shifts=tuple(shifts.tolist()), floor=first.floor)


def _floor(score: np.ndarray) -> float:
    """Where probabilities of exactly 0 or 1 are held: at half of the smallest distance from them that occurs."""
    distances = np.minimum(score, 1 - score)
    if (distances > 0).all():
        return _FLOOR
    positive = distances[distances > 0]
    return float(np.clip(positive.min() / 2, _FLOOR, _HIGHEST_FLOOR)) if positive.size else _HIGHEST_FLOOR


def _fit(
    raw: np.ndarray, labels: np.ndarray, counts: np.ndarray, weights: np.ndarray
) -> tuple[float, tuple[float, ...]]:
    """Slope and shifts of the least log-loss on smoothed labels."""
    from scipy.optimize import minimize

    classes = len(counts)
    logs = np.column_stack([np.zeros(len(raw)), raw]) if raw.ndim == 1 else raw
    wanted = np.full((len(logs), classes), 1.0) / (counts[labels] + classes)[:, None]
    wanted[np.arange(len(logs)), labels] = (counts[labels] + 1) / (counts[labels] + classes)
    share = weights / weights.sum()
    free = np.flatnonzero(counts > 0)[1:]  # the first class that occurs, and those that do not, keep their shift

    def loss(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        shifts = np.zeros(classes)
        shifts[free] = numbers[1:]
        values = numbers[0] * logs + shifts
        values -= values.max(axis=1, keepdims=True)
        logged = values - np.log(np.exp(values).sum(axis=1, keepdims=True))
        error = share[:, None] * (np.exp(logged) - wanted)
        gradient = np.concatenate([[(error * logs).sum()], error.sum(axis=0)[free]])
        return -float((share[:, None] * wanted * logged).sum()), gradient

    start = np.concatenate([[1.0], np.zeros(len(free))])
    found = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-8}).x
    shifts = np.zeros(classes)
    shifts[free] = found[1:]
    if raw.ndim == 1:
        return float(found[0]), (float(shifts[1] - shifts[0]),)
    return float(found[0]), tuple((shifts - shifts.mean()).tolist())
