"""What each worker does: read its rows, find the number of rounds with the others, fit, keep the model meanwhile."""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml_platform.training.distributed.fit_state import FitState
from ml_platform.training.distributed.plan import FitPlan
from ml_platform.training.distributed.shard import Shard, read_shard, read_stopping_rows
from ml_platform.training.families.boosting import EARLY_STOPPING_ROUNDS, MAX_ROUNDS
from ml_platform.training.families.registry import get_family

if TYPE_CHECKING:
    from ray.train import Checkpoint

KEPT_EVERY: Final = 20  # rounds after which the model is kept, from where a fit goes on whose worker died


def train_shard(config: dict[str, Any]) -> None:
    """Train as one of the workers; the last checkpoint that is reported has the model.

    Parameters
    ----------
    config
        `plan`: the `FitPlan`.
    """
    import ray.train

    plan: FitPlan = config["plan"]
    family, spec = get_family(plan.family), plan.stored.spec
    booster = family.shard_booster()
    rank = ray.train.get_context().get_world_rank()
    state = _resumed(ray.train.get_checkpoint(), plan)
    settings: dict[str, Any] = dict(plan.params)
    if spec.quantile is not None:
        settings |= family.quantile_params(spec.quantile)
    if any(plan.monotone):
        settings |= family.monotone_params(plan.monotone)
    estimator = family.build(spec.task, plan.features, settings, spec.tuning.seed)
    params = booster.native_params(estimator, spec.task, plan.class_count)
    shard = read_shard(plan, plan.shards[rank], booster)

    def boost(state: FitState, rows: Shard, stopping: Shard | None, rounds: int) -> FitState:
        watch = _Watch(state, rounds, rank, has_losses=stopping is not None)
        model = booster.boost(
            params,
            rows.X,
            rows.y,
            None if stopping is None else (stopping.X, stopping.y),
            weights=rows.weights,
            validation_weights=None if stopping is None else stopping.weights,
            rounds=rounds,
            threads=plan.cpus,
            model=state.model or None,
            after_round=watch.after_round,
        )
        return replace(state, curve=watch.curve, model=model)

    if state.stage == "rounds":
        stopping = read_stopping_rows(plan, booster)
        first = slice(0, shard.first)
        weights = None if shard.weights is None else shard.weights[first]
        rows = Shard(shard.X[first], shard.y[first], weights, shard.first)
        sought = boost(state, rows, stopping, MAX_ROUNDS)
        found = int(np.argmin(sought.curve)) + 1 if sought.curve else MAX_ROUNDS
        state = FitState("fit", rounds=_from_first(found), curve=sought.curve)
        del stopping, rows
    if state.stage == "fit":
        state = replace(boost(state, shard, None, state.rounds), stage="done")
    _report(state, rank)


class _Watch:
    """Counts rounds, keeps the model now and then, and has all workers stop at the same round."""

    def __init__(self, state: FitState, rounds: int, rank: int, *, has_losses: bool) -> None:
        self.curve = list(state.curve)
        self._state, self._rounds, self._rank, self._has_losses = state, rounds, rank, has_losses
        self._done = 0

    def after_round(self, save: Callable[[], bytes], loss: float | None) -> bool:
        """See `AfterRound`."""
        self._done += 1
        if loss is not None:
            self.curve.append(float(loss))
        if self._done % KEPT_EVERY:
            return False
        # The first worker decides for all: were each to go by its own loss, a last bit could part them for good.
        stops = bool(_from_first(self._has_losses and is_past_best(self.curve)))
        if not stops:
            _report(replace(self._state, curve=self.curve, model=save() if self._rank == 0 else b""), self._rank)
        return stops


def is_past_best(curve: Sequence[float]) -> bool:
    """Whether no round of late was better than the best before.

    Examples
    --------
    >>> is_past_best([0.5, 0.4] + [0.41] * 25), is_past_best([0.5] + [0.4] * 24)
    (True, False)
    """
    return bool(curve) and len(curve) - 1 - int(np.argmin(curve)) >= EARLY_STOPPING_ROUNDS


def _resumed(checkpoint: "Checkpoint | None", plan: FitPlan) -> FitState:
    if checkpoint is None:
        if plan.stop_on is None:
            return FitState("fit", rounds=int(plan.params.get("n_estimators", MAX_ROUNDS)))
        return FitState("rounds")
    with checkpoint.as_directory() as folder:
        return FitState.read(Path(folder))


def _report(state: FitState, rank: int) -> None:
    """Keep the state; all workers wait here for each other."""
    import ray.train

    metrics = {"stage": state.stage, "rounds": state.rounds, "pid": os.getpid()}
    if rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        state.write(Path(folder))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _from_first(value: int) -> int:
    """Give the first worker's value to all."""
    from ray.train.collective import broadcast_from_rank_zero

    return int(broadcast_from_rank_zero(int(value)))
