"""A worker's part of the rows: read from the lake a batch at a time, straight into the matrix that is fitted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ml_platform.inference.matrix import FeatureEncoder, encode_labels
from ml_platform.training.distributed.plan import FitPlan, Part
from ml_platform.training.distributed.slices import read_slices
from ml_platform.training.distributed.statistics import fit_columns
from ml_platform.training.families.shard_booster import ShardBooster
from ml_platform.training.objective import Objective, row_weights, weighted_rows


@dataclass(frozen=True)
class Shard:
    """Rows of a fit.

    Attributes
    ----------
    X, y
        Rows × features, as the booster reads them, and labels (rows,).
    weights
        Of the rows, as all workers' have a mean of 1; None for one each.
    first
        How many rows come before those of the last part.
    """

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None
    first: int


def read_shard(plan: FitPlan, parts: Sequence[Part], booster: ShardBooster) -> Shard:
    """Read parts one after the other into one matrix (raises ValueError where there are other rows than counted)."""
    count = sum(part.count for part in parts)
    X = np.empty((count, len(plan.features)), dtype=booster.dtype)
    y, weights, place = np.empty(count), np.empty(count), 0
    is_weighted = plan.stored.spec.weight is not None or plan.class_weights is not None
    for part in parts:
        for _, frame in _batches(plan, part):
            rows = slice(place, place + frame.height)
            place = rows.stop
            if place > count:
                break
            X[rows], y[rows], weights[rows] = _encoded(plan, frame, booster)
    if place != count:
        raise ValueError(
            f"version {plan.stored.ref.version} of {plan.stored.ref.table}: {count:,} rows were counted, {place:,} "
            "are there; nobody may change files of a table"
        )
    last = parts[-1].count if len(parts) > 1 else 0
    return Shard(X, y, weights / plan.mean_weight if is_weighted else None, count - last)


def read_stopping_rows(plan: FitPlan, booster: ShardBooster) -> Shard | None:
    """Read the rows to stop on, the same on all workers; None where no row can say when to stop."""
    stop_on = plan.stop_on
    if stop_on is None:
        return None
    matrices, labels, all_weights, place = [], [], [], 0
    for _, frame in _batches(plan, stop_on.part):
        chosen = frame.gather_every(stop_on.every, -place % stop_on.every)
        place += frame.height
        X, y, weights = _encoded(plan, chosen, booster)
        usable = (weights > 0) & (y >= 0)  # not of a class that no training row has
        matrices.append(X[usable])
        labels.append(y[usable])
        all_weights.append(weights[usable])
    y, weights = np.concatenate([np.empty(0), *labels]), np.concatenate([np.empty(0), *all_weights])
    if not len(y):
        return None
    return Shard(np.vstack(matrices), y, None if (weights == 1).all() else weights / weights.mean(), len(y))


def _batches(plan: FitPlan, part: Part) -> Iterator[tuple[int, pl.DataFrame]]:
    """Rows of a part that count, in batches."""
    stored, spec = plan.stored, plan.stored.spec
    columns = [*fit_columns(spec), *(feature.name for feature in plan.features)]
    for position, frame in read_slices(stored.lake, stored.ref.table, part.slices, columns):
        rows = weighted_rows(frame, spec).filter(part.rows.where(spec))
        if rows.height:
            yield position, rows


def _encoded(plan: FitPlan, frame: pl.DataFrame, booster: ShardBooster) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrix, labels and weights (those of classes included) of some rows."""
    spec = plan.stored.spec
    y = encode_labels(frame.get_column(spec.target), spec, plan.classes)
    weights = Objective(class_weights=plan.class_weights).combined(y, row_weights(frame, spec))
    X = booster.prepare(FeatureEncoder(plan.features).transform(frame))
    return X, y, np.ones(len(y)) if weights is None else weights
