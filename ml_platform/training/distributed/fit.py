"""Trains a family over several workers of Ray Train, on rows that stay in the lake until a worker reads its own."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl

from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.spec.families import Parameter
from ml_platform.training.candidate_fit import ROUNDS, Fitted, single_class
from ml_platform.training.data.cuts import RowRange
from ml_platform.training.data.stored_rows import StoredRows
from ml_platform.training.distributed.plan import FitPlan, Part, StopOn
from ml_platform.training.distributed.ray_train import run_workers
from ml_platform.training.distributed.slices import Slice, read_slices, share_out, slices_of
from ml_platform.training.distributed.statistics import RowStatistics, fit_columns, row_statistics
from ml_platform.training.documents import DistributedFit
from ml_platform.training.families.registry import get_family
from ml_platform.training.objective import class_weights_of, monotone_signs

STOPPING_ROWS: Final = 100_000  # of the validation part, that each worker holds to find the number of rounds by
_SAMPLE_ROWS, _SAMPLED_SLICES = 20_000, 64


def fit_stored(
    stored: StoredRows,
    ranges: Sequence[RowRange],
    family: str,
    params: Mapping[str, Parameter],
    *,
    seeks_rounds: bool,
) -> Fitted:
    """Train a family over the workers of the spec, on all rows of some ranges.

    This process reads the labels, weights and categorical features once, a batch at a time, and a sample for the
    comparison with the export. The matrix is made by the workers, each of its own rows.

    Parameters
    ----------
    stored
        The training set.
    ranges
        Rows to train on, which do not overlap; those of weight 0 are left out.
    family, params
        As a candidate of the search has them.
    seeks_rounds
        Find the number of rounds anew: by early stopping on the last range, after training on the others. Else it is
        that of the parameters.

    Raises
    ------
    ValueError
        When a label is not one of the task's, all rows have the same class, or there are too few rows to share.
    WorkersFailed
        When the workers were not there, or failed too often.
    """
    spec, training = stored.spec, stored.spec.training
    plan, found = plan_fit(stored, ranges, family, params, seeks_rounds=seeks_rounds)
    outcome = run_workers(plan)
    adapter, state = get_family(family), outcome.state
    estimator = adapter.build(spec.task, plan.features, {**plan.params, ROUNDS: state.rounds}, spec.tuning.seed)
    encoder = FeatureEncoder(plan.features)
    return Fitted(
        family=family,
        estimator=adapter.shard_booster().load(state.model, estimator, spec.task, state.curve),
        encoder=encoder,
        classes=plan.classes,
        X=_sample(stored, encoder, ranges, found),
        trained=found.window,
        spec=spec,
        class_weights=plan.class_weights,
        distributed=DistributedFit(
            workers=training.workers,
            cpus_per_worker=training.cpus_per_worker,
            executor=outcome.executor,
            rows=tuple(sum(part.count for part in shard) for shard in plan.shards),
            rounds=state.rounds,
            sought_rounds=len(state.curve),
        ),
    )


def plan_fit(
    stored: StoredRows,
    ranges: Sequence[RowRange],
    family: str,
    params: Mapping[str, Parameter],
    *,
    seeks_rounds: bool,
) -> tuple[FitPlan, RowStatistics]:
    """Share the rows out, and find what workers must know of all of them; see `fit_stored`."""
    spec, training = stored.spec, stored.spec.training
    slices = slices_of(stored.lake, stored.ref.table, stored.ref.version, workers=training.workers)
    found = row_statistics(stored, slices, ranges)
    if spec.task != "regression" and len(found.labels) < 2:
        raise single_class(spec, found.rows)
    encoder = found.encoder(stored)
    parts = [_shares(rows, slices, counts, training.workers) for rows, counts in zip(ranges, found.counts, strict=True)]
    if fewest := [part for part in parts[0] if not part.count]:
        raise ValueError(
            f"{spec.name}: the training part has {found.counts[0].sum():,} rows in {np.count_nonzero(found.counts[0])} "
            f"slices, too few for {training.workers} workers ({len(fewest)} would have none); set a lower "
            "`training.workers`"
        )
    weights = _class_weights(found, stored)
    plan = FitPlan(
        stored=stored,
        family=family,
        params={name: value for name, value in params.items() if not (seeks_rounds and name == ROUNDS)},
        features=encoder.features,
        classes=found.labels if spec.task == "multiclass" else (),
        shards=tuple(zip(*parts, strict=True)),
        class_weights=weights,
        mean_weight=_mean_weight(found, weights),
        stop_on=_stop_on(ranges[-1], slices, found.counts[-1]) if seeks_rounds else None,
        monotone=monotone_signs(spec.monotone, encoder.features),
        cpus=training.cpus_per_worker,
    )
    return plan, found


def _shares(rows: RowRange, slices: Sequence[Slice], counts: np.ndarray, workers: int) -> list[Part]:
    """Each worker's part of a range."""
    return [
        Part(rows, tuple(slices[position] for position in share), int(counts[share].sum()))
        for share in share_out(counts.tolist(), workers)
    ]


def _stop_on(rows: RowRange, slices: Sequence[Slice], counts: np.ndarray) -> StopOn:
    count = int(counts.sum())
    own = tuple(slices[position] for position in np.flatnonzero(counts).tolist())
    return StopOn(Part(rows, own, count), every=max(1, math.ceil(count / STOPPING_ROWS)))


def _class_weights(found: RowStatistics, stored: StoredRows) -> tuple[float, ...] | None:
    if stored.spec.class_weights is None:
        return None
    totals = np.array([found.label_weights[label] for label in found.labels])
    return class_weights_of(stored.spec, totals, found.labels)


def _mean_weight(found: RowStatistics, class_weights: tuple[float, ...] | None) -> float:
    """Mean of what each row weighs, its class's weight included."""
    if class_weights is None:
        return found.weight_sum / found.rows
    totals = [found.label_weights[label] for label in found.labels]
    return float(np.dot(totals, class_weights)) / found.rows


def _sample(
    stored: StoredRows, encoder: FeatureEncoder, ranges: Sequence[RowRange], found: RowStatistics
) -> np.ndarray:
    """Matrix of some rows of the whole span of time, to compare the export on."""
    filled = np.flatnonzero(found.counts.sum(axis=0))
    chosen = filled[:: math.ceil(len(filled) / _SAMPLED_SLICES)].tolist()
    each, frames = math.ceil(_SAMPLE_ROWS / len(chosen)), []
    columns = [*fit_columns(stored.spec), *(feature.name for feature in encoder.features)]
    for position in chosen:
        one = [found.slices[position]]
        for _, batch in read_slices(stored.lake, stored.ref.table, one, columns):
            rows = pl.concat([batch.filter(part.where(stored.spec)) for part in ranges])
            if rows.height:  # else those of the slice come later
                frames.append(rows.gather_every(max(1, rows.height // each)))
                break
    return encoder.transform(pl.concat(frames))
