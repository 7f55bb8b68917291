"""Multilayer perceptrons → ONNX in double precision, written from their weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ml_platform.inference.explain_mlp import Mlp
from ml_platform.registry.manifest import MISSING_CODE, Feature
from ml_platform.spec.types import Task
from ml_platform.training.export.graph import Graph

LARGEST_NUMBER = 10.0  # in standard deviations: what is beyond it is an outlier, and counts as this


@dataclass(frozen=True)
class MlpColumns:
    """How the columns of a matrix become a perceptron's inputs.

    Attributes
    ----------
    numeric
        Positions of numbers, which are imputed, standardised and clipped.
    fill, mean, scale
        Of each of them.
    missing
        Places, among the numbers, of those that were null in training: each has a second input, 1 where it is null.
    categorical
        Positions of codes, each of which picks a row of one table.
    starts
        Row of the table that a feature's code 0 picks.
    codes
        Rows of the table.
    average
        Mean of each number's input, and of the inputs of the missing ones, over the training rows.
    shares
        Share of the training rows that pick each row of the table.
    """

    numeric: np.ndarray
    fill: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    missing: np.ndarray
    categorical: np.ndarray
    starts: np.ndarray
    codes: int
    average: np.ndarray
    shares: np.ndarray

    @property
    def numbers(self) -> int:
        """Inputs that are numbers."""
        return len(self.numeric) + len(self.missing)

    @classmethod
    def of(cls, features: Sequence[Feature], X: np.ndarray) -> "MlpColumns":
        """Learn medians, scales and averages of training rows (rows × features)."""
        numeric = np.array([i for i, one in enumerate(features) if one.categories is None], dtype=np.int64)
        categorical = np.array([i for i, one in enumerate(features) if one.categories is not None], dtype=np.int64)
        first = int(-MISSING_CODE)  # codes before 0: null and unseen
        widths = [first + len(features[i].categories or ()) for i in categorical]
        starts = np.cumsum([0, *widths[:-1]]) + first if widths else np.zeros(0)
        numbers = X[:, numeric]
        known = ~np.isnan(numbers)
        fill = np.array(
            [np.median(column[there]) if there.any() else 0.0 for column, there in zip(numbers.T, known.T, strict=True)]
        )
        filled = np.where(known, numbers, fill)
        mean, deviation = filled.mean(axis=0), filled.std(axis=0)
        scale = np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)
        missing = np.flatnonzero(~known.all(axis=0) & known.any(axis=0))
        columns = cls(
            numeric,
            fill,
            mean,
            scale,
            missing,
            categorical,
            starts.astype(np.int64),
            sum(widths),
            average=np.zeros(0),
            shares=np.zeros(0),
        )
        inputs, places = columns.split(X)
        shares = np.bincount(places.ravel(), minlength=columns.codes) / len(X)
        return replace(columns, average=inputs.mean(axis=0), shares=shares)

    def split(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Inputs that are numbers (rows × numbers, float64), and rows of the table (rows × categories, int64)."""
        numbers = X[:, self.numeric]
        null = np.isnan(numbers)
        numbers = (np.where(null, self.fill, numbers) - self.mean) / self.scale
        places = X[:, self.categorical].astype(np.int64) + self.starts
        clipped = np.clip(numbers, -LARGEST_NUMBER, LARGEST_NUMBER)
        return np.hstack([clipped, null[:, self.missing]]), places


def export_mlp(columns: MlpColumns, weights: Sequence[np.ndarray], task: Task, width: int) -> bytes:
    """Write a perceptron with rectified hidden layers as a graph, as `ml_platform.inference.explain_mlp` explains it.

    Parameters
    ----------
    columns
        From the matrix to its inputs.
    weights
        Of numbers (numbers × hidden), the table of categories (codes × hidden) and the bias (hidden,); then for each
        further layer its weights (inputs × outputs) and bias (outputs,).
    task
        Its outputs are log-odds, of each class for multiclass, or the value.
    width
        Number of features.
    """
    graph = Graph()
    of_numbers, table, bias, *rest = weights
    hidden = [graph.constant("bias", bias)]
    if columns.numbers:
        hidden.append(_numbers(graph, columns, of_numbers))
    if len(columns.categorical):
        hidden.append(_categories(graph, columns, table))
    raw = graph.add("Sum", hidden, "layer_0")
    for number, (matrix, offset) in enumerate(zip(rest[::2], rest[1::2], strict=True), start=1):
        rectified = graph.add("Relu", [raw], f"rectified_{number}")
        product = graph.add("MatMul", [rectified, graph.constant(f"weights_{number}", matrix)], f"product_{number}")
        raw = graph.add("Add", [product, graph.constant(f"bias_{number}", offset)], f"layer_{number}")
    outputs = len(weights[-1])
    if task != "multiclass":
        raw = graph.add("Reshape", [raw, graph.constant("rows", [-1], np.int64)], "value")
    return graph.finish(
        raw, task, width=width, outputs=outputs, probabilities=False, explanation=_explanation(columns, weights)
    )


def _explanation(columns: MlpColumns, weights: Sequence[np.ndarray]) -> Mlp:
    of_numbers, table, bias, *rest = weights
    first, ends = int(-MISSING_CODE), [*columns.starts[1:], columns.codes + int(-MISSING_CODE)]
    parts = [slice(start - first, end - first) for start, end in zip(columns.starts, ends, strict=True)]
    return Mlp(
        numeric=columns.numeric.tolist(),
        fill=columns.fill.tolist(),
        mean=columns.mean.tolist(),
        scale=columns.scale.tolist(),
        largest=LARGEST_NUMBER,
        missing=columns.missing.tolist(),
        categorical=columns.categorical.tolist(),
        starts=columns.starts.tolist(),
        average_numbers=columns.average.tolist(),
        average_categories=[(columns.shares[part] @ table[part]).tolist() for part in parts],
        number_weights=of_numbers.tolist(),
        table=table.tolist(),
        bias=bias.tolist(),
        layers=[(matrix.tolist(), offset.tolist()) for matrix, offset in zip(rest[::2], rest[1::2], strict=True)],
    )


def _numbers(graph: Graph, columns: MlpColumns, weights: np.ndarray) -> str:
    picked = graph.add("Gather", ["X", graph.constant("numeric", columns.numeric, np.int64)], "numbers", axis=1)
    missing = graph.add("IsNaN", [picked], "missing")
    filled = graph.add("Where", [missing, graph.constant("fill", columns.fill), picked], "filled")
    centred = graph.add("Sub", [filled, graph.constant("mean", columns.mean)], "centred")
    scaled = graph.add("Div", [centred, graph.constant("scale", columns.scale)], "scaled")
    ends = [graph.constant("low", -LARGEST_NUMBER), graph.constant("high", LARGEST_NUMBER)]
    inputs = graph.add("Clip", [scaled, *ends], "clipped")
    if len(columns.missing):
        places = graph.constant("may_be_missing", columns.missing, np.int64)
        flags = graph.add("Gather", [missing, places], "missing_flags", axis=1)
        flags = graph.add("Cast", [flags], "missing_numbers", to=11)  # double
        inputs = graph.add("Concat", [inputs, flags], "number_inputs", axis=1)
    return graph.add("MatMul", [inputs, graph.constant("number_weights", weights)], "of_numbers")


def _categories(graph: Graph, columns: MlpColumns, table: np.ndarray) -> str:
    picked = graph.add("Gather", ["X", graph.constant("categorical", columns.categorical, np.int64)], "codes", axis=1)
    whole = graph.add("Cast", [picked], "whole_codes", to=7)  # int64
    places = graph.add("Add", [whole, graph.constant("starts", columns.starts, np.int64)], "places")
    rows = graph.add("Gather", [graph.constant("table", table), places], "rows_of_table", axis=0)
    return graph.add("ReduceSum", [rows, graph.constant("axis", [1], np.int64)], "of_categories", keepdims=0)
