"""Integrated gradients of perceptrons, against numerical integration and against the graph's own scores."""

from itertools import pairwise

import numpy as np
import pytest

from ml_platform.inference.explain import METADATA_KEY, unpack
from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE, Feature
from ml_platform.spec.types import Task
from ml_platform.training.export.onnx_mlp import MlpColumns, export_mlp

FEATURES = (
    Feature(name="size", kind="numeric", source="input"),
    Feature(name="age", kind="numeric", source="input"),  # some are null
    Feature(name="place", kind="categorical", source="input", categories=("a", "b", "c")),
    Feature(name="unused", kind="numeric", source="input"),
)
OUTPUTS: dict[Task, int] = {"binary": 1, "regression": 1, "multiclass": 4}


def perceptron(task: Task, layers: int, hidden: int = 24) -> tuple[bytes, np.ndarray, MlpColumns, list[np.ndarray]]:
    """A graph of random weights, in which `unused` has none, rows, inputs and weights."""
    random = np.random.default_rng(layers)
    X = np.column_stack([random.normal(5, 3, 300), random.normal(size=300), random.integers(-2, 3, 300), np.ones(300)])
    X[::3, 1] = np.nan
    columns = MlpColumns.of(FEATURES, X)
    sizes = [hidden] * layers + [OUTPUTS[task]]
    weights = [random.normal(size=(columns.numbers, hidden)), random.normal(size=(columns.codes, hidden))]
    weights[0][2] = 0.0
    weights.append(random.normal(size=hidden))
    for inputs, outputs in pairwise(sizes):
        weights += [random.normal(size=(inputs, outputs)) / np.sqrt(inputs), random.normal(size=outputs)]
    return export_mlp(columns, weights, task, len(FEATURES)), X, columns, weights


def explained(onnx: bytes, X: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base, contributions and the graph's scores."""
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    explainer = unpack(session.get_modelmeta().custom_metadata_map[METADATA_KEY], X.shape[1])
    assert explainer.method == "integrated_gradients"
    found = explainer.explain(X)
    return found.base, found.contributions, session.run(["score"], {"X": X})[0]


@pytest.mark.parametrize("task", list(OUTPUTS))
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_base_and_contributions_are_the_score(task: Task, layers: int) -> None:
    onnx, X, _, _ = perceptron(task, layers)
    rows = np.vstack([X[:20], [[1e12, -1e12, UNSEEN_CODE, np.nan], [np.nan, np.nan, MISSING_CODE, 0.0]]])
    base, contributions, scores = explained(onnx, rows)
    raw = base + contributions.sum(axis=2)
    if task == "multiclass":
        shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
        np.testing.assert_allclose(shifted / shifted.sum(axis=1, keepdims=True), scores, atol=1e-12)
    else:
        np.testing.assert_allclose(1 / (1 + np.exp(-raw[:, 0])) if task == "binary" else raw[:, 0], scores, atol=1e-11)
    assert (contributions[:, :, 3] == 0).all(), "a feature without weights contributes nothing"
    assert np.abs(contributions[:, :, :3]).mean() > 0.01


def test_contributions_are_integrals_of_gradients() -> None:
    """The sum over twenty thousand small steps along the line comes to the same."""
    onnx, X, columns, weights = perceptron("regression", 2)
    row = X[3:4]
    _, contributions, _ = explained(onnx, row)
    of_numbers, table, bias, first, first_bias, last, _ = weights
    numbers, places = columns.split(X)
    parts = np.zeros((4, len(bias)))
    own, average = columns.split(row)[0][0], numbers.mean(axis=0)
    for position, feature in ((0, 0), (1, 1), (2, 3), (3, 1)):  # the last is the flag of the second number
        parts[feature] += (own[position] - average[position]) * of_numbers[position]
    parts[2] = table[columns.split(row)[1][0, 0]] - table[places[:, 0]].mean(axis=0)
    start = average @ of_numbers + table[places[:, 0]].mean(axis=0) + bias
    line = start + ((np.arange(20_000) + 0.5) / 20_000)[:, None] * parts.sum(axis=0)
    second = np.maximum(line, 0) @ first + first_bias
    gradient = ((last[:, 0] * (second > 0)) @ first.T * (line > 0)).mean(axis=0)
    np.testing.assert_allclose(contributions[0, 0], parts @ gradient, atol=1e-3)


def test_the_average_row_is_the_base() -> None:
    """A row that is as all rows are on average has nothing to explain."""
    X = np.tile([2.0, 1.0, 0.0, 1.0], (50, 1))
    columns = MlpColumns.of(FEATURES, X)
    assert not len(columns.missing), "no null in training, no input for it"
    random = np.random.default_rng(0)
    weights = [random.normal(size=shape) for shape in ((3, 8), (columns.codes, 8), (8,), (8, 1), (1,))]
    base, contributions, scores = explained(export_mlp(columns, weights, "regression", 4), X[:1])
    np.testing.assert_allclose(contributions, 0, atol=1e-12)
    np.testing.assert_allclose(base, scores)


def test_a_null_is_told_from_the_median() -> None:
    onnx, X, columns, _ = perceptron("regression", 1)
    rows = np.vstack([X[0], X[0]])
    rows[:, 1] = [np.nan, columns.fill[1]]
    assert columns.missing.tolist() == [1]
    _, contributions, scores = explained(onnx, rows)
    assert abs(scores[0] - scores[1]) > 1e-3
    assert contributions[0, 0, 1] != contributions[1, 0, 1]
