"""Explains a perceptron's scores by integrated gradients (Sundararajan et al., 2017), exactly and only with numpy.

A feature's contribution is its part of the first layer, less its mean over the training rows, times the mean gradient
along the straight line from the average row to the row itself. Between two points at which some unit of a rectified
layer changes from on to off, the gradient is constant; so with all these points known the integral is a finite sum, and
base and contributions add up to the raw score but for rounding.
"""

from dataclasses import dataclass

import msgspec
import numpy as np

from ml_platform.inference.explainer import Explanations

Layers = list[tuple[list[list[float]], list[float]]]


class Mlp(msgspec.Struct, kw_only=True, tag="integrated_gradients"):
    """A perceptron with rectified hidden layers, and the means of its inputs over the training rows."""

    numeric: list[int]  # positions in the matrix
    fill: list[float]  # replaces NaN
    mean: list[float]
    scale: list[float]
    largest: float  # standardised numbers are clipped to it
    missing: list[int]  # places among the numbers with an input of their own that is 1 for NaN
    categorical: list[int]
    starts: list[int]  # row of the table for code 0
    average_numbers: list[float]
    average_categories: list[list[float]]  # by feature, of its rows of the table
    number_weights: list[list[float]]  # inputs × hidden
    table: list[list[float]]
    bias: list[float]
    layers: Layers  # weights (inputs × outputs) and bias of each further layer, the last without rectifier


@dataclass(frozen=True)
class _Layer:
    weights: np.ndarray
    bias: np.ndarray


class MlpExplainer:
    """Integrated gradients from the average training row; the base is that row's score."""

    method = "integrated_gradients"
    probabilities = False

    def __init__(self, model: Mlp, width: int) -> None:
        self._model, self._width = model, width
        self._number_weights = np.array(model.number_weights).reshape(-1, len(model.bias))
        self._table = np.array(model.table).reshape(-1, len(model.bias))
        self._layers = [_Layer(np.array(weights), np.array(bias)) for weights, bias in model.layers]
        self._average = np.array(model.bias) + np.array(model.average_numbers) @ self._number_weights
        for average in model.average_categories:
            self._average = self._average + average

    def explain(self, matrix: np.ndarray) -> Explanations:
        """See `Explainer.explain`."""
        base = self._forward(self._average[None, :])[-1][0]
        contributions = np.zeros((len(matrix), len(base), self._width))
        for row, parts in enumerate(self._parts(matrix)):
            contributions[row] = self._mean_gradient(parts.sum(axis=0)) @ parts.T
        return Explanations(base, contributions)

    def _parts(self, matrix: np.ndarray) -> np.ndarray:
        """What each feature adds to the first layer, less its average (rows × features × hidden)."""
        model, weights = self._model, self._number_weights
        parts = np.zeros((len(matrix), self._width, len(model.bias)))
        numbers, count = matrix[:, model.numeric], len(model.numeric)
        null = np.isnan(numbers)
        numbers = (np.where(null, model.fill, numbers) - model.mean) / model.scale
        numbers = np.clip(numbers, -model.largest, model.largest) - model.average_numbers[:count]
        parts[:, model.numeric] = numbers[:, :, None] * weights[:count]
        flags = null[:, model.missing] - np.array(model.average_numbers[count:])
        parts[:, [model.numeric[place] for place in model.missing]] += flags[:, :, None] * weights[count:]
        for position, start, average in zip(model.categorical, model.starts, model.average_categories, strict=True):
            parts[:, position] = self._table[matrix[:, position].astype(np.int64) + start] - average
        return parts

    def _mean_gradient(self, away: np.ndarray) -> np.ndarray:
        """Mean gradient of the outputs by the first layer (outputs × hidden) on the line from the average row."""
        ends = self._switches(away)
        middles = (ends[1:] + ends[:-1]) / 2
        before = self._forward(self._average + middles[:, None] * away)
        last = self._layers[-1].weights.T
        gradient = np.broadcast_to(last, (len(middles), *last.shape)) * (before[-2] > 0)[:, None, :]
        for layer, values in zip(reversed(self._layers[:-1]), reversed(before[:-2]), strict=True):
            flat = gradient.reshape(-1, gradient.shape[2]) @ layer.weights.T  # one product, not one per stretch
            gradient = flat.reshape(*gradient.shape[:2], -1) * (values > 0)[:, None, :]
        mean: np.ndarray = np.tensordot(np.diff(ends), gradient, axes=1)
        return mean

    def _switches(self, away: np.ndarray) -> np.ndarray:
        """Positions on the line (0 to 1), sorted, between which no unit of any layer changes from on to off."""
        ends = np.array([0.0, 1.0])
        for depth in range(len(self._layers)):
            values = self._forward(self._average + ends[:, None] * away, depth)[-1]
            left, right = values[:-1], values[1:]
            stretch, unit = np.nonzero(left * right < 0)
            share = left[stretch, unit] / (left[stretch, unit] - right[stretch, unit])
            ends = np.unique(np.concatenate([ends, ends[stretch] + share * (ends[stretch + 1] - ends[stretch])]))
        return ends

    def _forward(self, first: np.ndarray, depth: int | None = None) -> list[np.ndarray]:
        """Values of each layer before its rectifier, from those of the first; the last are the outputs."""
        values = [first]
        for layer in self._layers[:depth]:
            values.append(np.maximum(values[-1], 0.0) @ layer.weights + layer.bias)
        return values
