"""Whether a window's metric is worse than the holdout's by more than chance, days included.

Rows of one day share its weather, so a window of few days differs from the holdout though nothing has changed. How
much days differ is known from the holdout (`HoldoutError` in the manifest): by how much the interval over its days is
wider than one over independent rows. A window of d days strays by a d-th of that variance, besides its own rows; and
the holdout's metric is uncertain too. So even a single day can be judged, by what days do.

Where a manifest does not say it, the window's own days must, and there must be enough of them.

Days are the unit here whatever `promotion.block` says: a window of few days holds no two weeks, and the column of a
block need not be recorded with the scores.
"""

from dataclasses import dataclass
from math import sqrt

import numpy as np

from ml_platform.registry.manifest import HoldoutError
from ml_platform.spec.types import Task
from ml_platform.training.evaluation.metric_errors import metric_errors
from ml_platform.training.evaluation.metrics import gain, metric_range

MIN_DAYS = 7  # from which the days of one sample say how days differ
CONFIDENCE = 0.95


@dataclass(frozen=True)
class WindowMetric:
    """A metric of a window's labelled rows, and how far chance alone may have moved it."""

    value: float
    lower: float
    upper: float
    variance: float
    days: int
    quantile: float  # of Student's t, for the degrees of freedom of the variance


@dataclass(frozen=True)
class Measured:
    """Labels and scores as arrays, a value per row."""

    y: np.ndarray  # (rows,)
    score: np.ndarray  # (rows,), or (rows × classes) for multiclass
    weights: np.ndarray
    days: np.ndarray  # number of each row's day
    threshold: float | None = None
    quantile: float | None = None


def window_metric(
    metric: str, task: Task, value: float, rows: Measured, holdout: HoldoutError | None
) -> WindowMetric | None:
    """Interval of a window's metric; None where it is undefined, or nothing says how days differ.

    Parameters
    ----------
    metric, task
        What is measured.
    value
        The metric on the rows.
    rows
        The window's labelled rows.
    holdout
        Uncertainty of the same metric on the holdout; None where it is unknown.
    """
    from scipy.special import stdtrit

    errors = metric_errors(
        metric,
        task,
        rows.y,
        rows.score,
        days=rows.days,
        weights=rows.weights,
        threshold=rows.threshold,
        quantile=rows.quantile,
    )
    if errors is None:
        return None
    days = len(np.unique(rows.days))
    own = errors.by_day**2 if errors.by_day is not None and days >= MIN_DAYS else None
    if holdout is not None and holdout.days >= 2:
        between_days = max(0.0, holdout.by_day**2 - holdout.by_row**2) * holdout.days
        variance = max(between_days / errors.days + errors.by_row**2, own or 0.0)
        freedom = holdout.days - 1
    elif own is not None:
        variance, freedom = own, days - 1
    else:
        return None
    quantile = float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    low, high = metric_range(metric)
    reach = quantile * sqrt(variance)
    return WindowMetric(value, max(value - reach, low), min(value + reach, high), variance, days, quantile)


def worse_by_more_than_chance(
    metric: str, window: WindowMetric, holdout_value: float, holdout: HoldoutError | None, *, holdout_days: float
) -> tuple[bool, float]:
    """Whether the window's metric is worse than the holdout's, both uncertain; and by how much it must be.

    `holdout_days` stand for what the manifest does not say: then the holdout is as uncertain as so many of the
    window's days.
    """
    known = holdout.by_day**2 if holdout is not None else window.variance * window.days / max(holdout_days, 1.0)
    bound = window.quantile * sqrt(window.variance + known)
    return float(gain(metric, window.value, holdout_value)) < -bound, bound
