"""One process or several: the rows say which, by whether they stay in the lake."""

from collections.abc import Mapping

import polars as pl

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.spec.families import Parameter
from ml_platform.spec.model import ModelSpec
from ml_platform.training.candidate_fit import Fitted, fit_candidate
from ml_platform.training.data.cuts import refit_range
from ml_platform.training.data.split import TrainingRows, refit_rows
from ml_platform.training.distributed.fit import fit_stored
from ml_platform.training.documents import DistributedFit


def fit_before_holdout(rows: TrainingRows, spec: ModelSpec, family: str, params: Mapping[str, Parameter]) -> Fitted:
    """Train a family on the training and validation parts.

    Raises
    ------
    ValueError
        See `fit_candidate`.
    WorkersFailed
        See `fit_stored`.
    """
    if rows.stored is None or rows.cuts is None:
        before = pl.concat([rows.parts.train, rows.parts.validation])
        return fit_candidate(spec, rows.ref.features, before, family, params)
    ranges = [rows.cuts.train, rows.cuts.validation]
    return fit_stored(rows.stored, ranges, family, params, seeks_rounds=seeks_rounds(rows))


def fit_before_validation(rows: TrainingRows, spec: ModelSpec, family: str, params: Mapping[str, Parameter]) -> Fitted:
    """Train a family on the training part alone (raises as `fit_before_holdout` does)."""
    if rows.stored is None or rows.cuts is None:
        return fit_candidate(spec, rows.ref.features, rows.parts.train, family, params)
    return fit_stored(rows.stored, [rows.cuts.train], family, params, seeks_rounds=False)


def seeks_rounds(rows: TrainingRows) -> bool:
    """Whether the search, which saw the newest training rows alone, cannot know how many rounds all of them take."""
    return rows.stored is not None and rows.parts.train.height < rows.parts.bounds.train.rows


def fit_again(
    rows: pl.DataFrame | TrainingRows,
    spec: ModelSpec,
    ref: TrainingSetRef,
    family: str,
    params: Mapping[str, Parameter],
) -> Fitted:
    """Train a family on all labelled rows, see `refit_rows` (raises as `fit_before_holdout` does)."""
    if isinstance(rows, pl.DataFrame):
        return fit_candidate(spec, ref.features, refit_rows(rows, spec), family, params)
    if rows.stored is None:
        raise ValueError(f"{spec.name}: the parts of a training set lack the rows of its gaps; give the whole set")
    newest = rows.parts.bounds.holdout.last
    return fit_stored(rows.stored, [refit_range(newest, spec)], family, params, seeks_rounds=False)


def distributed_settings(fit: DistributedFit | None) -> dict[str, object]:
    """Parameters of a run by which several workers trained."""
    if fit is None:
        return {}
    return {
        "workers": fit.workers,
        "cpus_per_worker": fit.cpus_per_worker,
        "workers_ran": "on a cluster of Ray" if fit.executor == "cluster" else "on one machine",
        "rows_of_workers": ", ".join(map(str, fit.rows)),
    }
