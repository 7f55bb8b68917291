"""XGBoost over several workers: trees on histograms that the workers sum up by XGBoost's own collective."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ml_platform.spec.types import Task
from ml_platform.training.export.float32_splits import in_float32_range
from ml_platform.training.families.shard_booster import AfterRound, RowsWithLabels, ShardBooster

if TYPE_CHECKING:
    import xgboost


class XGBoostShardBooster(ShardBooster):
    """Trees level by level; the quantiles of the features are found on all workers' rows together."""

    dtype: ClassVar[type[np.floating[Any]]] = np.float32  # which XGBoost works in

    def trainer(self) -> Any:
        """See `ShardBooster`."""
        from ray.train.xgboost import XGBoostTrainer

        return XGBoostTrainer

    def native_params(self, estimator: Any, task: Task, classes: int) -> dict[str, Any]:
        """See `ShardBooster`."""
        params = {name: value for name, value in estimator.get_xgb_params().items() if value is not None}
        params.pop("n_jobs", None)
        if task != "regression":
            params["objective"] = "binary:logistic" if classes == 2 else "multi:softprob"
            params |= {} if classes == 2 else {"num_class": classes}
        return params

    def prepare(self, X: np.ndarray) -> np.ndarray:
        """See `ShardBooster`."""
        return in_float32_range(X).astype(self.dtype)

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
        import xgboost

        class Watch(xgboost.callback.TrainingCallback):
            def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002
                losses = next(iter(evals_log["validation"].values())) if "validation" in evals_log else [None]
                return after_round(lambda: _bytes(model), losses[-1])

        kept = None if model is None else xgboost.Booster(model_file=bytearray(model))
        together = {**params, "nthread": threads}
        rows = xgboost.QuantileDMatrix(X, y, weight=weights, nthread=threads)
        evals = []
        if validation is not None:
            evals.append((xgboost.DMatrix(*validation, weight=validation_weights, nthread=threads), "validation"))
        booster = xgboost.train(
            together,
            rows,
            num_boost_round=rounds - (kept.num_boosted_rounds() if kept else 0),
            xgb_model=kept,
            evals=evals,
            callbacks=[Watch()],
            verbose_eval=False,
        )
        return _bytes(booster)

    def load(self, model: bytes, estimator: Any, task: Task, curve: Sequence[float]) -> Any:  # noqa: ARG002
        """See `ShardBooster`."""
        estimator.load_model(bytearray(model))
        estimator.evals_result_ = {"validation": {"loss": list(curve)}} if curve else {}
        return estimator


def _bytes(booster: "xgboost.Booster") -> bytes:
    return bytes(booster.save_raw("ubj"))
