"""How uncertain a metric is on some rows: over their days, and as if rows were independent of one another."""

from dataclasses import dataclass

import numpy as np

from ml_platform.registry.manifest import HoldoutError
from ml_platform.spec.types import Task
from ml_platform.training.evaluation.cluster_interval import metric_interval


@dataclass(frozen=True)
class MetricErrors:
    """Standard errors of a metric."""

    by_row: float
    by_day: float | None  # None on a single day, and where the metric is undefined without one of the days
    days: float  # equally large days that would say as much


def metric_errors(
    metric: str,
    task: Task,
    y: np.ndarray,
    score: np.ndarray,
    *,
    days: np.ndarray,
    weights: np.ndarray | None = None,
    threshold: float | None = None,
    quantile: float | None = None,
) -> MetricErrors | None:
    """Standard errors of a metric on rows (see `cluster_interval.metric_interval`); None where it is undefined.

    Examples
    --------
    >>> y, days = np.tile([0.0, 1.0, 1.0], 20), np.repeat(np.arange(20), 3)
    >>> found = metric_errors("brier", "binary", y, np.where(days % 2, 0.8, 0.6), days=days)
    >>> found.days, found.by_day > 0, found.by_row > 0
    (20.0, True, True)
    """
    by_row, by_day = (
        metric_interval(metric, task, y, score, blocks=blocks, weights=weights, threshold=threshold, quantile=quantile)
        for blocks in (np.arange(len(y)), days)
    )
    if by_row is None:
        return None
    if by_day is None:
        return MetricErrors(by_row.standard_error, None, 1.0)
    return MetricErrors(by_row.standard_error, by_day.standard_error, by_day.effective_blocks)


def holdout_error(
    metric: str,
    task: Task,
    y: np.ndarray,
    score: np.ndarray,
    *,
    days: np.ndarray,
    threshold: float | None = None,
    quantile: float | None = None,
) -> HoldoutError | None:
    """Errors of the holdout's metric as the manifest keeps them; None where it does not say how days differ."""
    found = metric_errors(metric, task, y, score, days=days, threshold=threshold, quantile=quantile)
    if found is None or found.by_day is None:
        return None
    return HoldoutError(metric=metric, by_day=found.by_day, by_row=found.by_row, days=found.days)
