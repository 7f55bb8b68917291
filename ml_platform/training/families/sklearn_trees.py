"""Forests of scikit-learn: trees whose answers are averaged. They compare in float32 and are exported exactly."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.inference.explain import Tree, Trees
from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import BUILT_IN, Parameter
from ml_platform.spec.types import Task
from ml_platform.training.export.float32_splits import double_thresholds, in_float32_range
from ml_platform.training.export.onnx_trees import export_trees, tree_of_arrays
from ml_platform.training.families.base import EstimatorFamily, Validation
from ml_platform.training.families.boosting import threads_for

if TYPE_CHECKING:
    import optuna

_ONE_THREAD_CELLS = 100_000  # smaller matrices are faster without threads


class ForestFamily(EstimatorFamily):
    """What random forests and extra trees share. Their raw scores are probabilities, or the value."""

    def default_params(self, task: Task) -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {"n_estimators": 100, "max_leaf_nodes": 512, "min_samples_leaf": 5, "max_features": 0.4}

    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {
            "n_estimators": trial.suggest_int("n_estimators", 50, 200, step=50),
            "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 64, 2048, log=True),
            "min_samples_leaf": trial.suggest_int("min_samples_leaf", 1, 50, log=True),
            "max_features": trial.suggest_float("max_features", 0.1, 1.0),
        }

    def fit(
        self,
        estimator: Any,
        X: np.ndarray,
        y: np.ndarray,
        validation: Validation | None = None,  # noqa: ARG002
        *,
        weights: np.ndarray | None = None,
        validation_weights: np.ndarray | None = None,  # noqa: ARG002
    ) -> Any:
        """See `EstimatorFamily`; every tree has its own seed, so that threads change nothing."""
        estimator.set_params(n_jobs=threads_for(X, _ONE_THREAD_CELLS)).fit(
            in_float32_range(X), y, sample_weight=weights
        )
        return estimator.set_params(n_jobs=1)  # threads would add the trees' answers in another order each time

    undoes_class_weights = True

    def undo_class_weights(self, estimator: Any, class_weights: Sequence[float]) -> None:
        """See `EstimatorFamily`: in every leaf, so that a tree's answer is the share of each class there again."""
        for one in estimator.estimators_:
            values = one.tree_.value  # the tree's own memory: nodes × 1 × classes
            values /= np.array(class_weights)
            values /= values.sum(axis=2, keepdims=True)

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
        """See `EstimatorFamily`: the mean decrease of impurity by the feature's splits."""
        gains = estimator.feature_importances_.tolist()
        return dict(zip((feature.name for feature in features), gains, strict=True))

    def export(self, estimator: Any, task: Task, features: Sequence[Feature]) -> bytes:
        """See `EstimatorFamily`."""
        return export_trees(trees_of(estimator.estimators_, task), task, len(features))


class RandomForestFamily(ForestFamily):
    """Random forest: each tree of a bootstrap sample, the best of some features at each split."""

    info = BUILT_IN["random_forest"]

    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> Any:  # noqa: ARG002
        """See `EstimatorFamily`."""
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        chosen: dict[str, Any] = {"random_state": seed, **params}
        return RandomForestRegressor(**chosen) if task == "regression" else RandomForestClassifier(**chosen)


class ExtraTreesFamily(ForestFamily):
    """Extremely randomised trees: of all rows, the best of random thresholds at each split."""

    info = BUILT_IN["extra_trees"]

    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> Any:  # noqa: ARG002
        """See `EstimatorFamily`."""
        from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

        chosen: dict[str, Any] = {"random_state": seed, **params}
        return ExtraTreesRegressor(**chosen) if task == "regression" else ExtraTreesClassifier(**chosen)


def trees_of(estimators: Sequence[Any], task: Task) -> Trees:
    """Read fitted decision trees whose answers are averaged: a forest's, or one alone."""
    trees = [tree_of(one, task, 1 / len(estimators)) for one in estimators]
    targets = len(estimators[0].classes_) if task == "multiclass" else 1
    return Trees(targets=targets, trees=trees, probabilities=task != "regression")


def tree_of(estimator: Any, task: Task, share: float, target: int = 0) -> Tree:
    """Read one fitted decision tree, its values multiplied by `share`; of two classes those of the second count."""
    nodes = estimator.tree_.__getstate__()["nodes"]
    values = estimator.tree_.value[:, 0, :] * share  # nodes × classes, or × 1 for a regression
    return tree_of_arrays(
        nodes["left_child"],
        nodes["right_child"],
        feature=nodes["feature"],
        split=double_thresholds(nodes["threshold"]),
        nan_left=nodes["missing_go_to_left"],
        cover=nodes["weighted_n_node_samples"],
        value=values if task == "multiclass" else values[:, -1],
        target=target,
    )
