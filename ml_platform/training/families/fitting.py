"""Building and fitting one estimator of any family, on rows that it can learn from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import Parameter
from ml_platform.spec.types import Task
from ml_platform.training.families.base import EstimatorFamily, Validation
from ml_platform.training.objective import PLAIN, Objective


def train_estimator(  # noqa: PLR0917 - the order is that of `build` and `fit`
    family: EstimatorFamily,
    task: Task,
    features: Sequence[Feature],
    params: Mapping[str, Parameter],
    seed: int,
    X: np.ndarray,
    y: np.ndarray,
    validation: Validation | None = None,
    *,
    objective: Objective = PLAIN,
) -> Any:
    """Build an estimator and fit it.

    Parameters
    ----------
    family
        Which estimator.
    task
        Kind of model.
    features
        Columns of the matrix, in order.
    params
        As `EstimatorFamily.suggest` or `fitted_params` give them.
    seed
        Of everything random in the estimator.
    X, y
        Rows × features (float64), and the labels (rows,) as `encode_labels` gives them.
    validation
        Later rows and labels, to stop early on. Rows with a class that `y` does not have cannot say when to stop, and
        are left out of that, as are rows of weight 0.
    objective
        Weights, quantile and monotone features. The weights that the family gets have a mean of 1, so that its
        parameters mean the same as without. Scores are to be corrected for those of classes (`predict_scores`).

    Raises
    ------
    ValueError
        When the family cannot do the task or the objective, or a classifier is given rows of a single class.
    """
    info = family.info
    if task not in info.tasks:
        raise ValueError(
            f"family '{info.name}' cannot do task '{task}'; name another one under `families` in defs.yaml"
        )
    if task != "regression" and len(np.unique(y)) < 2:
        raise ValueError(f"family '{info.name}': all {len(y)} rows have the same class; a classifier needs two or more")
    settings = dict(params) | _objective_params(family, objective)
    estimator = family.build(task, features, settings, seed)
    weights = objective.combined(y, objective.weights)
    if weights is None:
        later, _ = _usable(validation, y, task, objective)
        return family.fit(estimator, X, y, later)
    if not info.weights:
        raise ValueError(f"family '{info.name}' takes no weights, which `weight` and `class_weights` need")
    later, later_weights = _usable(validation, y, task, objective)
    weights = weights / weights.mean()
    fitted = family.fit(estimator, X, y, later, weights=weights, validation_weights=later_weights)
    if objective.class_weights is not None and family.undoes_class_weights:
        family.undo_class_weights(fitted, objective.class_weights)
    return fitted


def _objective_params(family: EstimatorFamily, objective: Objective) -> dict[str, Any]:
    """Parameters of the library for what is not in those of the search (raises ValueError, see `EstimatorFamily`)."""
    settings = {} if objective.quantile is None else family.quantile_params(objective.quantile)
    return settings | (family.monotone_params(objective.monotone) if any(objective.monotone) else {})


def _usable(
    validation: Validation | None, y: np.ndarray, task: Task, objective: Objective
) -> tuple[Validation | None, np.ndarray | None]:
    """Validation rows that can say when to stop, and their weights with a mean of 1; None where there are none."""
    if validation is None:
        return None, None
    X_later, y_later = validation
    weights = objective.combined(y_later, objective.validation_weights)
    usable = np.ones(len(y_later), dtype=bool) if weights is None else weights > 0
    if task != "regression":
        usable &= np.isin(y_later, y)
    if not usable.any():
        return None, None
    return (X_later[usable], y_later[usable]), None if weights is None else weights[usable] / weights[usable].mean()
