"""Scores of estimators that were fitted with weighted classes, as probabilities of the classes as they really occur.

An estimator that saw a class with weight w gives odds that are w times too high. Divided by the weights and brought to
a sum of 1 again, its answers are probabilities: what a threshold, a cost or a reader takes them for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ml_platform.registry.manifest import Feature
from ml_platform.spec.types import Task
from ml_platform.training.export.class_weights import correct_graph
from ml_platform.training.families.base import EstimatorFamily


def predict_scores(
    family: EstimatorFamily, estimator: Any, task: Task, X: np.ndarray, class_weights: Sequence[float] | None
) -> np.ndarray:
    """Scores as `EstimatorFamily.predict` gives them, without the weights that the classes had in fitting."""
    scores = family.predict(estimator, task, X)
    if class_weights is None or family.undoes_class_weights:
        return scores
    return without_class_weights(scores, class_weights)


def export_graph(
    family: EstimatorFamily,
    estimator: Any,
    task: Task,
    features: Sequence[Feature],
    class_weights: Sequence[float] | None,
) -> bytes:
    """Write the graph of `EstimatorFamily.export`, whose scores are those of `predict_scores`."""
    onnx = family.export(estimator, task, features)
    if class_weights is None or family.undoes_class_weights:
        return onnx
    return correct_graph(onnx, task, class_weights)


def without_class_weights(scores: np.ndarray, class_weights: Sequence[float]) -> np.ndarray:
    """Correct probabilities, of the positive class (rows,) or of all (rows × classes), for weights of the classes.

    Examples
    --------
    >>> without_class_weights(np.array([0.5, 0.9]), (1.0, 9.0)).round(3).tolist()
    [0.1, 0.5]
    """
    weights = np.array(class_weights)
    if scores.ndim == 1:
        positive = scores / weights[1]
        corrected: np.ndarray = positive / (positive + (1 - scores) / weights[0])
        return corrected
    shares: np.ndarray = scores / weights
    return shares / shares.sum(axis=1, keepdims=True)
