"""Building and fitting one estimator of any family, on rows that it can learn from."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import Parameter
from ml_platform.spec.types import Task
from ml_platform.training.families.base import EstimatorFamily, Validation


def train_estimator(  # noqa: PLR0917 - the order is that of `build` and `fit`
    family: EstimatorFamily,
    task: Task,
    features: Sequence[Feature],
    params: Mapping[str, Parameter],
    seed: int,
    X: np.ndarray,
    y: np.ndarray,
    validation: Validation | None = None,
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
        are left out of that.

    Raises
    ------
    ValueError
        When the family cannot do the task, or a classifier is given rows of a single class.
    """
    info = family.info
    if task not in info.tasks:
        raise ValueError(
            f"family '{info.name}' cannot do task '{task}'; name another one under `families` in defs.yaml"
        )
    if task != "regression":
        if len(np.unique(y)) < 2:
            raise ValueError(
                f"family '{info.name}': all {len(y)} rows have the same class; a classifier needs two or more"
            )
        if validation is not None:
            known = np.isin(validation[1], y)
            validation = (validation[0][known], validation[1][known]) if known.any() else None
    return family.fit(family.build(task, features, params, seed), X, y, validation)
