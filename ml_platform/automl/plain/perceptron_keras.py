"""A perceptron that Keras learns."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ml_platform.automl.plain.perceptron import answers, first_weights, learn_inputs, split_inputs


def fit_keras(
    X: np.ndarray, y: np.ndarray, categories: list[int | None], *, task: str, seed: int, params: dict[str, Any]
) -> Callable[[np.ndarray], np.ndarray]:
    """Learn a perceptron with Keras on TensorFlow and return what scores rows, the same on any number of cores."""
    import os

    os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    import keras
    import tensorflow

    tensorflow.config.experimental.enable_op_determinism()
    if not tensorflow.config.get_visible_devices("GPU"):
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
    mean, scale = (float(y.mean()), float(y.std()) or 1.0) if task == "regression" else (0.0, 1.0)
    inputs, random = learn_inputs(X, categories), np.random.default_rng(seed)
    numbers, places = split_inputs(X, inputs)
    targets, outputs = (y - mean) / scale, int(y.max()) + 1 if task == "multiclass" else 1
    drawn = first_weights(inputs, params["hidden"], params["layers"], outputs, random)

    class Network(keras.Model):
        """Numbers times weights, plus a row of the table for each category, then the hidden layers."""

        def __init__(self) -> None:
            super().__init__(dtype="float64")
            self.parts = [self.add_weight(shape=one.shape, initializer="zeros", dtype="float64") for one in drawn]
            self.built = True

        def call(self, batch: tuple[Any, Any]) -> Any:
            """Compute the outputs."""
            rows, table = keras.ops.cast(batch[0], "float64"), keras.ops.cast(batch[1], "int64")
            coded = keras.ops.sum(keras.ops.take(self.parts[1], table, axis=0), axis=1)
            raw = keras.ops.matmul(rows, self.parts[0]) + coded + self.parts[2]
            for matrix, offset in zip(self.parts[3::2], self.parts[4::2], strict=True):
                raw = keras.ops.matmul(keras.ops.relu(raw), matrix) + offset
            return raw

    network = Network()
    network.set_weights(drawn)
    losses = {
        "binary": keras.losses.BinaryCrossentropy(from_logits=True),
        "multiclass": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "regression": keras.losses.MeanSquaredError(),
    }
    optimiser = keras.optimizers.AdamW(learning_rate=params["learning_rate"], weight_decay=params["weight_decay"])
    network.compile(optimizer=optimiser, loss=losses[task])
    labels = targets if task == "multiclass" else targets[:, None]
    for _ in range(params["epochs"]):
        order = random.permutation(len(X))
        for start in range(0, len(X), params["batch_size"]):
            batch = order[start : start + params["batch_size"]]
            network.train_on_batch((numbers[batch], places[batch]), labels[batch])

    def predict(X: np.ndarray) -> np.ndarray:
        return answers(np.asarray(network(split_inputs(X, inputs), training=False)), task, mean, scale)

    return predict
