"""What a family of estimators is to the engine: the one class that a library, or a project of its own, is added by."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import FamilyInfo, Parameter
from ml_platform.spec.types import Task

if TYPE_CHECKING:
    import optuna

    from ml_platform.training.families.shard_booster import ShardBooster

Validation = tuple[np.ndarray, np.ndarray]


class EstimatorFamily(ABC):
    """One kind of estimator: its parameters, how it is fitted, and how it becomes a graph that serves without it.

    Its estimators are whatever its library has; the engine hands them from one method to the next. They see the float64
    matrix of `FeatureEncoder`: numbers with NaN for null, categories as their position, with `UNSEEN_CODE` and
    `MISSING_CODE` for the rest. Labels are float64: 0 and 1, the position of a class, or the value; of a classifier
    every class from 0 on occurs, and there are two or more.

    A subclass imports its library inside its methods, since its module is loaded with the project's definitions.

    Attributes
    ----------
    info
        Name, tasks, and what else is known of it without its library.
    undoes_class_weights
        Whether `undo_class_weights` takes the weights of classes out of the fitted estimator. Else the engine corrects
        the probabilities, in scores and in the graph.
    """

    info: ClassVar[FamilyInfo]
    undoes_class_weights: ClassVar[bool] = False

    @abstractmethod
    def default_params(self, task: Task) -> dict[str, Parameter]:
        """Sensible parameters: the first trial of every search."""

    @abstractmethod
    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:
        """Draw parameters from an Optuna trial; the names are those of `default_params`."""

    @abstractmethod
    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> Any:
        """Build an unfitted estimator.

        Parameters
        ----------
        task
            Kind of model, one of `info.tasks`.
        features
            Columns of the matrix, in order; those with `categories` hold codes.
        params
            As `suggest` gives them, or `fitted_params`.
        seed
            Of everything random: the same seed and rows give the same scores, on any number of cores.
        """

    @abstractmethod
    def fit(
        self,
        estimator: Any,
        X: np.ndarray,
        y: np.ndarray,
        validation: Validation | None = None,
        *,
        weights: np.ndarray | None = None,
        validation_weights: np.ndarray | None = None,
    ) -> Any:
        """Fit an estimator and return it.

        Parameters
        ----------
        estimator
            Of `build`.
        X, y
            Rows × features, and the labels (rows,).
        validation
            Later rows and labels, with the classes of `y` alone: to stop early on, never to learn from.
        weights, validation_weights
            How much each row counts (rows,), positive, with a mean of 1; None for one each. They are given together, to
            families whose `info.weights` is true.
        """

    @abstractmethod
    def export(self, estimator: Any, task: Task, features: Sequence[Feature]) -> bytes:
        """Write a fitted estimator as an ONNX graph; the same one gives the same bytes.

        Input `X` is the matrix in double, output `score` (double) what `predict` gives. `ml_platform.training` has
        `export_trees`, `export_linear` and `export_mlp`, which also make its scores explainable.

        Raises
        ------
        ValueError
            For what the graph could not give as the library does.
        """

    def fitted_params(self, estimator: Any, params: Mapping[str, Parameter]) -> dict[str, Parameter]:  # noqa: ARG002
        """Parameters that fit the same model without validation rows, the number of rounds for example."""
        return dict(params)

    def learning_curve(self, estimator: Any) -> tuple[float, ...]:  # noqa: ARG002
        """Loss on the validation rows after each round or epoch; empty where the family has none."""
        return ()

    def quantile_params(self, quantile: float) -> dict[str, Any]:  # noqa: ARG002
        """Parameters of `build` that make a regression give a quantile of the target, if `info.quantile` is true."""
        raise ValueError(f"family '{self.info.name}' has no quantile regression")

    def monotone_params(self, signs: Sequence[int]) -> dict[str, Any]:  # noqa: ARG002
        """Parameters of `build` that hold scores monotone, if `info.monotone` is true.

        `signs` has 1 for each feature with which the score must not fall, -1 where it must not rise, else 0.
        """
        raise ValueError(f"family '{self.info.name}' has no monotone constraints")

    def undo_class_weights(self, estimator: Any, class_weights: Sequence[float]) -> None:  # noqa: ARG002
        """Take the weights of the classes out of the probabilities of an estimator that was fitted with them."""
        raise ValueError(f"family '{self.info.name}' cannot take the weights of classes out of an estimator")

    def predict(self, estimator: Any, task: Task, X: np.ndarray) -> np.ndarray:
        """Scores: probability of the positive class (rows,), of every class (rows × classes), or the value (rows,)."""
        if task == "regression":
            return np.asarray(estimator.predict(X), dtype=np.float64)
        probabilities = np.asarray(estimator.predict_proba(X), dtype=np.float64)
        return probabilities[:, 1] if task == "binary" else probabilities

    def importance(self, estimator: Any, task: Task, features: Sequence[Feature], X: np.ndarray) -> dict[str, float]:
        """Weight of each feature in the model (not normalised).

        Unless the library knows better: how far scores move, as a mean over rows, when the feature's values are those
        of other rows.
        """
        scores = self.predict(estimator, task, X)
        order = np.random.default_rng(0).permutation(len(X))
        weights = {}
        for position, feature in enumerate(features):
            shuffled = X.copy()
            shuffled[:, position] = X[order, position]
            weights[feature.name] = float(np.abs(self.predict(estimator, task, shuffled) - scores).mean())
        return weights

    def shard_booster(self) -> "ShardBooster":
        """What trains one model over several workers, if `info.distributed` is true."""
        raise ValueError(f"family '{self.info.name}' cannot be trained over several workers")

    def native_files(self, estimator: Any) -> dict[str, bytes]:  # noqa: ARG002
        """The estimator in its library's own data format, by file name; none where the graph says all."""
        return {}
