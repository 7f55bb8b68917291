"""Families without a library that a search can try in no time, and their data; `before_fit` may make a fit fail."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import FamilyInfo, Parameter
from ml_platform.spec.threshold import Threshold
from ml_platform.spec.types import Task
from ml_platform.training.families.base import EstimatorFamily, Validation
from ml_platform.training.search.trial import TrialData

FAMILIES = tuple(f"{__name__}.{name}" for name in ("Tilted", "Bent"))

before_fit: list[Callable[[str, Mapping[str, Parameter]], None]] = []
fits: list[tuple[str, int]] = []
"""Family and number of rows of each fit of this process."""


class Tilted(EstimatorFamily):
    """Scores by the first feature and `tilt` times the second; 0.3 is right."""

    info = FamilyInfo("tilted", ("binary",))

    def default_params(self, task: Task) -> dict[str, Parameter]:
        return {"tilt": 0.9}

    def suggest(self, task: Task, trial: Any) -> dict[str, Parameter]:
        return {"tilt": trial.suggest_float("tilt", -1.0, 1.0)}

    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> Any:
        return dict(params)

    def fit(
        self, estimator: Any, X: np.ndarray, y: np.ndarray, validation: Validation | None = None, **weights: Any
    ) -> Any:
        for hook in before_fit:
            hook(self.info.name, estimator)
        fits.append((self.info.name, len(y)))
        return estimator

    def learning_curve(self, estimator: Any) -> tuple[float, ...]:
        return (0.7, 0.6)

    def predict(self, estimator: Any, task: Task, X: np.ndarray) -> np.ndarray:
        raw: np.ndarray = X[:, 0] + estimator["tilt"] * X[:, 1]
        return 1 / (1 + np.exp(-raw))

    def export(self, estimator: Any, task: Task, features: Sequence[Feature]) -> bytes:
        raise ValueError("nobody exports it")


class Bent(Tilted):
    """The same with a parameter of the same name and other bounds, and another one."""

    info = FamilyInfo("bent", ("binary",))

    def default_params(self, task: Task) -> dict[str, Parameter]:
        return {"tilt": 5.0, "shape": "round"}

    def suggest(self, task: Task, trial: Any) -> dict[str, Parameter]:
        return {
            "tilt": trial.suggest_float("tilt", 1.0, 9.0, log=True),
            "shape": trial.suggest_categorical("shape", ["round", "square"]),
        }


def toy_data(rows: int = 400) -> TrialData:
    """Rows of which both families know something; the same numbers every time."""
    random = np.random.default_rng(5)
    X = random.normal(size=(rows + 300, 2))
    y = (X[:, 0] + 0.3 * X[:, 1] + random.normal(size=len(X)) > 0).astype(np.float64)
    features = tuple(Feature(name=name, kind="numeric", source="input") for name in ("a", "b"))
    return TrialData("binary", features, X[:rows], y[:rows], X[rows:], y[rows:], 0, Threshold())
