"""After the gate: the model that passed, fitted again on all labelled rows, so that it knows the newest ones too.

The gate's judgement is about the way of making the model: family, parameters, features. The refit is made the same way
of more rows, and nothing new can be measured of it, since it has seen every label. So it is only held to be what it
should be: its export answers as it does, it agrees with the judged model on the holdout, and is no worse there.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from ml_platform.code_version import code_version as current_code_version
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.batch import score_frame
from ml_platform.inference.calibration import for_classes
from ml_platform.inference.matrix import encode_labels
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.logged_model import log_model
from ml_platform.registry.manifest import Judged
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.spec.model import ModelSpec
from ml_platform.training.artifacts.bundle import build_provenance, build_signature, iso, store_bundle
from ml_platform.training.candidate_fit import NotExportable
from ml_platform.training.data.split import TrainingRows, split_by_time
from ml_platform.training.distributed.choice import distributed_settings, fit_again
from ml_platform.training.documents import Evaluation, Refit, TrainedModel
from ml_platform.training.evaluation.metrics import gain, measure
from ml_platform.training.evaluation.rule import seed_noise
from ml_platform.training.recipe import FILE, Recipe, store_recipe


def refit_model(
    rows: pl.DataFrame | TrainingRows,
    spec: ModelSpec,
    judged: TrainedModel,
    evaluation: Evaluation,
    *,
    folder: Path,
    views: Mapping[str, FeatureView],
    store: ReleaseStore,
    tracker: Tracker,
    dagster_run_id: str | None = None,
) -> TrainedModel:
    """Fit a judged model again on all labelled rows, if it passed the gate and the spec wants that.

    Family, parameters (the number of trees included), seed and threshold are the judged model's; categories are learned
    anew. Metrics and importance tables of the holdout stay the judged model's own.

    Parameters
    ----------
    rows
        The judged model's training set: all of it, or the one that was read for training where it stays in the lake.
    spec
        The model.
    judged
        What the gate judged.
    evaluation
        What it found.
    folder
        Where `spec.request_features` is.
    views
        Feature views by name.
    store
        Gets the bundle.
    tracker
        Where the refit is a run.
    dagster_run_id
        Run that refits, for provenance.

    Returns
    -------
    TrainedModel
        What to register. `refit` says whether it is the refit, with the reasons why not: the gate refused the model,
        `promotion.refit` is false, or the refit is not what it should be.

    Raises
    ------
    ValueError
        When the evaluation is of another bundle, or a feature view changed since the training set was made.
    """
    if evaluation.challenger_digest != judged.digest:
        raise ValueError(
            f"{spec.name}: the evaluation is of bundle {evaluation.challenger_digest[:12]}, the trained model is "
            f"{judged.digest[:12]}; materialise the evaluation again"
        )

    def unchanged(reason: str, agreement: float | None = None) -> TrainedModel:
        return judged.model_copy(update={"refit": _document(judged, False, agreement, reason)})

    if not evaluation.promote:
        return unchanged("The gate refused the model, so it was not fitted again.")
    if not spec.promotion.refit:
        return unchanged("promotion.refit is false: the judged model itself is registered.")
    started = time.perf_counter()
    code, ref = current_code_version(), judged.training_set
    holdout = (rows.parts if isinstance(rows, TrainingRows) else split_by_time(rows, spec)).holdout
    signature = build_signature(spec, folder, views, ref, holdout)
    tags = {"stage": "refit", "code_version": code, "judged_digest": judged.digest, "judged_run": judged.run_id}
    tags |= {"dagster_run_id": dagster_run_id} if dagster_run_id else {}
    with tracker.run(spec.name, f"refit {judged.family}", tags=tags) as run_id:
        tracker.log(run_id, params={"family": judged.family, **judged.params, "threshold": judged.threshold})
        fitted = fit_again(rows, spec, ref, judged.family, judged.params)
        tracker.log(run_id, params=distributed_settings(fitted.distributed))
        predecessor = store.load_manifest(judged.digest)
        calibration = for_classes(predecessor.calibration, predecessor.classes, fitted.classes)
        fitted = replace(fitted, calibration=calibration)
        try:
            onnx, parity = fitted.export()
        except NotExportable as error:
            tracker.log(run_id, tags={"refused": str(error)})
            return unchanged(f"The refit cannot be exported ({error}): the judged model itself is registered.")
        importance = fitted.importance()
        provenance = Judged(
            digest=judged.digest,
            model_digest=judged.model_digest,
            trained_until=iso(judged.trained.last),
            holdout_from=iso(judged.bounds.holdout.first),
            holdout_until=iso(judged.bounds.holdout.last),
        )
        bundle = store_bundle(
            fitted,
            onnx,
            signature,
            holdout,
            store,
            threshold=judged.threshold,
            importance=importance,
            metrics=judged.metrics,
            holdout_error=predecessor.holdout_error,
            reliability=predecessor.reliability,
            conformal=predecessor.conformal,
            provenance=build_provenance(
                ref,
                fitted.trained,
                code_version=code,
                run_id=run_id,
                dagster_run_id=dagster_run_id,
                judged=provenance,
                distributed=fitted.distributed,
            ),
        )
        agreement, problem = _compare(spec, holdout, Scorer.load(store.bundle_path(judged.digest)), bundle.scorer)
        tracker.log(run_id, metrics={"agreement": agreement}, tags={"bundle_digest": bundle.digest})
        if problem:
            tracker.log(run_id, tags={"refused": problem})
            return unchanged(f"{problem}: the judged model itself is registered.", agreement)
        recipe = Recipe.of(
            "refit",
            spec,
            folder,
            views,
            ref,
            bounds=judged.bounds,
            trained=fitted.trained,
            family=judged.family,
            params=judged.params,
            threshold=judged.threshold,
            metrics=judged.metrics,
            judged_digest=judged.digest,
        )
        tracker.log_files(run_id, {FILE: store_recipe(store, bundle.digest, recipe)})
        model_uri = log_model(tracker, run_id, onnx, bundle.manifest, example=bundle.example)
    reason = (
        f"Fitted again on {fitted.trained.rows:,} rows up to {fitted.trained.last:%Y-%m-%d %H:%M}, where the judged "
        f"model had {judged.trained.rows:,} up to {judged.trained.last:%Y-%m-%d %H:%M}; on the holdout both agree "
        f"(concordance {agreement:.3f}, {spec.promotion.min_agreement:g} wanted)."
    )
    return judged.model_copy(
        update={
            "digest": bundle.digest,
            "model_digest": bundle.manifest.model_digest,
            "run_id": run_id,
            "run_url": tracker.run_url(run_id),
            "model_uri": model_uri,
            "trained": fitted.trained,
            "importance": importance,
            "parity": parity,
            "code_version": code,
            "dagster_run_id": dagster_run_id,
            "seconds": time.perf_counter() - started,
            "distributed": fitted.distributed,
            "refit": _document(judged, True, agreement, reason),
        }
    )


def concordance(one: np.ndarray, other: np.ndarray) -> float:
    """Lin's concordance correlation of two sets of scores: 1 for the same scores, 0 for unrelated ones.

    Examples
    --------
    >>> concordance(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
    1.0
    >>> concordance(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0])).__round__(2)
    0.57
    """
    apart = one.var() + other.var() + (one.mean() - other.mean()) ** 2
    if apart == 0:
        return 1.0
    return float(2 * ((one - one.mean()) * (other - other.mean())).mean() / apart)


def _compare(spec: ModelSpec, holdout: pl.DataFrame, judged: Scorer, refit: Scorer) -> tuple[float, str | None]:
    """Agreement of both models' scores on the holdout, and what is wrong with the refit, if anything."""
    scores = [score_frame(scorer, holdout) for scorer in (judged, refit)]
    classes = judged.manifest.classes
    if spec.task == "multiclass":  # of which the refit may know more
        scores[1] = np.column_stack([scores[1][:, refit.manifest.classes.index(name)] for name in classes])
    agreement = concordance(*(score.ravel() for score in scores))
    if not agreement >= spec.promotion.min_agreement:
        return agreement, (
            f"The refit does not agree with the judged model on the holdout (concordance {agreement:.3f}, "
            f"promotion.min_agreement is {spec.promotion.min_agreement:g})"
        )
    y = encode_labels(holdout.get_column(spec.target), spec, classes)
    values = [
        measure(spec.task, y, score, threshold=judged.manifest.threshold, quantile=spec.quantile).get(
            spec.metric, np.nan
        )
        for score in scores
    ]
    lost, noise = -gain(spec.metric, values[1], values[0]), seed_noise(spec.metric, values[0])
    if lost > noise:
        return agreement, (
            f"The refit, which has learned from the holdout rows, is worse on them than the judged model "
            f"({spec.metric} {values[1]:.4f} against {values[0]:.4f})"
        )
    return agreement, None


def _document(judged: TrainedModel, refitted: bool, agreement: float | None, reason: str) -> Refit:
    return Refit(
        judged_digest=judged.digest,
        judged_model_digest=judged.model_digest,
        judged=judged.trained,
        refitted=refitted,
        agreement=agreement,
        reasons=(reason,),
    )
