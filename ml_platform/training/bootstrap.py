"""Paired bootstrap: how sure the gain of one model over another is, on the same rows."""

from collections.abc import Iterator

import numpy as np

from ml_platform.spec import Task
from ml_platform.training.documents import Interval
from ml_platform.training.metrics import gain, weighted

RESAMPLES = 400
_CELLS = 1_000_000  # of a chunk of weights: keeps the temporary arrays in the tens of megabytes


def gain_interval(
    metric: str,
    task: Task,
    y: np.ndarray,
    challenger: np.ndarray,
    reference: np.ndarray,
    *,
    confidence: float,
    thresholds: tuple[float | None, float | None] = (None, None),
    seed: int = 0,
) -> Interval | None:
    """Percentile interval of the challenger's gain, both models resampled by the same rows (Efron, 1979).

    Parameters
    ----------
    metric
        Name of the metric; a gain is positive when the challenger is better, whatever the metric's direction.
    task
        Kind of model.
    y
        Labels (rows,).
    challenger, reference
        Scores of the two models on these rows.
    confidence
        Share of the resamples that the interval covers.
    thresholds
        Binary thresholds of challenger and reference, for metrics that need one.

    Returns
    -------
    Interval or None
        None when the metric is undefined on these rows, or on nearly every resample of them.

    Examples
    --------
    >>> y = np.tile([0.0, 1.0], 50)
    >>> interval = gain_interval("brier", "binary", y, y * 0.9, np.full(100, 0.5), confidence=0.95)
    >>> interval.lower > 0.2
    True
    """
    if len(y) == 0:
        return None
    ones = np.ones((1, len(y)))
    pair = ((challenger, thresholds[0]), (reference, thresholds[1]))
    values = [weighted(metric, task, y, score, ones, threshold=cut)[0] for score, cut in pair]
    gains = []
    for weights in _resampled(len(y), seed):
        own, other = (weighted(metric, task, y, score, weights, threshold=cut) for score, cut in pair)
        gains.append(gain(metric, own, other))
    found = np.concatenate(gains)
    found = found[np.isfinite(found)]
    if not np.isfinite(values).all() or len(found) < RESAMPLES / 2:
        return None
    tail = (1 - confidence) / 2
    lower, upper = np.quantile(found, [tail, 1 - tail])
    return Interval(
        gain=float(gain(metric, *values)),
        lower=float(lower),
        upper=float(upper),
        confidence=confidence,
        resamples=RESAMPLES,
    )


def _resampled(rows: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks of weights (resamples × rows): how often each row was drawn."""
    random = np.random.default_rng(seed)
    chunk = max(1, _CELLS // rows)
    for start in range(0, RESAMPLES, chunk):
        drawn = (random.integers(0, rows, rows) for _ in range(min(chunk, RESAMPLES - start)))
        yield np.stack([np.bincount(sample, minlength=rows).astype(np.float64) for sample in drawn])
