"""A multilayer perceptron that Keras learns, on TensorFlow."""

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ml_platform.spec.families import BUILT_IN
from ml_platform.training.families.mlp import MlpFamily, Perceptron, Weights

_TYPE = "float64"


class KerasMlpFamily(MlpFamily):
    """See `MlpFamily`."""

    info = BUILT_IN["keras_mlp"]

    def make_network(self, perceptron: Perceptron, weights: Weights) -> Any:
        """See `MlpFamily`."""
        keras, params = _keras(), perceptron.params
        network = _model_class()([one.shape for one in weights])
        network.set_weights(weights)
        optimiser = keras.optimizers.AdamW(learning_rate=params["learning_rate"], weight_decay=params["weight_decay"])
        network.compile(optimizer=optimiser, loss=_loss(perceptron))
        return network

    def run_epoch(
        self, perceptron: Perceptron, numbers: np.ndarray, places: np.ndarray, y: np.ndarray, weights: np.ndarray | None
    ) -> None:
        """See `MlpFamily`."""
        size = int(perceptron.params["batch_size"])
        labels = y if perceptron.task == "multiclass" else y[:, None]
        for start in range(0, len(y), size):  # `fit` would take longer to begin than a small epoch lasts
            batch = slice(start, start + size)
            perceptron.network.train_on_batch(
                (numbers[batch], places[batch]),
                labels[batch],
                sample_weight=None if weights is None else weights[batch],
            )

    def outputs(self, network: Any, numbers: np.ndarray, places: np.ndarray) -> np.ndarray:
        """See `MlpFamily`."""
        return np.asarray(network((numbers, places), training=False))

    def weights(self, network: Any) -> Weights:
        """See `MlpFamily`."""
        return [np.array(one) for one in network.get_weights()]

    def set_weights(self, network: Any, weights: Weights) -> None:
        """See `MlpFamily`."""
        network.set_weights(weights)

    def native_files(self, estimator: Perceptron) -> dict[str, bytes]:
        """See `EstimatorFamily`: Keras' own file of weights, as HDF5."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.weights.h5"
            estimator.network.save_weights(path)
            return {path.name: path.read_bytes()}


@cache
def _keras() -> Any:
    """Keras on TensorFlow, without its greetings, on one thread and with the same numbers every time."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras
    import tensorflow

    tensorflow.config.experimental.enable_op_determinism()
    if not tensorflow.config.get_visible_devices("GPU"):
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    return keras


def _loss(perceptron: Perceptron) -> Any:
    keras = _keras()
    if perceptron.task == "multiclass":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if perceptron.task == "binary":
        return keras.losses.BinaryCrossentropy(from_logits=True)
    if (quantile := perceptron.quantile) is None:
        return keras.losses.MeanSquaredError()

    def pinball(y: Any, value: Any) -> Any:
        return keras.ops.mean(keras.ops.maximum(quantile * (y - value), (quantile - 1) * (y - value)), axis=-1)

    return pinball


@cache
def _model_class() -> Any:
    """The network's class; made when Keras is first needed."""
    keras = _keras()
    ops = keras.ops

    class Network(keras.Model):  # type: ignore[name-defined]
        """Weights in the order of `Weights`, and what they compute."""

        def __init__(self, shapes: list[tuple[int, ...]]) -> None:
            super().__init__(dtype=_TYPE)
            self._parts = [
                self.add_weight(shape=shape, name=f"part_{number}", initializer="zeros", dtype=_TYPE)
                for number, shape in enumerate(shapes)
            ]
            self.built = True

        def call(self, inputs: tuple[Any, Any]) -> Any:
            """Compute the outputs (rows × outputs) of numbers and rows of the table."""
            numbers, places = inputs
            of_numbers, table, bias, *rest = self._parts
            of_categories = ops.sum(ops.take(table, ops.cast(places, "int64"), axis=0), axis=1)
            raw = ops.matmul(ops.cast(numbers, _TYPE), of_numbers) + of_categories + bias
            for matrix, offset in zip(rest[::2], rest[1::2], strict=True):
                raw = ops.matmul(ops.relu(raw), matrix) + offset
            return raw

    return Network
