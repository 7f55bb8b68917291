"""CatBoost: boosted symmetric trees. It compares in float32 and is exported exactly; a null is its smallest number."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.inference.explain import Tree, Trees
from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import BUILT_IN, Parameter
from ml_platform.spec.types import Task
from ml_platform.training.export.float32_splits import LARGEST, double_thresholds, in_float32_range
from ml_platform.training.export.onnx_trees import constant_tree, export_trees, tree_of_arrays
from ml_platform.training.families.base import EstimatorFamily, Validation
from ml_platform.training.families.boosting import EARLY_STOPPING_ROUNDS, MAX_ROUNDS, curve_of, threads_for

if TYPE_CHECKING:
    import optuna

_LOSSES = {"binary": "Logloss", "multiclass": "MultiClass", "regression": "RMSE"}
_SAMPLED_ROWS = 100  # of fewer CatBoost refuses to draw a sample
SUMMING_THREADS = (
    4  # of a binary model, on every machine: its leaf values are sums of as many parts as there are threads
)
_EMPTY_LEAF = 1e-6  # weight of a leaf that no training row came to: symmetric trees have such


class CatBoostFamily(EstimatorFamily):
    """Boosted trees that ask the same question of all rows of a level."""

    info = BUILT_IN["catboost"]

    def default_params(self, task: Task) -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {"learning_rate": 0.1, "depth": 6, "l2_leaf_reg": 3.0, "rsm": 0.8, "subsample": 0.8}

    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.04, 0.25, log=True),
            "depth": trial.suggest_int("depth", 4, 8),
            "l2_leaf_reg": trial.suggest_float("l2_leaf_reg", 1.0, 30.0, log=True),
            "rsm": trial.suggest_float("rsm", 0.4, 1.0),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        }

    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> Any:  # noqa: ARG002
        """See `EstimatorFamily`; `params` may have `iterations`, else there are up to `MAX_ROUNDS`."""
        from catboost import CatBoostClassifier, CatBoostRegressor

        chosen: dict[str, Any] = {
            "iterations": MAX_ROUNDS,
            "random_seed": seed,
            "loss_function": _LOSSES[task],
            "bootstrap_type": "MVS",
            # Left alone, both depend on the number of rounds, which early stopping changes.
            "boosting_type": "Plain",
            "leaf_estimation_iterations": 10 if task == "binary" else 1,
            "allow_writing_files": False,
            "verbose": False,
            **params,
        }
        return CatBoostRegressor(**chosen) if task == "regression" else CatBoostClassifier(**chosen)

    def fit(
        self,
        estimator: Any,
        X: np.ndarray,
        y: np.ndarray,
        validation: Validation | None = None,
        *,
        weights: np.ndarray | None = None,
        validation_weights: np.ndarray | None = None,
    ) -> Any:
        """See `EstimatorFamily`."""
        estimator.set_params(thread_count=_threads(estimator, X))
        if len(X) < _SAMPLED_ROWS:
            estimator.set_params(bootstrap_type="Bernoulli", subsample=1.0)
        if validation is None:
            return estimator.fit(_filled(X), y, sample_weight=weights)
        from catboost import Pool

        later = Pool(_filled(validation[0]), validation[1], weight=validation_weights)
        return estimator.fit(
            _filled(X), y, sample_weight=weights, eval_set=later, early_stopping_rounds=EARLY_STOPPING_ROUNDS
        )

    def quantile_params(self, quantile: float) -> dict[str, Any]:
        """See `EstimatorFamily`."""
        return {"loss_function": f"Quantile:alpha={quantile!r}"}

    def monotone_params(self, signs: Sequence[int]) -> dict[str, Any]:
        """See `EstimatorFamily`."""
        return {"monotone_constraints": list(signs)}

    def fitted_params(self, estimator: Any, params: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """See `EstimatorFamily`: with the number of trees kept."""
        return {**params, "iterations": int(estimator.tree_count_)}

    def learning_curve(self, estimator: Any) -> tuple[float, ...]:
        """See `EstimatorFamily`."""
        return curve_of({name: curves for name, curves in estimator.get_evals_result().items() if name != "learn"})

    def predict(self, estimator: Any, task: Task, X: np.ndarray) -> np.ndarray:
        """See `EstimatorFamily`."""
        return super().predict(estimator, task, _filled(X))

    def importance(
        self,
        estimator: Any,
        task: Task,  # noqa: ARG002
        features: Sequence[Feature],
        X: np.ndarray,  # noqa: ARG002
    ) -> dict[str, float]:
        """See `EstimatorFamily`: how much the prediction changes on average when the feature does."""
        changes = estimator.get_feature_importance(type="PredictionValuesChange").tolist()
        return dict(zip((feature.name for feature in features), changes, strict=True))

    def native_files(self, estimator: Any) -> dict[str, bytes]:
        """See `EstimatorFamily`: CatBoost's binary format."""
        return {"model.cbm": _saved(estimator, "cbm")}

    def export(self, estimator: Any, task: Task, features: Sequence[Feature]) -> bytes:
        """See `EstimatorFamily`.

        Raises
        ------
        ValueError
            For what the conversion cannot do exactly: trees that are not symmetric, and splits of categories.
        """
        return export_trees(trees_of(estimator), task, len(features))


def trees_of(estimator: Any) -> Trees:
    """Read a model's trees, with log-odds or the value as raw scores (raises ValueError, see `export`).

    A null is CatBoost's smallest number, or its largest where `nan_mode` was `Max`.
    """
    model = json.loads(_saved(estimator, "json"))
    if "oblivious_trees" not in model:
        raise ValueError("CatBoost trees that are not symmetric have no exact export: leave `grow_policy` out")
    scale, start = model["scale_and_bias"]
    numbers = model["features_info"].get("float_features", [])
    positions = [one["flat_feature_index"] for one in numbers]
    null_is_largest = [one.get("nan_value_treatment") == "AsTrue" for one in numbers]
    targets = len(start)
    trees = [_tree(tree, positions, null_is_largest, scale, targets) for tree in model["oblivious_trees"]]
    if targets == 1:
        trees.append(constant_tree(float(start[0])))
    elif any(start):
        raise ValueError(f"CatBoost with a bias for each class has no exact export: {start}")
    return Trees(targets=targets, trees=trees)


def _filled(X: np.ndarray) -> np.ndarray:
    """A matrix of which CatBoost needs to know nothing about nulls, which it would refuse where training had none."""
    return np.where(np.isnan(X), -LARGEST, in_float32_range(X))


def filled_where_unknown(estimator: Any, X: np.ndarray) -> np.ndarray:
    """A matrix with nulls only in the features of which training had some; elsewhere they are the smallest number."""
    numbers = json.loads(_saved(estimator, "json"))["features_info"].get("float_features", [])
    has_nulls = np.array([bool(one["has_nans"]) for one in numbers], dtype=bool)
    largest = float(np.finfo(np.float32).max)  # beside which its border between nulls and numbers is
    return np.where(np.isnan(X) & ~has_nulls, -LARGEST, np.clip(X, -largest, largest))


def _saved(estimator: Any, kind: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        estimator.save_model(str(path), format=kind)
        return path.read_bytes()


def _tree(
    tree: Mapping[str, Any], positions: Sequence[int], null_is_largest: Sequence[bool], scale: float, targets: int
) -> Tree:
    """A symmetric tree as one whose nodes are numbered level by level; the last split of the list is the root's."""
    levels = list(reversed(tree["splits"] or ()))  # null for a tree of one leaf
    if any(split["split_type"] != "FloatFeature" for split in levels):
        raise ValueError("CatBoost splits of categories have no exact export: encode categories as numbers first")
    number, inner = np.arange(2 ** (len(levels) + 1) - 1), 2 ** len(levels) - 1
    level = np.floor(np.log2(number[:inner] + 1)).astype(int)
    cover = np.maximum(np.array(tree["leaf_weights"], dtype=np.float64), _EMPTY_LEAF)
    covers = [cover]
    while len(covers[0]) > 1:
        covers.insert(0, covers[0].reshape(-1, 2).sum(axis=1))
    leaves = np.array(tree["leaf_values"], dtype=np.float64).reshape(-1, targets) * scale
    values = np.vstack([np.zeros((inner, targets)), leaves])
    padding = np.zeros(len(number) - inner)
    borders = np.array([split["border"] for split in levels], dtype=np.float32)
    numbers = [split["float_feature_index"] for split in levels]
    features = np.array([positions[number] for number in numbers], dtype=np.int64)
    nan_left = np.array([not null_is_largest[number] for number in numbers], dtype=bool)
    return tree_of_arrays(
        np.where(number < inner, 2 * number + 1, -1),
        2 * number + 2,
        feature=np.concatenate([features[level], padding]),
        split=np.concatenate([double_thresholds(borders)[level], padding]),
        nan_left=np.concatenate([nan_left[level], padding]),
        cover=np.concatenate(covers),
        value=values if targets > 1 else values[:, 0],
    )


def _threads(estimator: Any, X: np.ndarray) -> int:
    """Number of threads with which an estimator is the same on any number of cores."""
    return SUMMING_THREADS if estimator.get_params()["leaf_estimation_iterations"] > 1 else threads_for(X)
