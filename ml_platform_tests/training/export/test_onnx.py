from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
import pytest

from ml_platform.inference.explain import METADATA_KEY, unpack
from ml_platform.registry.manifest import Feature
from ml_platform.spec.types import Task
from ml_platform.training.documents import ParityReport
from ml_platform.training.export import parity
from ml_platform.training.export.parity import ParityError
from ml_platform.training.export.thresholds import thresholds
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.lightgbm import ZERO_THRESHOLD
from ml_platform.training.families.registry import get_family

FEATURES: tuple[Feature, ...] = (
    Feature(name="a", kind="numeric", source="input"),
    Feature(name="b", kind="numeric", source="input"),
    Feature(name="rarely", kind="numeric", source="input"),
    Feature(name="zeros", kind="numeric", source="input"),
    Feature(name="place", kind="categorical", source="input", categories=tuple("abcdefghij")),
)
EXPORTS: list[tuple[Task, str]] = [
    ("binary", "lightgbm"),
    ("regression", "lightgbm"),
    ("multiclass", "lightgbm"),
    ("binary", "logistic_regression"),
    ("multiclass", "logistic_regression"),
    ("regression", "ridge"),
]

FEW_TREES: dict[str, dict[str, Any]] = {"lightgbm": {"n_estimators": 40}}


def data(task: Task, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, len(FEATURES)))
    X[:, 2] = np.where(random.random(rows) < 0.4, np.nan, X[:, 2])
    X[:, 3] = np.where(random.random(rows) < 0.6, 0.0, X[:, 3])
    X[:, 4] = random.integers(-2, 10, rows)
    value = X[:, 0] - np.nan_to_num(X[:, 2], nan=2.0) + 2 * (X[:, 3] > 0) + 0.2 * X[:, 4] + random.normal(0, 0.5, rows)
    if task == "regression":
        return X, 30 * value
    return X, (value > 0).astype(float) if task == "binary" else np.digitize(value, [-1.0, 1.0]).astype(float)


def fitted(task: Task, family: str, rows: int = 4000, **params: Any) -> tuple[Any, np.ndarray]:
    X, y = data(task, rows)
    chosen = {**get_family(family).default_params(task), **FEW_TREES.get(family, {}), **params}
    return train_estimator(get_family(family), task, FEATURES, chosen, 0, X, y), X


def predict(family: str, estimator: Any, task: Task, X: np.ndarray) -> np.ndarray:
    return get_family(family).predict(estimator, task, X)


def export(family: str, estimator: Any, task: Task, features: Sequence[Feature] = FEATURES) -> bytes:
    return get_family(family).export(estimator, task, features)


def check_parity(
    family: str, estimator: Any, onnx: bytes, task: Task, X: np.ndarray, features: Sequence[Feature] = FEATURES
) -> ParityReport:
    native = partial(predict, family, estimator, task)
    return parity.check_parity(native, onnx, task, features, X, tolerance=get_family(family).info.tolerance)


@pytest.mark.parametrize(("task", "family"), EXPORTS)
def test_export_answers_as_the_native_model(task: Task, family: str) -> None:
    estimator, X = fitted(task, family)
    onnx = export(family, estimator, task)
    report = check_parity(family, estimator, onnx, task, X)
    assert report.rows > 2000
    assert report.max_difference <= 1e-13
    assert onnx == export(family, estimator, task)
    session = onnxruntime.InferenceSession(onnx)
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, answer.name, answer.type) == ("X", "tensor(double)", "score", "tensor(double)")
    shape = session.run(None, {"X": X[:7]})[0].shape
    assert shape == ((7, 3) if task == "multiclass" else (7,))


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
def test_trees_are_exact_at_every_threshold_and_beside_it(task: Task) -> None:
    estimator, X = fitted(task, "lightgbm")
    onnx = export("lightgbm", estimator, task)
    known, session = thresholds(onnx), onnxruntime.InferenceSession(onnx)
    assert sum(map(len, known.values())) > 100
    for feature, values in known.items():
        some = np.array(values)
        beside = np.concatenate([np.nextafter(some, -np.inf), some, np.nextafter(some, np.inf)])
        rows = np.repeat(X[:1], len(beside), axis=0)
        rows[:, feature] = beside
        np.testing.assert_allclose(
            session.run(None, {"X": rows})[0], predict("lightgbm", estimator, task, rows), rtol=1e-12
        )


def test_float32_copy_of_the_same_trees_is_caught() -> None:
    """The gate's reason to be: trees whose input passes through float32 take other branches next to thresholds."""
    import onnx
    from onnx import TensorProto, helper

    estimator, X = fitted("binary", "lightgbm")
    graph = onnx.load_from_string(export("lightgbm", estimator, "binary"))
    for node in graph.graph.node:
        node.input[:] = ["X64" if name == "X" else name for name in node.input]
    for position, (source, result, kind) in enumerate(
        (("X", "X32", TensorProto.FLOAT), ("X32", "X64", TensorProto.DOUBLE))
    ):
        graph.graph.node.insert(position, helper.make_node("Cast", [source], [result], to=kind))
    with pytest.raises(ParityError, match=r"the graph answers .* the trained model .* for row \d+ of \d+: \{'a': "):
        check_parity("lightgbm", estimator, graph.SerializeToString(), "binary", X)


def test_tiny_values_and_null_where_training_saw_none() -> None:
    estimator, X = fitted("binary", "lightgbm")
    rows = np.repeat(X[:1], 9, axis=0)
    rows[:, 3] = [0.0, -0.0, 1e-40, -1e-40, ZERO_THRESHOLD, -ZERO_THRESHOLD, 1e-34, -1e-34, np.nan]
    rows = np.vstack([rows, np.full((1, len(FEATURES)), np.nan), np.full((1, len(FEATURES)), np.inf)])
    session = onnxruntime.InferenceSession(export("lightgbm", estimator, "binary"))
    np.testing.assert_allclose(
        session.run(None, {"X": rows})[0], predict("lightgbm", estimator, "binary", rows), atol=1e-15
    )


def test_model_that_learned_nothing_exports_its_constant() -> None:
    estimator, X = fitted("binary", "lightgbm", rows=60, min_child_samples=1000, n_estimators=3)
    onnx = export("lightgbm", estimator, "binary")
    assert check_parity("lightgbm", estimator, onnx, "binary", X).max_difference < 1e-14


@pytest.mark.parametrize(
    ("params", "said"),
    [({"zero_as_missing": True}, "zero_as_missing"), ({"objective": "cross_entropy"}, "objective 'cross_entropy'")],
)
def test_what_cannot_be_exact_is_refused(params: dict[str, Any], said: str) -> None:
    estimator, _ = fitted("binary", "lightgbm", **params)
    with pytest.raises(ValueError, match=said):
        export("lightgbm", estimator, "binary")


def test_categorical_splits_are_refused() -> None:
    from lightgbm import LGBMClassifier

    X, y = data("binary")
    X[:, 4] += 2
    model = LGBMClassifier(n_estimators=5, verbosity=-1).fit(X, y, categorical_feature=[4])
    with pytest.raises(ValueError, match="encode categories as numbers"):
        export("lightgbm", model, "binary")


@pytest.mark.parametrize(("task", "family"), EXPORTS)
def test_importance_finds_what_the_labels_were_made_of(task: Task, family: str) -> None:
    estimator, X = fitted(task, family)
    weights = get_family(family).importance(estimator, task, FEATURES, X)
    assert list(weights) == [feature.name for feature in FEATURES]
    assert min(weights, key=lambda name: weights[name]) == "b"


def test_number_of_threads_does_not_change_the_trees() -> None:
    X, y = data("binary", 30_000)
    trees, lightgbm = [], get_family("lightgbm")
    for threads in (1, 2, 3):
        params = {**lightgbm.default_params("binary"), "n_estimators": 15}
        model = lightgbm.build("binary", FEATURES, params, 0).set_params(n_jobs=threads)
        trees.append(model.fit(X, y).booster_.model_to_string().partition("parameters:")[0])
    assert trees[0] == trees[1] == trees[2]


def test_early_stopping_tells_the_number_of_trees() -> None:
    X, y = data("binary")
    lightgbm, validation = get_family("lightgbm"), (X[3000:], y[3000:])
    defaults = lightgbm.default_params("binary")
    estimator = train_estimator(lightgbm, "binary", FEATURES, defaults, 0, X[:3000], y[:3000], validation)
    params = lightgbm.fitted_params(estimator, defaults)
    assert 1 <= int(params["n_estimators"]) < 400
    again = train_estimator(lightgbm, "binary", FEATURES, params, 0, X[:3000], y[:3000])
    np.testing.assert_array_equal(lightgbm.predict(again, "binary", X), lightgbm.predict(estimator, "binary", X))


def test_family_that_cannot_do_the_task() -> None:
    with pytest.raises(ValueError, match="'ridge' cannot do task 'binary'"):
        train_estimator(get_family("ridge"), "binary", FEATURES, {}, 0, *data("binary", 100))


LARGE = (
    Feature(name="epoch_seconds", kind="numeric", source="input"),
    Feature(name="account", kind="numeric", source="input"),
    Feature(name="day", kind="numeric", source="input"),  # as yyyymmdd
    Feature(name="pressure", kind="numeric", source="input"),  # in pascals
    Feature(name="tiny", kind="numeric", source="input"),
    Feature(name="huge", kind="numeric", source="input"),
    Feature(name="constant", kind="numeric", source="input"),
    Feature(name="empty", kind="numeric", source="input"),
    Feature(name="place", kind="categorical", source="input", categories=("a", "b")),
    Feature(name="nowhere", kind="categorical", source="input", categories=()),
)


@pytest.mark.parametrize(("task", "family"), EXPORTS)
def test_numbers_far_from_zero_keep_their_digits(task: Task, family: str) -> None:
    random, rows = np.random.default_rng(1), 1500
    seconds, pressure = random.integers(0, 86_400, rows), random.normal(0, 3, rows)
    X = np.column_stack(
        [
            1_700_000_000.0 + seconds,
            random.integers(10_000_000, 99_999_999, rows),
            20_240_100 + random.integers(1, 31, rows),
            101_325 + pressure,
            random.normal(0, 1e-9, rows),
            random.normal(0, 1e14, rows),
            np.full(rows, 7.7),
            np.full(rows, np.nan),
            random.integers(-2, 2, rows),
            random.integers(-2, 0, rows),
        ]
    ).astype(np.float64)
    X[:50, 3] = np.nan
    value = seconds / 43_200 - 1 + pressure / 3 + 0.5 * (X[:, 8] == 1)
    y = (
        value
        if task == "regression"
        else (value > 0) * 1.0
        if task == "binary"
        else np.digitize(value, [-0.5, 0.5]) * 1.0
    )
    params: dict[str, dict[str, Any]] = {
        "lightgbm": {**get_family("lightgbm").default_params(task), "n_estimators": 20},
        "ridge": {"alpha": 1.0},
        "logistic_regression": {"C": 1.0},
    }
    estimator = train_estimator(get_family(family), task, LARGE, params[family], 0, X, y)
    report = check_parity(family, estimator, export(family, estimator, task, LARGE), task, X, LARGE)
    assert report.max_difference < 1e-11


@pytest.mark.parametrize("numeric", [True, False])
@pytest.mark.parametrize(("task", "family"), EXPORTS[3:])
def test_linear_models_of_one_kind_of_feature(task: Task, family: str, numeric: bool) -> None:
    X, y = data(task)
    part = slice(0, 4) if numeric else slice(4, 5)
    features, params = FEATURES[part], get_family(family).default_params(task)
    estimator = train_estimator(get_family(family), task, features, params, 0, X[:, part], y)
    onnx = export(family, estimator, task, features)
    assert check_parity(family, estimator, onnx, task, X[:, part], features).max_difference < 1e-12


@pytest.mark.parametrize("family", ["lightgbm", "logistic_regression"])
def test_two_classes_that_stand_for_several(family: str) -> None:
    """A multiclass model whose training rows have two of the classes scores and explains by class all the same."""
    X, y = data("binary")
    params = {**get_family(family).default_params("multiclass"), **FEW_TREES.get(family, {})}
    estimator = train_estimator(get_family(family), "multiclass", FEATURES, params, 0, X, y)
    onnx = export(family, estimator, "multiclass")
    assert check_parity(family, estimator, onnx, "multiclass", X).max_difference < 1e-12
    session = onnxruntime.InferenceSession(onnx)
    explainer = unpack(session.get_modelmeta().custom_metadata_map[METADATA_KEY], len(FEATURES))
    found = explainer.explain(X[:20])
    raw = found.base + found.contributions.sum(axis=2)
    score = session.run(None, {"X": X[:20]})[0]
    softmax = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, score, atol=1e-9)


def test_early_stopping_ignores_classes_that_training_did_not_have() -> None:
    X, y = data("multiclass")
    y_validation = np.where(y[3000:] == 2, -1.0, y[3000:])
    keep = y[:3000] != 2
    lightgbm, X_train, y_train = get_family("lightgbm"), X[:3000][keep], y[:3000][keep]
    defaults = lightgbm.default_params("multiclass")
    for labels in (y_validation, np.full(1000, -1.0)):
        estimator = train_estimator(lightgbm, "multiclass", FEATURES, defaults, 0, X_train, y_train, (X[3000:], labels))
        assert lightgbm.fitted_params(estimator, defaults)["n_estimators"]
