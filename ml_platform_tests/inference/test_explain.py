"""Explanations against LightGBM's own, against the definition of the Shapley value, and against the scores."""

from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import onnxruntime
import pytest

from ml_platform.inference.explain import METADATA_KEY, Tree, TreeExplainer, Trees, unpack
from ml_platform.inference.explainer import Explainer
from ml_platform.spec.types import Task
from ml_platform.training.export.thresholds import thresholds
from ml_platform_tests.training.export.test_onnx import FEATURES, export, fitted

WIDTH = len(FEATURES)


def explainer(family: str, estimator: Any, task: Task) -> Explainer:
    """The explainer that serving makes of the exported graph."""
    session = onnxruntime.InferenceSession(export(family, estimator, task))
    return unpack(session.get_modelmeta().custom_metadata_map[METADATA_KEY], WIDTH)


def edge_rows(onnx: bytes, X: np.ndarray) -> np.ndarray:
    """Real rows, rows of nulls, infinities, zeros, unseen codes, and rows on and beside thresholds."""
    rows = [X[:60], np.full((1, WIDTH), np.nan), np.full((1, WIDTH), 1e308), np.zeros((1, WIDTH))]
    for feature, values in thresholds(onnx).items():
        beside = np.repeat(X[:1], 9, axis=0)
        some = np.array(values[:3])
        beside[: 3 * len(some), feature] = np.concatenate(
            [np.nextafter(some, -np.inf), some, np.nextafter(some, np.inf)]
        )
        rows.append(beside)
    return np.vstack(rows)


@pytest.mark.parametrize(
    ("task", "params"),
    [
        ("binary", {}),
        ("regression", {"num_leaves": 95, "min_child_samples": 5}),
        ("multiclass", {}),
        ("binary", {"num_leaves": 2}),
        ("binary", {"max_depth": 12, "num_leaves": 80, "min_child_samples": 2, "n_estimators": 60}),
    ],
)
def test_trees_are_explained_as_lightgbm_does(task: Task, params: dict[str, Any]) -> None:
    estimator, X = fitted(task, "lightgbm", **params)
    model = estimator
    rows = edge_rows(export("lightgbm", estimator, task), X)
    found = explainer("lightgbm", estimator, task)
    assert found.method == "tree_shap"
    explained = found.explain(rows)
    wanted = np.asarray(model.booster_.predict(rows, pred_contrib=True)).reshape(len(rows), -1, WIDTH + 1)
    np.testing.assert_allclose(explained.contributions, wanted[..., :-1], rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.broadcast_to(explained.base, wanted.shape[:2]), wanted[..., -1], rtol=0, atol=1e-9)
    raw = np.asarray(model.booster_.predict(rows, raw_score=True)).reshape(len(rows), -1)
    np.testing.assert_allclose(explained.base + explained.contributions.sum(axis=2), raw, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(
    ("task", "family"),
    [("binary", "logistic_regression"), ("multiclass", "logistic_regression"), ("regression", "ridge")],
)
def test_linear_contributions_sum_to_the_raw_score(task: Task, family: str) -> None:
    estimator, X = fitted(task, family)
    rows = np.vstack([X[:200], np.full((1, WIDTH), np.nan)])
    explained = explainer(family, estimator, task).explain(rows)
    model = estimator.named_steps["model"]
    columns = estimator.named_steps["columns"].transform(rows)
    raw = model.predict(columns) if task == "regression" else model.decision_function(columns)
    total = explained.base + explained.contributions.sum(axis=2)
    np.testing.assert_allclose(total, raw.reshape(total.shape), rtol=1e-10, atol=1e-10)
    assert np.abs(explained.contributions[:, :, 4]).max() > 0  # the categorical takes part


def test_trees_give_the_shapley_value_by_its_definition() -> None:
    """A tree in which a feature comes twice on one path, and nulls go right: all 2³ coalitions, one by one."""
    tree = Tree(
        target=0,
        feature=[0, 1, 0, 2],
        split=[0.0, 1.0, -1.0, 2.0],
        nan_left=[False, True, False, True],
        left=[1, ~0, ~1, ~3],
        right=[3, 2, ~2, ~4],
        cover=[100.0, 60.0, 35.0, 40.0],
        leaf_value=[1.0, -4.0, 2.5, 7.0, -3.0],
        leaf_cover=[25.0, 15.0, 20.0, 10.0, 30.0],
    )
    found = TreeExplainer(Trees(targets=1, trees=[tree]), 3)
    for row in ([-0.5, 3.0, 0.0], [-2.0, 3.0, 9.0], [np.nan, np.nan, np.nan], [5.0, 0.0, 2.0]):
        values = np.array(row)

        def expected(known: frozenset[int], node: int = 0, values: np.ndarray = values) -> float:
            if node < 0:
                return tree.leaf_value[~node]
            feature, sides = tree.feature[node], (tree.left[node], tree.right[node])
            if feature in known:
                value = values[feature]
                left = tree.nan_left[node] if np.isnan(value) else value <= tree.split[node]
                return expected(known, sides[0] if left else sides[1])
            covers = [tree.leaf_cover[~side] if side < 0 else tree.cover[side] for side in sides]
            total = sum(cover * expected(known, side) for cover, side in zip(covers, sides, strict=True))
            return total / tree.cover[node]

        wanted = []
        for feature in range(3):
            others = [other for other in range(3) if other != feature]
            value = 0.0
            for size in range(3):
                for chosen in combinations(others, size):
                    weight = factorial(size) * factorial(2 - size) / factorial(3)
                    value += weight * (expected(frozenset(chosen) | {feature}) - expected(frozenset(chosen)))
            wanted.append(value)
        explained = found.explain(values[None])
        assert explained.contributions[0, 0] == pytest.approx(wanted, abs=1e-12)
        assert explained.base[0] == pytest.approx(expected(frozenset()), abs=1e-12)


def test_leaves_with_a_value_per_target_are_explained_as_a_tree_for_each_target() -> None:
    shared: dict[str, Any] = {
        "feature": [0, 1],
        "split": [0.0, 1.0],
        "nan_left": [False, True],
        "left": [1, ~0],
        "right": [~2, ~1],
        "cover": [100.0, 60.0],
        "leaf_cover": [25.0, 35.0, 40.0],
    }
    values = np.array([[0.1, 0.9], [0.7, 0.3], [0.5, 0.5]])
    together = Tree(target=0, leaf_value=[], leaf_vector=values.tolist(), **shared)
    apart = [Tree(target=target, leaf_value=values[:, target].tolist(), **shared) for target in (0, 1)]
    rows = np.array([[-1.0, 0.0], [-1.0, 2.0], [3.0, 0.0], [np.nan, np.nan]])
    found = TreeExplainer(Trees(targets=2, trees=[together, together], probabilities=True), 2).explain(rows)
    wanted = TreeExplainer(Trees(targets=2, trees=apart * 2), 2).explain(rows)
    np.testing.assert_allclose(found.contributions, wanted.contributions, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.base, wanted.base, rtol=0, atol=1e-15)
