"""Metrics in NumPy, each for many weightings of the same rows at once, as a jackknife needs them.

`weights` is (weightings × rows); the plain value is the one for a single row of ones. Definitions are scikit-learn's
(a test compares them); multiclass metrics are averaged over classes without weights ("macro", one against the rest).

Labels of a class that a model does not know, of which there may be some in any newer data, are -1. They are errors: one
more class, to which the model gives a probability of 0. A class without rows has no value, and no part in an average.

A regression of a quantile is measured by its pinball loss, which that quantile alone makes least, and by its coverage:
the share of rows whose label is at most the score, which is near the quantile where the model is right.
"""

from collections.abc import Mapping

import numpy as np

from ml_platform.spec.model import (
    ALL_METRICS,
    CLASSIFICATION_METRICS,
    LOWER_IS_BETTER,
    QUANTILE_METRICS,
    REGRESSION_METRICS,
)
from ml_platform.spec.threshold import Threshold
from ml_platform.spec.types import Task

_EPSILON = 1e-15


def metric_names(task: Task, quantile: float | None = None) -> tuple[str, ...]:
    """Names of the metrics that a task is measured by; those of the mean say nothing of another quantile."""
    if task != "regression":
        return CLASSIFICATION_METRICS
    return REGRESSION_METRICS if quantile is None else QUANTILE_METRICS


def measure(
    task: Task,
    y: np.ndarray,
    score: np.ndarray,
    *,
    threshold: float | None = None,
    quantile: float | None = None,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Compute all metrics of the task that are defined on these rows.

    Parameters
    ----------
    task
        Kind of model.
    y
        Labels (rows,), as `encode_labels` gives them.
    score
        (rows,) for binary and regression, (rows × classes) for multiclass.
    threshold
        Binary: what counts as positive in `f1` and `accuracy`; 0.5 when None.
    quantile
        Of a regression that gives a quantile; None for the mean.
    weights
        How many rows each one stands for (rows,); one each when None.

    Returns
    -------
    dict
        Name → value. A metric is left out where it is undefined, such as ROC AUC with a single class.

    Examples
    --------
    >>> measure("binary", np.array([0.0, 1.0, 1.0]), np.array([0.2, 0.4, 0.9]))["roc_auc"]
    1.0
    """
    alone = np.ones((1, len(y))) if weights is None else weights[None, :]
    values = {
        name: float(weighted(name, task, y, score, alone, threshold=threshold, quantile=quantile)[0])
        for name in metric_names(task, quantile)
    }
    return {name: value for name, value in values.items() if np.isfinite(value)}


def weighted(
    name: str,
    task: Task,
    y: np.ndarray,
    score: np.ndarray,
    weights: np.ndarray,
    *,
    threshold: float | None = None,
    quantile: float | None = None,
) -> np.ndarray:
    """One metric for each row of `weights`; NaN where it is undefined."""
    if task == "multiclass":
        return _multiclass(name, y, score, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        if name == "roc_auc":
            return _roc_auc(y, score, weights)
        if name == "average_precision":
            return _average_precision(y, score, weights)
        if name == "f1":
            return _f1(y, score >= (0.5 if threshold is None else threshold), weights)
        if name == "r2":
            return _r2(y, score, weights)
        mean = weights @ row_loss(name, task, y, score, threshold, quantile) / weights.sum(axis=1)
        return np.sqrt(mean) if name in ("rmse", "rmsle") else mean


def row_loss(  # noqa: PLR0917 - the order is that of `weighted`
    name: str,
    task: Task,
    y: np.ndarray,
    score: np.ndarray,
    threshold: float | None = None,
    quantile: float | None = None,
) -> np.ndarray:
    """Each row's part (rows,) in a metric that is a mean over rows; of `rmse` and `rmsle` in their squares."""
    if task == "multiclass":
        return _multiclass_row_loss(name, y.astype(np.int64), score)
    if name == "log_loss":
        clipped = np.clip(score, _EPSILON, 1 - _EPSILON)
        return -(y * np.log(clipped) + (1 - y) * np.log(1 - clipped))
    if name == "accuracy":
        return ((score >= (0.5 if threshold is None else threshold)) == (y > 0.5)).astype(np.float64)
    if name == "rmsle":  # undefined where a label is negative; a negative prediction counts as 0
        return (np.log1p(np.where(y < 0, np.nan, y)) - np.log1p(np.maximum(score, 0.0))) ** 2
    above = y - score
    losses = {"brier": above**2, "rmse": above**2, "mae": np.abs(above), "coverage": (above <= 0).astype(np.float64)}
    if quantile is not None:
        losses["pinball"] = np.maximum(quantile * above, (quantile - 1) * above)
    if name in losses:
        return losses[name]
    raise ValueError(f"metric '{name}' is not one of {', '.join(ALL_METRICS)}, or wants a quantile")


def gain(name: str, challenger: np.ndarray | float, reference: np.ndarray | float) -> np.ndarray | float:
    """How much better the challenger's value of a metric is (positive is better, whatever the metric's direction)."""
    return reference - challenger if name in LOWER_IS_BETTER else challenger - reference


def metric_range(name: str) -> tuple[float, float]:
    """Smallest and largest value that a metric can take."""
    if name in ("log_loss", "rmse", "rmsle", "mae", "pinball"):
        return 0.0, np.inf
    if name == "r2":
        return -np.inf, 1.0
    return 0.0, 2.0 if name == "brier" else 1.0  # 2 where all probability is on a wrong class of several


def best_f1_threshold(y: np.ndarray, score: np.ndarray) -> float:
    """Threshold (score ≥ threshold is positive) with the largest F1; the largest such threshold on a tie."""
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], np.cumsum(y[order])
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    f1 = 2 * hits / (np.arange(1, len(y) + 1) + y.sum())
    return float(ranked[np.argmax(np.where(last_of_tie, f1, -1.0))])


def lowest_cost_threshold(y: np.ndarray, score: np.ndarray, *, false_positive: float, false_negative: float) -> float:
    """Threshold (score ≥ threshold is positive) with the lowest cost of wrong answers; the largest such on a tie.

    It is one of the scores, or just above them all, where it is cheapest to answer false always.

    Examples
    --------
    >>> y, score = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.3, 0.6, 0.8])
    >>> [lowest_cost_threshold(y, score, false_positive=1, false_negative=cost) for cost in (0.5, 5)]
    [0.8, 0.3]
    """
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], np.cumsum(y[order])
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    wrong = false_positive * (np.arange(1, len(y) + 1) - hits) + false_negative * (y.sum() - hits)
    costs = np.append(false_negative * y.sum(), np.where(last_of_tie, wrong, np.inf))
    return float(np.append(np.nextafter(ranked[0], np.inf), ranked)[np.argmin(costs)])


def choose_threshold(rule: Threshold, y: np.ndarray, score: np.ndarray) -> float:
    """Threshold of a binary model, as `threshold` in `defs.yaml` asks for it, on rows that it was not trained on."""
    if (cost := rule.cost) is not None:
        return lowest_cost_threshold(y, score, false_positive=cost.false_positive, false_negative=cost.false_negative)
    return best_f1_threshold(y, score) if rule.value is None else rule.value


def shares(values: Mapping[str, float]) -> dict[str, float]:
    """Non-negative numbers as shares of their sum, largest first; equal shares when all are zero.

    Examples
    --------
    >>> shares({"a": 1.0, "b": 3.0})
    {'b': 0.75, 'a': 0.25}
    """
    total = sum(values.values())
    parts = {name: value / total if total > 0 else 1 / len(values) for name, value in values.items()}
    return dict(sorted(parts.items(), key=lambda item: (-item[1], item[0])))


def _ties(ranked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the first row of each row's tie, and of the first row after it."""
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    group = np.cumsum(np.append(True, ranked[1:] != ranked[:-1])) - 1
    return starts[group], np.append(starts[1:], len(ranked))[group]


def _roc_auc(y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(score, kind="stable")
    positive, ordered = y[order] > 0.5, weights[:, order]
    first, after = _ties(score[order])
    below = np.zeros((len(weights), len(y) + 1))
    np.cumsum(ordered * ~positive, axis=1, out=below[:, 1:])
    positives = ordered[:, positive]
    wins = (positives * (below[:, first[positive]] + below[:, after[positive]])).sum(axis=1) / 2
    return wins / (positives.sum(axis=1) * below[:, -1])


def _average_precision(y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(-score, kind="stable")
    positive, ordered = y[order] > 0.5, weights[:, order]
    _, after = _ties(-score[order])
    chosen = np.cumsum(ordered, axis=1)
    hits = np.cumsum(ordered * positive, axis=1)
    at = after[positive] - 1  # precision at the end of each positive's tie
    precision = np.where(chosen[:, at] > 0, hits[:, at] / np.maximum(chosen[:, at], _EPSILON), 0.0)
    return (ordered[:, positive] * precision).sum(axis=1) / hits[:, -1]


def _f1(y: np.ndarray, predicted: np.ndarray, weights: np.ndarray, *, empty: float = 0.0) -> np.ndarray:
    hits = weights @ ((y > 0.5) & predicted)
    found = weights @ predicted.astype(np.float64) + weights @ (y > 0.5).astype(np.float64)
    return np.where(found > 0, 2 * hits / np.maximum(found, _EPSILON), empty)


def _r2(y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=1)
    centred = y - np.median(y)  # else the squares of a large offset leave no digits for the spread
    spread = weights @ (centred**2) / total - (weights @ centred / total) ** 2
    return 1 - (weights @ (y - score) ** 2 / total) / np.where(spread > 0, spread, np.nan)


def _multiclass(name: str, y: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    if name in ("log_loss", "brier", "accuracy"):
        return weights @ row_loss(name, "multiclass", y, score) / weights.sum(axis=1)
    labels, score = _with_unknown(y.astype(np.int64), score)
    predicted = score.argmax(axis=1)
    each = {"roc_auc": _roc_auc, "average_precision": _average_precision}
    with np.errstate(invalid="ignore", divide="ignore"):
        per_class = np.stack(
            [
                _f1((labels == k).astype(np.float64), predicted == k, weights, empty=np.nan)
                if name == "f1"
                else each[name]((labels == k).astype(np.float64), score[:, k], weights)
                for k in range(score.shape[1])
            ]
        )
        defined = np.isfinite(per_class)
        return np.where(defined, per_class, 0.0).sum(axis=0) / defined.sum(axis=0)


def _with_unknown(labels: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make unknown labels a class of their own, with a probability of 0."""
    if not (labels < 0).any():
        return labels, score
    return np.where(labels < 0, score.shape[1], labels), np.column_stack([score, np.zeros(len(score))])


def _multiclass_row_loss(name: str, labels: np.ndarray, score: np.ndarray) -> np.ndarray:
    labels, score = _with_unknown(labels, score)
    if name == "log_loss":
        return -np.log(np.clip(score[np.arange(len(labels)), labels], _EPSILON, None))
    if name == "brier":
        return ((score - np.eye(score.shape[1])[labels]) ** 2).sum(axis=1)
    if name == "accuracy":
        return (score.argmax(axis=1) == labels).astype(np.float64)
    raise ValueError(f"metric '{name}' is not a mean over the rows of a multiclass model")
