"""LightGBM over several workers: trees on histograms that the workers sum up over LightGBM's own sockets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ml_platform.spec.types import Task
from ml_platform.training.families.shard_booster import AfterRound, RowsWithLabels, ShardBooster

if TYPE_CHECKING:
    import lightgbm

_WRAPPER = ("n_estimators", "class_weight", "importance_type", "n_jobs", "objective")  # of scikit-learn's interface
_MINUTES = 10  # until a worker that waits for the others' sums gives up


class LightGBMShardBooster(ShardBooster):
    """Data-parallel trees; each worker finds the bins of some features on its own rows, and tells the others."""

    def trainer(self) -> Any:
        """See `ShardBooster`."""
        from ray.train.lightgbm import LightGBMTrainer

        return LightGBMTrainer

    def native_params(self, estimator: Any, task: Task, classes: int) -> dict[str, Any]:
        """See `ShardBooster`."""
        given = estimator.get_params()
        params = {name: value for name, value in given.items() if name not in _WRAPPER and value is not None}
        if given.get("objective"):
            return {**params, "objective": given["objective"]}
        if task == "regression":
            return {**params, "objective": "regression"}
        if classes == 2:
            return {**params, "objective": "binary"}
        return {**params, "objective": "multiclass", "num_class": classes}

    def prepare(self, X: np.ndarray) -> np.ndarray:
        """See `ShardBooster`."""
        return X

    def boost(
        self,
        params: Mapping[str, Any],
        X: np.ndarray,
        y: np.ndarray,
        validation: RowsWithLabels | None = None,
        *,
        weights: np.ndarray | None = None,
        validation_weights: np.ndarray | None = None,
        rounds: int,
        threads: int,
        model: bytes | None = None,
        after_round: AfterRound,
    ) -> bytes:
        """See `ShardBooster`."""
        import lightgbm
        from lightgbm.callback import CallbackEnv, EarlyStopException

        kept = None if model is None else lightgbm.Booster(model_str=model.decode())
        together = {
            **params,
            **_network(),
            "tree_learner": "data",
            "pre_partition": True,
            "num_threads": threads,
            "time_out": _MINUTES,
        }

        def watch(env: CallbackEnv) -> None:
            results = env.evaluation_result_list
            if after_round(lambda: _bytes(env.model), results[0][2] if results else None):
                raise EarlyStopException(env.iteration, results or [])

        rows = lightgbm.Dataset(X, y, weight=weights, params=together)
        later = None
        if validation is not None:
            later = [lightgbm.Dataset(*validation, weight=validation_weights, reference=rows, params=together)]
        booster = lightgbm.train(
            together,
            rows,
            num_boost_round=rounds - (kept.current_iteration() if kept else 0),
            init_model=kept,
            valid_sets=later,
            callbacks=[watch],
        )
        _CONNECTED.extend([] if _CONNECTED else [booster])
        return _bytes(booster)

    def load(self, model: bytes, estimator: Any, task: Task, curve: Sequence[float]) -> Any:  # noqa: ARG002
        """See `ShardBooster`."""
        import lightgbm

        return LoadedBooster(
            lightgbm.Booster(model_str=model.decode()),
            n_estimators_=int(estimator.n_estimators),
            evals_result_={"validation": {"loss": list(curve)}} if curve else {},
        )


@dataclass(frozen=True)
class LoadedBooster:
    """A booster with what the family asks of its estimators; LightGBM's own have no way in for a model."""

    booster_: "lightgbm.Booster"
    n_estimators_: int
    evals_result_: dict[str, dict[str, list[float]]]
    best_iteration_: ClassVar[int] = 0

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Values (rows,)."""
        return np.asarray(self.booster_.predict(X))

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities (rows × classes)."""
        scores = self.predict(X)
        return np.column_stack([1 - scores, scores]) if scores.ndim == 1 else scores


def _bytes(booster: "lightgbm.Booster") -> bytes:
    text: str = booster.model_to_string(num_iteration=-1)
    return text.encode()


_CONNECTED: "list[lightgbm.Booster]" = []  # holds the connections of this process, and ends them when it is freed


def _network() -> dict[str, Any]:
    """Parameters that connect this worker with the others; later boosters use the connections of the first."""
    from ray.train.lightgbm import get_network_params

    network = get_network_params()
    return {"num_machines": network["num_machines"]} if _CONNECTED else network
