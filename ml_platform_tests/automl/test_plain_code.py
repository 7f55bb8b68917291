"""The code of the notebooks computes what the engine does: matrix, metrics, and each family's scores to the bit."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_platform.automl.documents import Member
from ml_platform.automl.estimator_code import NOTEBOOK_FAMILIES, estimator_code, helper_functions
from ml_platform.automl.notebook_cells import source_of
from ml_platform.automl.plain.blending import blend
from ml_platform.automl.plain.metrics import METRICS
from ml_platform.automl.plain.rows import input_columns, learn_categories, make_matrix
from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import BUILT_IN
from ml_platform.spec.types import Task
from ml_platform.training.evaluation.metrics import measure
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.registry import get_family
from ml_platform_tests.needs import lacking

ROWS = 400
PERCEPTRONS = {"torch_mlp", "keras_mlp"}
ROUNDS = {
    **dict.fromkeys(["random_forest", "extra_trees", "lightgbm", "xgboost"], "n_estimators"),
    **dict.fromkeys(PERCEPTRONS, "epochs"),
    "catboost": "iterations",
    "hist_gradient_boosting": "max_iter",
}
_RANDOM = np.random.default_rng(2)
NUMBERS = np.where(_RANDOM.random(ROWS) < 0.1, np.nan, _RANDOM.normal(5.0, 2.0, ROWS))
WORDS = _RANDOM.choice(["red", "green", "blue", "odd"], ROWS, p=[0.4, 0.3, 0.28, 0.02])
NOISE = _RANDOM.normal(size=ROWS)
VALUE = np.nan_to_num(NUMBERS) + 2.0 * (WORDS == "red") + NOISE
LABELS: dict[Task, np.ndarray] = {
    "binary": (VALUE > 5).astype(float),
    "multiclass": np.digitize(VALUE, [4.0, 7.0]).astype(float),
    "regression": VALUE,
}
FRAME = pl.DataFrame(
    {"size": NUMBERS, "colour": [None if place % 50 == 0 else word for place, word in enumerate(WORDS)]}
).with_columns(pl.col("size").fill_nan(None), pl.lit(1.5).alias("plain"))
KINDS = {"size": "number", "colour": "category", "plain": "number"}
INFOS = [
    FeatureInfo(name=name, kind="categorical" if kind == "category" else "numeric", source="input")
    for name, kind in KINDS.items()
]


def matrix(task: Task) -> tuple[np.ndarray, tuple[Feature, ...]]:
    encoder = FeatureEncoder.fit(FRAME, INFOS, None if task == "multiclass" else LABELS[task])
    return encoder.transform(FRAME), encoder.features


@pytest.mark.parametrize("task", LABELS)
def test_the_matrix_is_that_of_the_engine(task: Task) -> None:
    inputs = input_columns(FRAME, KINDS)
    categories = {"colour": learn_categories(inputs["colour"], None if task == "multiclass" else LABELS[task])}
    wanted, features = matrix(task)
    assert tuple(categories["colour"]) == features[1].categories
    assert np.array_equal(make_matrix(inputs, categories), wanted, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        pytest.param(name, task, marks=pytest.mark.slow if name in PERCEPTRONS else ())
        for name in NOTEBOOK_FAMILIES
        for task in LABELS
        if task in BUILT_IN[name].tasks
    ],
)
def test_the_code_of_a_family_gives_its_scores(name: str, task: Task) -> None:
    if (library := BUILT_IN[name].library) is not None and find_spec(library) is None:
        lacking(f"{library} is not installed: `make setup-families`")
    family, (X, features), y = get_family(name), matrix(task), LABELS[task]
    params = dict(family.default_params(task))
    if rounds := ROUNDS.get(name):
        params[rounds] = 12
    wanted = family.predict(train_estimator(family, task, features, params, 3, X, y), task, X)
    code = estimator_code(Member(trial=f"{name}-0", family=name, params=params, weight=1.0), task, 3)
    cell = {
        "np": np,
        "Any": Any,
        "Callable": Callable,
        "COLUMNS": list(KINDS),
        "CATEGORIES": {"colour": list(features[1].categories or ())},
    }
    exec(source_of(*helper_functions({name})), cell)
    exec(code, cell)
    scores = cell["predict"](cell["fit"](X, y), X)  # type: ignore[operator]
    assert np.array_equal(scores, wanted)


def test_a_family_without_code_is_refused() -> None:
    with pytest.raises(ValueError, match="no notebook of family 'own'"):
        estimator_code(Member(trial="t", family="own", params={}, weight=1.0), "binary", 0)


@pytest.mark.parametrize("task", LABELS)
def test_metrics_are_those_of_the_gate(task: Task) -> None:
    y = np.abs(LABELS[task])
    raw = _RANDOM.random((ROWS, 3))
    score = {"binary": raw[:, 0], "multiclass": raw / raw.sum(axis=1, keepdims=True), "regression": 3 * raw[:, 0]}[task]
    known = measure(task, y, score)
    assert set(known) == {name for name in METRICS if name in known}
    for name, value in known.items():
        assert METRICS[name](y, score) == pytest.approx(value, rel=1e-9), name


def test_a_blend_is_the_weighted_sum() -> None:
    assert blend([np.array([1.0, 2.0]), np.array([3.0, 6.0])], [0.25, 0.75]).tolist() == [2.5, 5.0]
