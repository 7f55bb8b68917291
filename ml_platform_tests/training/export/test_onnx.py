from typing import Any

import numpy as np
import onnxruntime
import pytest

from ml_platform.inference.explain import METADATA_KEY, unpack
from ml_platform.registry.manifest import Feature
from ml_platform.spec.model import Family, Task
from ml_platform.training.export.onnx import export_onnx
from ml_platform.training.export.onnx_trees import ZERO_THRESHOLD, thresholds
from ml_platform.training.export.parity import ParityError, check_parity
from ml_platform.training.families import (
    build_estimator,
    default_params,
    fit_estimator,
    fitted_params,
    importance,
    predict,
)

FEATURES = (
    Feature(name="a", kind="numeric", source="input"),
    Feature(name="b", kind="numeric", source="input"),
    Feature(name="rarely", kind="numeric", source="input"),
    Feature(name="zeros", kind="numeric", source="input"),
    Feature(name="place", kind="categorical", source="input", categories=tuple("abcdefghij")),
)
EXPORTS: list[tuple[Task, Family]] = [
    ("binary", "lightgbm"),
    ("regression", "lightgbm"),
    ("multiclass", "lightgbm"),
    ("binary", "logistic_regression"),
    ("multiclass", "logistic_regression"),
    ("regression", "ridge"),
]


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


def fitted(task: Task, family: Family, rows: int = 4000, **params: Any) -> tuple[Any, np.ndarray]:
    X, y = data(task, rows)
    chosen = {**default_params(family), **({"n_estimators": 40} if family == "lightgbm" else {}), **params}
    return fit_estimator(build_estimator(family, task, FEATURES, chosen, 0), X, y), X


@pytest.mark.parametrize(("task", "family"), EXPORTS)
def test_export_answers_as_the_native_model(task: Task, family: Family) -> None:
    estimator, X = fitted(task, family)
    onnx = export_onnx(estimator, task, len(FEATURES))
    report = check_parity(estimator, onnx, task, FEATURES, X)
    assert report.rows > 2000
    assert report.max_difference <= 1e-13
    assert onnx == export_onnx(estimator, task, len(FEATURES))
    session = onnxruntime.InferenceSession(onnx)
    (given,), (answer,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, answer.name, answer.type) == ("X", "tensor(double)", "score", "tensor(double)")
    shape = session.run(None, {"X": X[:7]})[0].shape
    assert shape == ((7, 3) if task == "multiclass" else (7,))


@pytest.mark.parametrize("task", ["binary", "regression", "multiclass"])
def test_trees_are_exact_at_every_threshold_and_beside_it(task: Task) -> None:
    estimator, X = fitted(task, "lightgbm")
    known = thresholds(estimator.named_steps["model"].booster_)
    session = onnxruntime.InferenceSession(export_onnx(estimator, task, len(FEATURES)))
    assert sum(map(len, known.values())) > 100
    for feature, values in known.items():
        some = np.array(values)
        beside = np.concatenate([np.nextafter(some, -np.inf), some, np.nextafter(some, np.inf)])
        rows = np.repeat(X[:1], len(beside), axis=0)
        rows[:, feature] = beside
        np.testing.assert_allclose(session.run(None, {"X": rows})[0], predict(estimator, task, rows), rtol=1e-12)


def test_float32_copy_of_the_same_trees_is_caught() -> None:
    """The gate's reason to be: trees whose input passes through float32 take other branches next to thresholds."""
    import onnx
    from onnx import TensorProto, helper

    estimator, X = fitted("binary", "lightgbm")
    graph = onnx.load_from_string(export_onnx(estimator, "binary", len(FEATURES)))
    for node in graph.graph.node:
        node.input[:] = ["X64" if name == "X" else name for name in node.input]
    for position, (source, result, kind) in enumerate(
        (("X", "X32", TensorProto.FLOAT), ("X32", "X64", TensorProto.DOUBLE))
    ):
        graph.graph.node.insert(position, helper.make_node("Cast", [source], [result], to=kind))
    with pytest.raises(ParityError, match=r"the graph answers .* the trained model .* for row \d+ of \d+: \{'a': "):
        check_parity(estimator, graph.SerializeToString(), "binary", FEATURES, X)


def test_tiny_values_and_null_where_training_saw_none() -> None:
    estimator, X = fitted("binary", "lightgbm")
    rows = np.repeat(X[:1], 9, axis=0)
    rows[:, 3] = [0.0, -0.0, 1e-40, -1e-40, ZERO_THRESHOLD, -ZERO_THRESHOLD, 1e-34, -1e-34, np.nan]
    rows = np.vstack([rows, np.full((1, len(FEATURES)), np.nan), np.full((1, len(FEATURES)), np.inf)])
    session = onnxruntime.InferenceSession(export_onnx(estimator, "binary", len(FEATURES)))
    np.testing.assert_allclose(session.run(None, {"X": rows})[0], predict(estimator, "binary", rows), atol=1e-15)


def test_model_that_learned_nothing_exports_its_constant() -> None:
    estimator, X = fitted("binary", "lightgbm", rows=60, min_child_samples=1000, n_estimators=3)
    onnx = export_onnx(estimator, "binary", len(FEATURES))
    assert check_parity(estimator, onnx, "binary", FEATURES, X).max_difference < 1e-14


@pytest.mark.parametrize(
    ("params", "said"),
    [({"zero_as_missing": True}, "zero_as_missing"), ({"objective": "cross_entropy"}, "objective 'cross_entropy'")],
)
def test_what_cannot_be_exact_is_refused(params: dict[str, Any], said: str) -> None:
    estimator, _ = fitted("binary", "lightgbm", **params)
    with pytest.raises(ValueError, match=said):
        export_onnx(estimator, "binary", len(FEATURES))


def test_categorical_splits_are_refused() -> None:
    from lightgbm import LGBMClassifier
    from sklearn.pipeline import Pipeline

    X, y = data("binary")
    X[:, 4] += 2
    model = LGBMClassifier(n_estimators=5, verbosity=-1).fit(X, y, categorical_feature=[4])
    with pytest.raises(ValueError, match="encode categories as numbers"):
        export_onnx(Pipeline([("model", model)]), "binary", len(FEATURES))


@pytest.mark.parametrize(("task", "family"), EXPORTS)
def test_importance_finds_what_the_labels_were_made_of(task: Task, family: Family) -> None:
    estimator, X = fitted(task, family)
    weights = importance(estimator, FEATURES, X)
    assert list(weights) == [feature.name for feature in FEATURES]
    assert min(weights, key=lambda name: weights[name]) == "b"


def test_number_of_threads_does_not_change_the_trees() -> None:
    X, y = data("binary", 30_000)
    trees = []
    for threads in (1, 2, 3):
        estimator = build_estimator(
            "lightgbm", "binary", FEATURES, {**default_params("lightgbm"), "n_estimators": 15}, 0
        )
        model = estimator.named_steps["model"].set_params(n_jobs=threads)
        trees.append(model.fit(X, y).booster_.model_to_string().partition("parameters:")[0])
    assert trees[0] == trees[1] == trees[2]


def test_early_stopping_tells_the_number_of_trees() -> None:
    X, y = data("binary")
    estimator = build_estimator("lightgbm", "binary", FEATURES, default_params("lightgbm"), 0)
    fit_estimator(estimator, X[:3000], y[:3000], (X[3000:], y[3000:]))
    params = fitted_params(estimator, default_params("lightgbm"))
    assert 1 <= int(params["n_estimators"]) < 400
    again = fit_estimator(build_estimator("lightgbm", "binary", FEATURES, params, 0), X[:3000], y[:3000])
    np.testing.assert_array_equal(predict(again, "binary", X), predict(estimator, "binary", X))


def test_family_that_cannot_do_the_task() -> None:
    with pytest.raises(ValueError, match="'ridge' cannot do task 'binary'"):
        build_estimator("ridge", "binary", FEATURES, {}, 0)


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
def test_numbers_far_from_zero_keep_their_digits(task: Task, family: Family) -> None:
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
    params = {**default_params(family), **({"n_estimators": 20} if family == "lightgbm" else {"alpha": 1.0})}
    params = {"C": 1.0} if family == "logistic_regression" else params
    estimator = fit_estimator(build_estimator(family, task, LARGE, params, 0), X, y)
    report = check_parity(estimator, export_onnx(estimator, task, len(LARGE)), task, LARGE, X)
    assert report.max_difference < 1e-11


@pytest.mark.parametrize("numeric", [True, False])
@pytest.mark.parametrize(("task", "family"), EXPORTS[3:])
def test_linear_models_of_one_kind_of_feature(task: Task, family: Family, numeric: bool) -> None:
    X, y = data(task)
    part = slice(0, 4) if numeric else slice(4, 5)
    estimator = build_estimator(family, task, FEATURES[part], default_params(family), 0)
    fit_estimator(estimator, X[:, part], y)
    onnx = export_onnx(estimator, task, len(FEATURES[part]))
    assert check_parity(estimator, onnx, task, FEATURES[part], X[:, part]).max_difference < 1e-12


@pytest.mark.parametrize("family", ["lightgbm", "logistic_regression"])
def test_two_classes_that_stand_for_several(family: Family) -> None:
    """A multiclass model whose training rows have two of the classes scores and explains by class all the same."""
    X, y = data("binary")
    params = {**default_params(family), **({"n_estimators": 20} if family == "lightgbm" else {})}
    estimator = fit_estimator(build_estimator(family, "multiclass", FEATURES, params, 0), X, y)
    onnx = export_onnx(estimator, "multiclass", len(FEATURES))
    assert check_parity(estimator, onnx, "multiclass", FEATURES, X).max_difference < 1e-12
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
    estimator = build_estimator("lightgbm", "multiclass", FEATURES, default_params("lightgbm"), 0)
    fit_estimator(estimator, X[:3000][keep], y[:3000][keep], (X[3000:], y_validation))
    assert fitted_params(estimator, default_params("lightgbm"))["n_estimators"]
    nothing = np.full(1000, -1.0)
    fit_estimator(estimator, X[:3000][keep], y[:3000][keep], (X[3000:], nothing))
