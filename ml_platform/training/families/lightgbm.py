"""LightGBM: boosted trees, exported exactly."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.inference.explain import Tree, Trees
from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import BUILT_IN, Parameter
from ml_platform.spec.types import Task
from ml_platform.training.export.category_sets import HALF, CategorySets
from ml_platform.training.export.onnx_trees import export_trees, halved
from ml_platform.training.families.base import EstimatorFamily, Validation
from ml_platform.training.families.boosting import EARLY_STOPPING_ROUNDS, MAX_ROUNDS, curve_of, threads_for

if TYPE_CHECKING:
    import lightgbm
    import optuna

    from ml_platform.training.families.lightgbm_booster import LightGBMShardBooster

ZERO_THRESHOLD = float(np.float32(1e-35))  # LightGBM reads |x| up to this as 0
LOG_OBJECTIVES = ("poisson", "gamma", "tweedie")  # the value is the exponent of their raw score
_INFINITE = 1e300  # how LightGBM's dump writes an infinite threshold


class LightGBMFamily(EstimatorFamily):
    """Boosted trees; of the scikit-learn interface, so that its estimators score and stop early as usual."""

    info = BUILT_IN["lightgbm"]

    def default_params(self, task: Task) -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {
            "learning_rate": 0.1,
            "num_leaves": 31,
            "min_child_samples": 100,
            "colsample_bytree": 0.8,
            "subsample": 0.8,
            "reg_lambda": 1.0,
        }

    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.04, 0.25, log=True),
            "num_leaves": trial.suggest_int("num_leaves", 15, 95, log=True),
            "min_child_samples": trial.suggest_int("min_child_samples", 20, 400, log=True),
            "colsample_bytree": trial.suggest_float("colsample_bytree", 0.4, 1.0),
            "subsample": trial.suggest_float("subsample", 0.5, 1.0),
            "reg_lambda": trial.suggest_float("reg_lambda", 0.01, 30.0, log=True),
        }

    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> Any:  # noqa: ARG002
        """See `EstimatorFamily`; `params` may have `n_estimators`, else there are up to `MAX_ROUNDS`."""
        from lightgbm import LGBMClassifier, LGBMRegressor

        chosen: dict[str, Any] = {
            "n_estimators": MAX_ROUNDS,
            "subsample_freq": 1,
            "random_state": seed,
            "deterministic": True,
            "force_col_wise": True,
            "verbosity": -1,
            **params,
        }
        return LGBMRegressor(**chosen) if task == "regression" else LGBMClassifier(**chosen)

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
            return estimator.fit(X, y, sample_weight=weights)
        from lightgbm import early_stopping

        return estimator.fit(
            X,
            y,
            sample_weight=weights,
            eval_X=validation[0],
            eval_y=validation[1],
            eval_sample_weight=None if validation_weights is None else [validation_weights],
            callbacks=[early_stopping(EARLY_STOPPING_ROUNDS, verbose=False)],
        )

    def quantile_params(self, quantile: float) -> dict[str, Any]:
        """See `EstimatorFamily`."""
        return {"objective": "quantile", "alpha": quantile}

    def monotone_params(self, signs: Sequence[int]) -> dict[str, Any]:
        """See `EstimatorFamily`."""
        return {"monotone_constraints": list(signs)}

    def fitted_params(self, estimator: Any, params: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """See `EstimatorFamily`: with the number of trees kept."""
        return {**params, "n_estimators": int(estimator.best_iteration_ or estimator.n_estimators_)}

    def learning_curve(self, estimator: Any) -> tuple[float, ...]:
        """See `EstimatorFamily`."""
        return curve_of(estimator.evals_result_)

    def importance(
        self,
        estimator: Any,
        task: Task,  # noqa: ARG002
        features: Sequence[Feature],
        X: np.ndarray,  # noqa: ARG002
    ) -> dict[str, float]:
        """See `EstimatorFamily`: the total gain of the feature's splits."""
        gains = estimator.booster_.feature_importance("gain").tolist()
        return dict(zip((feature.name for feature in features), gains, strict=True))

    def native_files(self, estimator: Any) -> dict[str, bytes]:
        """See `EstimatorFamily`: LightGBM's text format."""
        return {"model.lgb": estimator.booster_.model_to_string().encode()}

    def shard_booster(self) -> "LightGBMShardBooster":
        """See `EstimatorFamily`."""
        from ml_platform.training.families.lightgbm_booster import LightGBMShardBooster

        return LightGBMShardBooster()

    def export(self, estimator: Any, task: Task, features: Sequence[Feature]) -> bytes:
        """See `EstimatorFamily`.

        Raises
        ------
        ValueError
            For what the conversion cannot do exactly: categorical splits, `zero_as_missing`, linear trees, and
            objectives whose answer is not a sigmoid, a softmax or the plain sum.
        """
        return export_trees(trees_of(estimator.booster_, task), task, len(features))


def trees_of(
    booster: "lightgbm.Booster", task: Task, sets: CategorySets | None = None, *, log_link: bool = False
) -> Trees:
    """Read a booster's trees, whose raw scores are log-odds or the value (raises ValueError, see `export`).

    Splits by categories are refused unless there are `sets`, whose columns they then ask for; with `log_link` the raw
    scores may be logarithms of the value.
    """
    model = booster.dump_model()
    targets, objective = int(model["num_tree_per_iteration"]), str(model["objective"])
    scale = 1.0 if log_link and objective.split(maxsplit=1)[0] in LOG_OBJECTIVES else _scale(objective, task)
    if model.get("average_output"):  # a forest of LightGBM
        scale *= targets / len(model["tree_info"])
    trees = [
        _tree(tree["tree_structure"], int(tree["tree_index"]) % targets, scale, sets) for tree in model["tree_info"]
    ]
    return halved(trees) if task == "multiclass" and targets == 1 else Trees(targets=targets, trees=trees)


def _tree(root: dict[str, Any], target: int, scale: float, sets: CategorySets | None) -> Tree:
    tree = Tree(
        target=target, feature=[], split=[], nan_left=[], left=[], right=[], cover=[], leaf_value=[], leaf_cover=[]
    )
    pending: list[tuple[dict[str, Any], list[int] | None, int]] = [(root, None, 0)]
    while pending:
        node, siblings, parent = pending.pop()
        if "split_feature" in node:
            number = len(tree.feature)
            by_set = sets is not None and node["decision_type"] == "=="
            feature, split, nan_left = _by_set(node, sets) if by_set and sets else _by_value(node)
            tree.feature.append(feature)
            tree.split.append(split)
            tree.nan_left.append(nan_left)
            tree.cover.append(float(node["internal_count"]))
            tree.left.append(0)
            tree.right.append(0)
            ways = (node["right_child"], node["left_child"])
            right, left = reversed(ways) if by_set else ways  # a code of the set is 1, which is above the split
            pending += [(right, tree.right, number), (left, tree.left, number)]
        else:
            if "leaf_const" in node:
                raise ValueError(
                    "LightGBM trees with a linear model in each leaf have no export: leave out `linear_tree`"
                )
            number = ~len(tree.leaf_value)
            tree.leaf_value.append(float(node["leaf_value"]) * scale)
            tree.leaf_cover.append(float(node.get("leaf_count", 1)))
        if siblings is not None:
            siblings[parent] = number
    return tree


def _by_value(node: Mapping[str, Any]) -> tuple[int, float, bool]:
    split = split_of(node)
    return int(node["split_feature"]), split, _nan_goes_left(node, split)


def _by_set(node: Mapping[str, Any], sets: CategorySets) -> tuple[int, float, bool]:
    codes = map(int, str(node["threshold"]).split("||"))
    return sets.column(int(node["split_feature"]), codes), HALF, True


def split_of(node: Mapping[str, Any]) -> float:
    """Threshold that splits doubles as LightGBM does, which treats tiny values as 0."""
    if node["decision_type"] != "<=":
        raise ValueError(
            f"LightGBM split '{node['decision_type']}' cannot be exported exactly: encode categories as numbers first"
        )
    value = float(node["threshold"])
    if abs(value) >= _INFINITE:
        return math.copysign(math.inf, value)
    if abs(value) <= ZERO_THRESHOLD:
        return ZERO_THRESHOLD if value >= 0 else math.nextafter(-ZERO_THRESHOLD, -math.inf)
    return value


def _nan_goes_left(node: Mapping[str, Any], split: float) -> bool:
    """Whether a null takes the branch of `value <= split`."""
    if node["missing_type"] == "NaN":
        return bool(node["default_left"])
    if node["missing_type"] == "None":  # training saw no NaN here, and LightGBM then reads one as 0
        return split >= 0
    raise ValueError("LightGBM trained with zero_as_missing cannot be exported exactly: leave that parameter out")


def _scale(objective: str, task: Task) -> float:
    """Factor by which raw scores become log-odds (raises ValueError for objectives that have none)."""
    name, *options = objective.split()
    if task in ("binary", "multiclass") and name == "binary":
        sigmoid = [float(option.partition(":")[2]) for option in options if option.startswith("sigmoid:")]
        return sigmoid[0] if sigmoid else 1.0
    if task == "multiclass" and name == "multiclass":
        return 1.0
    if task == "regression" and name in ("regression", "regression_l1", "huber", "quantile") and "sqrt" not in options:
        return 1.0
    raise ValueError(
        f"LightGBM objective '{objective}' has no exact export for task '{task}'; use the default objective"
    )
