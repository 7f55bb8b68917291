"""XGBoost: boosted trees. It compares and adds in float32; its comparisons are exported exactly, its sums in double."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.inference.explain import Tree, Trees
from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import BUILT_IN, Parameter
from ml_platform.spec.types import Task
from ml_platform.training.export.category_sets import HALF, CategorySets
from ml_platform.training.export.float32_splits import double_thresholds, in_float32_range
from ml_platform.training.export.onnx_trees import constant_tree, export_trees, halved, tree_of_arrays
from ml_platform.training.families.base import EstimatorFamily, Validation
from ml_platform.training.families.boosting import EARLY_STOPPING_ROUNDS, MAX_ROUNDS, curve_of, threads_for

if TYPE_CHECKING:
    import optuna

    from ml_platform.training.families.xgboost_booster import XGBoostShardBooster

LOG_OBJECTIVES = ("count:poisson", "reg:gamma", "reg:tweedie")  # the value is the exponent of their raw score
_OBJECTIVES = (
    "binary:logistic",
    "multi:softprob",
    "multi:softmax",
    "reg:squarederror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:quantileerror",
)


class XGBoostFamily(EstimatorFamily):
    """Boosted trees; of the scikit-learn interface, so that its estimators score and stop early as usual."""

    info = BUILT_IN["xgboost"]

    def default_params(self, task: Task) -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {
            "learning_rate": 0.1,
            "max_depth": 6,
            "min_child_weight": 10.0,
            "colsample_bytree": 0.8,
            "subsample": 0.8,
            "reg_lambda": 1.0,
        }

    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.04, 0.25, log=True),
            "max_depth": trial.suggest_int("max_depth", 3, 9),
            "min_child_weight": trial.suggest_float("min_child_weight", 1.0, 100.0, log=True),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.4, 1.0),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
            "reg_lambda": trial.suggest_float("reg_lambda", 0.01, 30.0, log=True),
        }

    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> Any:  # noqa: ARG002
        """See `EstimatorFamily`; `params` may have `n_estimators`, else there are up to `MAX_ROUNDS`."""
        from xgboost import XGBClassifier, XGBRegressor

        chosen: dict[str, Any] = {"n_estimators": MAX_ROUNDS, "tree_method": "hist", "random_state": seed, **params}
        return XGBRegressor(**chosen) if task == "regression" else XGBClassifier(**chosen)

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
        estimator.set_params(n_jobs=threads_for(X))
        if validation is None:
            return estimator.fit(in_float32_range(X), y, sample_weight=weights)
        estimator.set_params(early_stopping_rounds=EARLY_STOPPING_ROUNDS)
        return estimator.fit(
            in_float32_range(X),
            y,
            sample_weight=weights,
            eval_set=[(in_float32_range(validation[0]), validation[1])],
            sample_weight_eval_set=None if validation_weights is None else [validation_weights],
            verbose=False,
        )

    def quantile_params(self, quantile: float) -> dict[str, Any]:
        """See `EstimatorFamily`."""
        return {"objective": "reg:quantileerror", "quantile_alpha": quantile}

    def monotone_params(self, signs: Sequence[int]) -> dict[str, Any]:
        """See `EstimatorFamily`."""
        return {"monotone_constraints": tuple(signs)}

    def fitted_params(self, estimator: Any, params: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """See `EstimatorFamily`: with the number of trees kept."""
        return {**params, "n_estimators": rounds(estimator)}

    def learning_curve(self, estimator: Any) -> tuple[float, ...]:
        """See `EstimatorFamily`."""
        return curve_of(getattr(estimator, "evals_result_", None))

    def predict(self, estimator: Any, task: Task, X: np.ndarray) -> np.ndarray:
        """See `EstimatorFamily`."""
        return super().predict(estimator, task, in_float32_range(X))

    def importance(
        self,
        estimator: Any,
        task: Task,  # noqa: ARG002
        features: Sequence[Feature],
        X: np.ndarray,  # noqa: ARG002
    ) -> dict[str, float]:
        """See `EstimatorFamily`: the total gain of the feature's splits."""
        gains = estimator.get_booster()[: rounds(estimator)].get_score(importance_type="total_gain")
        return {feature.name: float(gains.get(f"f{position}", 0.0)) for position, feature in enumerate(features)}

    def native_files(self, estimator: Any) -> dict[str, bytes]:
        """See `EstimatorFamily`: XGBoost's own format, as UBJSON."""
        return {"model.ubj": bytes(estimator.get_booster()[: rounds(estimator)].save_raw("ubj"))}

    def shard_booster(self) -> "XGBoostShardBooster":
        """See `EstimatorFamily`."""
        from ml_platform.training.families.xgboost_booster import XGBoostShardBooster

        return XGBoostShardBooster()

    def export(self, estimator: Any, task: Task, features: Sequence[Feature]) -> bytes:
        """See `EstimatorFamily`.

        Raises
        ------
        ValueError
            For what the conversion cannot do exactly: categorical splits, other boosters than trees, trees with a
            vector in each leaf, and objectives but the usual ones.
        """
        booster = estimator.get_booster()[: rounds(estimator)]
        return export_trees(trees_of(json.loads(booster.save_raw("json")), task), task, len(features))


def rounds(estimator: Any) -> int:
    """Number of rounds up to the best one, or of all where nothing stopped them."""
    stopped = estimator.get_params()["early_stopping_rounds"] is not None
    return int(estimator.best_iteration) + 1 if stopped else int(estimator.get_booster().num_boosted_rounds())


def trees_of(
    model: Mapping[str, Any], task: Task, sets: CategorySets | None = None, *, log_link: bool = False
) -> Trees:
    """Read the trees of XGBoost's JSON, with log-odds or the value as raw scores (raises ValueError, see `export`).

    Splits by categories are refused unless there are `sets`, whose columns they then ask for; with `log_link` the raw
    scores may be logarithms of the value.
    """
    learner = model["learner"]
    objective, booster = learner["objective"]["name"], learner["gradient_booster"]
    if objective not in (*_OBJECTIVES, *(LOG_OBJECTIVES if log_link else ())) or booster["name"] != "gbtree":
        raise ValueError(
            f"XGBoost's {booster['name']} for '{objective}' has no exact export; wanted trees for one of "
            f"{', '.join(_OBJECTIVES)}"
        )
    start = [float(value) for value in learner["learner_model_param"]["base_score"].strip("[]").split(",")]
    if objective == "binary:logistic":  # stated as a probability
        start = [math.log(value / (1 - value)) for value in start]
    elif objective in LOG_OBJECTIVES:
        start = [math.log(value) for value in start]
    trees = [constant_tree(value, target) for target, value in enumerate(start)]
    grown = booster["model"]
    trees += [_tree(tree, target, sets) for tree, target in zip(grown["trees"], grown["tree_info"], strict=True)]
    return halved(trees) if task == "multiclass" and len(start) == 1 else Trees(targets=len(start), trees=trees)


def _tree(tree: Mapping[str, Any], target: int, sets: CategorySets | None) -> Tree:
    if (any(tree["split_type"]) and sets is None) or int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise ValueError(
            "XGBoost trees that split by categories, or have several values in a leaf, have no exact export: encode "
            "categories as numbers first"
        )
    conditions = np.array(tree["split_conditions"], dtype=np.float32)
    feature, split = np.array(tree["split_indices"]), double_thresholds(conditions, inclusive=False)
    for number, start, size in zip(
        tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True
    ):  # a code of the set goes right
        if sets is not None:
            feature[number] = sets.column(int(feature[number]), tree["categories"][start : start + size])
            split[number] = HALF
    return tree_of_arrays(
        np.array(tree["left_children"]),
        np.array(tree["right_children"]),
        feature=feature,
        split=split,
        nan_left=np.array(tree["default_left"]),
        cover=np.maximum(tree["sum_hessian"], np.finfo(np.float32).tiny),
        value=conditions,  # of a leaf
        target=target,
    )
