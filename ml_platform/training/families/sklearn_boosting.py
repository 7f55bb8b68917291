"""Histogram gradient boosting of scikit-learn, without its categorical splits; compared and exported in double."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_platform.inference.explain import Tree, Trees
from ml_platform.registry.manifest import Feature
from ml_platform.spec.families import BUILT_IN, Parameter
from ml_platform.spec.types import Task
from ml_platform.training.export.onnx_trees import constant_tree, export_trees, halved, tree_of_arrays
from ml_platform.training.families.base import EstimatorFamily, Validation
from ml_platform.training.families.boosting import EARLY_STOPPING_ROUNDS, MAX_ROUNDS

if TYPE_CHECKING:
    import optuna


class HistGradientBoostingFamily(EstimatorFamily):
    """Boosted trees of binned features. One thread fits: more would add gradients in another order each time."""

    info = BUILT_IN["hist_gradient_boosting"]

    def default_params(self, task: Task) -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {
            "learning_rate": 0.1,
            "max_leaf_nodes": 31,
            "min_samples_leaf": 50,
            "l2_regularization": 1.0,
            "max_features": 0.8,
        }

    def suggest(self, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:  # noqa: ARG002
        """See `EstimatorFamily`."""
        return {
            "learning_rate": trial.suggest_float("learning_rate", 0.04, 0.25, log=True),
            "max_leaf_nodes": trial.suggest_int("max_leaf_nodes", 15, 95, log=True),
            "min_samples_leaf": trial.suggest_int("min_samples_leaf", 20, 400, log=True),
            "l2_regularization": trial.suggest_float("l2_regularization", 0.01, 30.0, log=True),
            "max_features": trial.suggest_float("max_features", 0.3, 1.0),
        }

    def build(self, task: Task, features: Sequence[Feature], params: Mapping[str, Parameter], seed: int) -> Any:  # noqa: ARG002
        """See `EstimatorFamily`; `params` may have `max_iter`, else there are up to `MAX_ROUNDS`."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        chosen: dict[str, Any] = {
            "max_iter": MAX_ROUNDS,
            "random_state": seed,
            "categorical_features": None,
            "n_iter_no_change": EARLY_STOPPING_ROUNDS,
            **params,
        }
        regression = task == "regression"
        return HistGradientBoostingRegressor(**chosen) if regression else HistGradientBoostingClassifier(**chosen)

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
        """See `EstimatorFamily`; of the rounds until it stopped early, those up to the best are kept."""
        from threadpoolctl import threadpool_limits

        X_val, y_val = validation or (None, None)
        X = np.where(np.isnan(X).all(axis=0), 0.0, X)  # it cannot bin a column without any value
        estimator.set_params(early_stopping=validation is not None)
        with threadpool_limits(1, "openmp"):
            estimator.fit(X, y, sample_weight=weights, X_val=X_val, y_val=y_val, sample_weight_val=validation_weights)
        if validation is not None:
            best = int(np.argmax(estimator.validation_score_))  # the first is of no round at all
            del estimator._predictors[max(1, best) :]
        return estimator

    def quantile_params(self, quantile: float) -> dict[str, Any]:
        """See `EstimatorFamily`."""
        return {"loss": "quantile", "quantile": quantile}

    def monotone_params(self, signs: Sequence[int]) -> dict[str, Any]:
        """See `EstimatorFamily`."""
        return {"monotonic_cst": list(signs)}

    def fitted_params(self, estimator: Any, params: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """See `EstimatorFamily`: with the number of rounds kept."""
        return {**params, "max_iter": int(estimator.n_iter_)}

    def learning_curve(self, estimator: Any) -> tuple[float, ...]:
        """See `EstimatorFamily`."""
        return tuple((-np.asarray(estimator.validation_score_)[1:]).tolist())  # the first is of no round at all

    def importance(
        self,
        estimator: Any,
        task: Task,  # noqa: ARG002
        features: Sequence[Feature],
        X: np.ndarray,  # noqa: ARG002
    ) -> dict[str, float]:
        """See `EstimatorFamily`: the total gain of the feature's splits."""
        gains = np.zeros(len(features))
        for nodes in (one.nodes for trees in estimator._predictors for one in trees):
            inner = nodes[nodes["is_leaf"] == 0]
            np.add.at(gains, inner["feature_idx"], inner["gain"])
        return dict(zip((feature.name for feature in features), gains.tolist(), strict=True))

    def export(self, estimator: Any, task: Task, features: Sequence[Feature]) -> bytes:
        """See `EstimatorFamily`.

        Raises
        ------
        ValueError
            For trees that split a feature by sets of categories.
        """
        return export_trees(trees_of(estimator, task), task, len(features))


def trees_of(estimator: Any, task: Task) -> Trees:
    """Read a fitted estimator's trees, with log-odds or the value as raw scores (raises ValueError, see `export`)."""
    start = estimator._baseline_prediction.ravel()
    trees = [constant_tree(float(value), target) for target, value in enumerate(start)]
    trees += [_tree(one.nodes, target) for stage in estimator._predictors for target, one in enumerate(stage)]
    if task == "multiclass" and len(start) == 1:
        return halved(trees)
    return Trees(targets=len(start), trees=trees)


def _tree(nodes: np.ndarray, target: int) -> Tree:
    if nodes["is_categorical"].any():
        raise ValueError(
            "HistGradientBoosting with categorical_features cannot be exported exactly: encode categories as numbers"
        )
    return tree_of_arrays(
        np.where(nodes["is_leaf"] == 1, -1, nodes["left"].astype(np.int64)),
        nodes["right"],
        feature=nodes["feature_idx"],
        split=nodes["num_threshold"],
        nan_left=nodes["missing_go_to_left"],
        cover=nodes["count"],
        value=nodes["value"],
        target=target,
    )
