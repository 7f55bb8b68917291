"""What the multilayer perceptrons share: inputs, first weights, early stopping, export. A library does the learning."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import Parameter
from ml_platform.spec.types import Task
from ml_platform.training.export.onnx_mlp import MlpColumns, export_mlp
from ml_platform.training.families.base import EstimatorFamily, Validation

if TYPE_CHECKING:
    import optuna

MAX_EPOCHS = 60
EARLY_STOPPING_EPOCHS = 8
Weights = list[np.ndarray]  # as `export_mlp` takes them


@dataclass
class Perceptron:
    """A perceptron: what it is made by and, once it is fitted, its inputs and the library's network."""

    task: Task
    features: tuple[Feature, ...]
    params: dict[str, Any]
    seed: int
    columns: MlpColumns | None = None
    network: Any = None
    target: tuple[float, float] = (0.0, 1.0)  # mean and scale of a regression's values
    epochs: int = 0
    losses: list[float] = field(default_factory=list)  # on the validation rows, of each epoch

    @property
    def quantile(self) -> float | None:
        """The quantile that a regression gives; None for the mean."""
        quantile: float | None = self.params.get("quantile")
        return quantile


class MlpFamily(EstimatorFamily):
    """A perceptron with rectified hidden layers, in double precision, learned by AdamW in batches drawn by the seed."""

    @abstractmethod
    def make_network(self, perceptron: Perceptron, weights: Weights) -> Any:
        """Make the library's network with these weights, and its optimiser."""

    @abstractmethod
    def run_epoch(
        self, perceptron: Perceptron, numbers: np.ndarray, places: np.ndarray, y: np.ndarray, weights: np.ndarray | None
    ) -> None:
        """Learn from rows once, in batches, in their order; `weights` says how much each counts."""

    @abstractmethod
    def outputs(self, network: Any, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Outputs of the network (rows × outputs, float64)."""

    @abstractmethod
    def weights(self, network: Any) -> Weights:
        """Copies of the network's weights."""

    @abstractmethod
    def set_weights(self, network: Any, weights: Weights) -> None:
        """Give the network other weights."""

    def default_params(self, task: Task) -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {"hidden": 64, "layers": 2, "learning_rate": 0.003, "weight_decay": 0.001, "batch_size": 256}

    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {
            "hidden": trial.suggest_int("hidden", 16, 128, log=True),
            "layers": trial.suggest_int("layers", 1, 3),
            "learning_rate": trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
            "batch_size": trial.suggest_int("batch_size", 64, 1024, log=True),
        }

    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> Perceptron:
        """See `EstimatorFamily`; `params` may have `epochs`, else there are up to `MAX_EPOCHS`."""
        return Perceptron(task, tuple(features), {"epochs": MAX_EPOCHS, **params}, seed)

    def quantile_params(self, quantile: float) -> dict[str, Any]:
        """See `EstimatorFamily`."""
        return {"quantile": quantile}

    def fit(
        self,
        estimator: Perceptron,
        X: np.ndarray,
        y: np.ndarray,
        validation: Validation | None = None,
        *,
        weights: np.ndarray | None = None,
        validation_weights: np.ndarray | None = None,
    ) -> Perceptron:
        """See `EstimatorFamily`; the weights of the epoch with the least loss on the validation rows are kept."""
        if estimator.task == "regression":
            estimator.target = (float(y.mean()), float(y.std()) or 1.0)
        mean, scale = estimator.target
        estimator.columns = MlpColumns.of(estimator.features, X)
        numbers, places = estimator.columns.split(X)
        targets = (y - mean) / scale
        random = np.random.default_rng(estimator.seed)
        estimator.network = self.make_network(estimator, _first_weights(estimator, int(y.max()) + 1, random))
        best: tuple[float, Weights] | None = None
        for epoch in range(1, estimator.params["epochs"] + 1):
            order = random.permutation(len(X))
            ordered_weights = None if weights is None else weights[order]
            self.run_epoch(estimator, numbers[order], places[order], targets[order], ordered_weights)
            if validation is None:
                estimator.epochs = epoch
                continue
            later = self.outputs(estimator.network, *estimator.columns.split(validation[0]))
            losses = _losses(estimator, later, (validation[1] - mean) / scale)
            loss = float(np.average(losses, weights=validation_weights))
            estimator.losses.append(loss)
            if best is None or loss < best[0]:
                best, estimator.epochs = (loss, self.weights(estimator.network)), epoch
            elif epoch - estimator.epochs >= EARLY_STOPPING_EPOCHS:
                break
        if best is not None:
            self.set_weights(estimator.network, best[1])
        return estimator

    def fitted_params(self, estimator: Perceptron, params: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """See `EstimatorFamily`: with the number of epochs kept."""
        return {**params, "epochs": estimator.epochs}

    def learning_curve(self, estimator: Perceptron) -> tuple[float, ...]:
        """See `EstimatorFamily`."""
        return tuple(estimator.losses)

    def predict(self, estimator: Perceptron, task: Task, X: np.ndarray) -> np.ndarray:
        """See `EstimatorFamily`."""
        raw = self.outputs(estimator.network, *_columns(estimator).split(X))
        if task == "multiclass":
            return _softmax(raw)
        mean, scale = estimator.target
        value: np.ndarray = raw[:, 0]
        return value * scale + mean if task == "regression" else np.exp(-np.logaddexp(0.0, -value))

    def export(self, estimator: Perceptron, task: Task, features: Sequence[Feature]) -> bytes:
        """See `EstimatorFamily`."""
        weights = self.weights(estimator.network)
        mean, scale = estimator.target
        weights[-2], weights[-1] = weights[-2] * scale, weights[-1] * scale + mean
        return export_mlp(_columns(estimator), weights, task, len(features))


def _columns(perceptron: Perceptron) -> MlpColumns:
    if perceptron.columns is None:
        raise ValueError("a perceptron has to be fitted before it can answer")
    return perceptron.columns


def _first_weights(perceptron: Perceptron, classes: int, random: np.random.Generator) -> Weights:
    """Weights before learning, the same for every library: uniform, by the number of inputs (He et al., 2015)."""
    columns, hidden = _columns(perceptron), int(perceptron.params["hidden"])
    inputs = max(1, columns.numbers + len(columns.categorical))

    def drawn(rows: int, outputs: int, incoming: int) -> np.ndarray:
        limit = np.sqrt(6.0 / incoming)
        return random.uniform(-limit, limit, (rows, outputs))

    weights = [
        drawn(columns.numbers, hidden, inputs),
        drawn(columns.codes, hidden, inputs),
        np.zeros(hidden),
    ]
    for _ in range(int(perceptron.params["layers"]) - 1):
        weights += [drawn(hidden, hidden, hidden), np.zeros(hidden)]
    outputs = classes if perceptron.task == "multiclass" else 1
    return [*weights, drawn(hidden, outputs, 6 * hidden), np.zeros(outputs)]


def _losses(perceptron: Perceptron, raw: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Loss of each row's outputs (rows × outputs): of the probabilities, squared, or that of the quantile."""
    if perceptron.task == "multiclass":
        likelihood: np.ndarray = _softmax(raw)[np.arange(len(y)), y.astype(int)]
        return -np.log(np.maximum(likelihood, 1e-300))
    value: np.ndarray = raw[:, 0]
    if perceptron.task == "binary":
        return np.logaddexp(0.0, value) - y * value
    if (quantile := perceptron.quantile) is not None:
        return np.maximum(quantile * (y - value), (quantile - 1) * (y - value))
    squares: np.ndarray = (value - y) ** 2
    return squares


def _softmax(raw: np.ndarray) -> np.ndarray:
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    share: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return share
