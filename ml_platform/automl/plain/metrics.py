"""The metrics of the leaderboard: scikit-learn's functions, of labels as numbers and the scores of a model.

`score` is the probability of true (rows,), of each class (rows × classes), or the predicted value (rows,). Of several
classes the average is over classes without weights (macro), one against the rest.
"""

from collections.abc import Callable

import numpy as np


def roc_auc(y: np.ndarray, score: np.ndarray) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    if score.ndim == 1:
        return float(roc_auc_score(y, score))
    return float(roc_auc_score(np.eye(score.shape[1])[y.astype(int)], score, average="macro"))


def average_precision(y: np.ndarray, score: np.ndarray) -> float:
    """Average precision."""
    from sklearn.metrics import average_precision_score

    labels = y if score.ndim == 1 else np.eye(score.shape[1])[y.astype(int)]
    return float(average_precision_score(labels, score, average="macro"))


def log_loss(y: np.ndarray, score: np.ndarray) -> float:
    """Mean negative logarithm of the probability of what happened."""
    from sklearn.metrics import log_loss as sklearn_log_loss

    classes = 2 if score.ndim == 1 else score.shape[1]
    return float(sklearn_log_loss(y, score, labels=np.arange(classes)))


def brier(y: np.ndarray, score: np.ndarray) -> float:
    """Mean squared error of the probabilities, summed over classes."""
    if score.ndim == 1:
        from sklearn.metrics import brier_score_loss

        return float(brier_score_loss(y, score))
    return float(((score - np.eye(score.shape[1])[y.astype(int)]) ** 2).sum(axis=1).mean())


def f1(y: np.ndarray, score: np.ndarray) -> float:
    """F1 of the most probable class."""
    from sklearn.metrics import f1_score

    if score.ndim == 1:
        return float(f1_score(y, score >= 0.5))
    return float(f1_score(y, score.argmax(axis=1), average="macro"))


def accuracy(y: np.ndarray, score: np.ndarray) -> float:
    """Share of rows whose most probable class is theirs."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(y, score >= 0.5 if score.ndim == 1 else score.argmax(axis=1)))


def rmse(y: np.ndarray, score: np.ndarray) -> float:
    """Root of the mean squared error."""
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(y, score))


def rmsle(y: np.ndarray, score: np.ndarray) -> float:
    """Root of the mean squared error of log(1 + value); a negative prediction counts as 0."""
    from sklearn.metrics import root_mean_squared_log_error

    return float(root_mean_squared_log_error(y, np.maximum(score, 0.0)))


def mae(y: np.ndarray, score: np.ndarray) -> float:
    """Mean absolute error."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(y, score))


def r2(y: np.ndarray, score: np.ndarray) -> float:
    """Share of the variance that is explained."""
    from sklearn.metrics import r2_score

    return float(r2_score(y, score))


Metric = Callable[[np.ndarray, np.ndarray], float]
METRICS: dict[str, Metric] = {
    function.__name__: function
    for function in (roc_auc, average_precision, log_loss, brier, f1, accuracy, rmse, rmsle, mae, r2)
}
