"""Train the best candidate on all rows before the holdout, export it, check the export, and store it as a bundle."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from ml_platform.code_version import code_version as current_code_version
from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.matrix import encode_labels
from ml_platform.registry.logged_model import log_model
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import PLOTS, Tracker
from ml_platform.spec.model import ModelSpec
from ml_platform.training.artifacts.bundle import Signature, build_provenance, build_signature, store_bundle
from ml_platform.training.artifacts.plots import model_plots
from ml_platform.training.candidate_fit import ROUNDS, Fitted, NotExportable
from ml_platform.training.data.split import TrainingRows
from ml_platform.training.distributed.choice import distributed_settings, fit_before_holdout, seeks_rounds
from ml_platform.training.documents import PassedOver, SearchResult, TrainedModel, Trial
from ml_platform.training.evaluation.blocks import DAY, block_ids
from ml_platform.training.evaluation.calibration import expected_calibration_error, reliability_of
from ml_platform.training.evaluation.metric_errors import holdout_error
from ml_platform.training.evaluation.metrics import measure
from ml_platform.training.recipe import FILE, Recipe, store_recipe
from ml_platform.training.search.tracking import dataset_of
from ml_platform.training.uncertainty.calibrate import calibrate
from ml_platform.training.uncertainty.conformal import conformal_of

_TRAINING_ROWS_MEASURED = 10_000


def fit_model(
    rows: TrainingRows,
    spec: ModelSpec,
    candidates: SearchResult,
    *,
    folder: Path,
    views: Mapping[str, FeatureView],
    store: ReleaseStore,
    tracker: Tracker,
    code_version: str | None = None,
    dagster_run_id: str | None = None,
) -> TrainedModel:
    """Train the best candidate on the training and validation parts and store it as a bundle that nobody serves yet.

    A candidate that cannot be exported is passed over for the next in rank, which the document and its run tell.

    Parameters
    ----------
    rows
        The training set that the search used.
    spec
        The model.
    candidates
        Outcome of the search; the best one that can be exported is taken.
    folder
        Where `spec.request_features` is.
    views
        Feature views by name.
    store
        Gets the bundle.
    tracker
        Where the training is a run.
    code_version
        Git commit, found out when None.
    dagster_run_id
        Run that trains, for provenance.

    Raises
    ------
    NotExportable
        When no candidate can be exported, with the reason of each; nothing is stored then.
    ValueError
        When the search used another training set, or a feature view changed since.
    """
    ref, parts = rows.ref, rows.parts
    if ref != candidates.training_set:
        raise ValueError(
            f"{spec.name}: the search used version {candidates.training_set.version} of {ref.table}, version "
            f"{ref.version} was given; materialise candidates again"
        )
    code = code_version or current_code_version()
    signature = build_signature(spec, folder, views, ref, parts.holdout)
    tags = _tags(ref, code, dagster_run_id)
    searched = len(candidates.candidates) + len(candidates.stopped)
    recipe = partial(Recipe.of, "trained", spec, folder, views, ref, bounds=parts.bounds, searched=searched)
    passed_over: list[PassedOver] = []
    for candidate in candidates.ranked:
        try:
            return _train(
                rows,
                spec,
                candidate,
                tuple(passed_over),
                signature,
                recipe,
                tags,
                search_run_id=candidates.run_id,
                store=store,
                tracker=tracker,
            )
        except NotExportable as error:
            passed_over.append(PassedOver(number=candidate.number, family=candidate.family, reason=str(error)))
    reasons = "; ".join(item.told for item in passed_over)
    raise NotExportable(f"{spec.name}: none of the {len(passed_over)} candidates can be exported and serve: {reasons}")


def _train(  # noqa: PLR0917 - private
    rows: TrainingRows,
    spec: ModelSpec,
    candidate: Trial,
    passed_over: tuple[PassedOver, ...],
    signature: Signature,
    recipe: Callable[..., Recipe],
    tags: Mapping[str, str],
    *,
    search_run_id: str,
    store: ReleaseStore,
    tracker: Tracker,
) -> TrainedModel:
    """Train a candidate as a run of its own (raises NotExportable)."""
    started = time.perf_counter()
    ref, parts = rows.ref, rows.parts
    dagster_run_id = tags.get("dagster_run_id")
    with tracker.run(spec.name, f"train {candidate.family}", tags=tags) as run_id:
        dataset = dataset_of(tracker, ref).input("training")
        seeks = seeks_rounds(rows)
        tracker.log(
            run_id,
            params=_params(spec, ref, candidate, without=[ROUNDS] if seeks else []),
            tags=_told(passed_over),
            datasets=[dataset],
        )
        if tracker.has_run(search_run_id):
            tracker.link(search_run_id, "search", run_id, "training")
        before = pl.concat([parts.train, parts.validation])
        fitted = fit_before_holdout(rows, spec, candidate.family, candidate.params)
        params = fitted.fitted_params(candidate.params)
        tracker.log(
            run_id, params={**distributed_settings(fitted.distributed), **({ROUNDS: params[ROUNDS]} if seeks else {})}
        )
        calibrated = calibrate(fitted, rows, candidate)
        fitted, threshold = calibrated.fitted, calibrated.threshold
        tracker.log(run_id, params={"threshold": threshold, "calibration": calibrated.told or "none"})
        onnx, parity = fitted.export()
        y = encode_labels(parts.holdout.get_column(spec.target), spec, fitted.classes)
        score = fitted.predict(parts.holdout)
        metrics = measure(spec.task, y, score, threshold=threshold, quantile=spec.quantile)
        importance = fitted.importance()
        bundle = store_bundle(
            fitted,
            onnx,
            signature,
            parts.holdout,
            store,
            threshold=threshold,
            importance=importance,
            metrics=metrics,
            holdout_error=holdout_error(
                spec.metric,
                spec.task,
                y,
                score,
                days=block_ids(parts.holdout, DAY, spec.timestamp),
                threshold=threshold,
                quantile=spec.quantile,
            ),
            reliability=reliability_of(spec.task, y, score),
            conformal=conformal_of(spec, parts.holdout, y, score),
            provenance=build_provenance(
                ref,
                fitted.trained,
                code_version=tags["code_version"],
                run_id=run_id,
                dagster_run_id=dagster_run_id,
                distributed=fitted.distributed,
            ),
        )
        made_by = recipe(
            trained=fitted.trained,
            family=candidate.family,
            params=params,
            threshold=candidate.threshold,
            chosen=candidate.number,
            metrics=metrics,
        )
        plots = model_plots(
            spec.task,
            y,
            score,
            importance,
            threshold=threshold,
            quantile=spec.quantile,
            classes=fitted.classes,
        )
        tracker.log_files(
            run_id,
            {
                **{f"{PLOTS}/{name}": image for name, image in plots.items()},
                **_documents(ref, importance, bundle.manifest.model_digest),
                **fitted.native_files(),
                FILE: store_recipe(store, bundle.digest, made_by),
            },
        )
        model_uri = log_model(tracker, run_id, onnx, bundle.manifest, example=bundle.example)
        tracker.log(
            run_id,
            metrics={
                **{f"holdout_{name}": value for name, value in metrics.items()},
                **{f"validation_{name}": value for name, value in candidate.metrics.items()},
                **{f"train_{name}": value for name, value in _train_metrics(fitted, before, threshold).items()},
                "parity_max_difference": parity.max_difference,
                **_calibration_error(spec, y, score),
            },
            dataset=dataset,
            model_id=model_uri.removeprefix("models:/"),
            tags={"bundle_digest": bundle.digest, "model_digest": bundle.manifest.model_digest},
        )
        return TrainedModel(
            model=spec.name,
            digest=bundle.digest,
            model_digest=bundle.manifest.model_digest,
            family=candidate.family,
            params=params,
            threshold=threshold,
            run_id=run_id,
            run_url=tracker.run_url(run_id),
            model_uri=model_uri,
            training_set=ref,
            bounds=parts.bounds,
            trained=fitted.trained,
            metrics=metrics,
            validation_metrics=candidate.metrics,
            importance=importance,
            parity=parity,
            calibration=calibrated.told,
            passed_over=passed_over,
            code_version=tags["code_version"],
            dagster_run_id=dagster_run_id,
            seconds=time.perf_counter() - started,
            distributed=fitted.distributed,
        )


def _train_metrics(fitted: Fitted, before: pl.DataFrame, threshold: float | None) -> dict[str, float]:
    """Measure the model on the newest rows that it learned from: what it is better there is overfitting, or drift."""
    rows = before.tail(_TRAINING_ROWS_MEASURED)
    y = encode_labels(rows.get_column(fitted.spec.target), fitted.spec, fitted.classes)
    return measure(fitted.spec.task, y, fitted.predict(rows), threshold=threshold, quantile=fitted.spec.quantile)


def _calibration_error(spec: ModelSpec, y: np.ndarray, score: np.ndarray) -> dict[str, float]:
    if spec.task == "regression":
        return {}
    return {"holdout_calibration_error": expected_calibration_error(spec.task, y, score)}


def _told(passed_over: tuple[PassedOver, ...]) -> dict[str, str]:
    """Tag of the run that says which better candidates could not be exported."""
    return {"passed_over": "; ".join(item.told for item in passed_over)} if passed_over else {}


def _tags(ref: TrainingSetRef, code: str, dagster_run_id: str | None) -> dict[str, str]:
    tags = {"stage": "training", "code_version": code, "mlflow.source.git.commit": code}
    tags |= {f"delta_version.{table}": str(version) for table, version in sorted(ref.tables.items())}
    tags[f"delta_version.{ref.table}"] = str(ref.version)
    return tags | ({"dagster_run_id": dagster_run_id} if dagster_run_id else {})


def _params(spec: ModelSpec, ref: TrainingSetRef, best: Trial, *, without: Sequence[str]) -> dict[str, object]:
    return {
        "family": best.family,
        **{name: value for name, value in best.params.items() if name not in without},
        "seed": spec.tuning.seed,
        "training_set": ref.table,
        "training_set_version": ref.version,
        "label_as_of": ref.as_of.isoformat(),
        "features": len(ref.features),
        **fitting_settings(spec),
    }


def fitting_settings(spec: ModelSpec) -> dict[str, str]:
    """Keys of the spec that change what is fitted, where they are set, in words."""
    weights = spec.class_weights if isinstance(spec.class_weights, str) else json.dumps(spec.class_weights)
    settings = {
        "weight": f"{spec.weight} (in fitting alone; metrics count rows alike)" if spec.weight else "",
        "class_weights": f"{weights} (scores are corrected for them)" if spec.class_weights else "",
        "quantile": "" if spec.quantile is None else f"{spec.quantile:g}",
        "monotone": ", ".join(f"{name} {direction}" for name, direction in spec.monotone.items()),
    }
    return {key: text for key, text in settings.items() if text}


def _documents(ref: TrainingSetRef, weights: Mapping[str, float], digest: str) -> dict[str, bytes]:
    features = [{**info.model_dump(), "importance": weights[info.name]} for info in ref.features]
    return {
        "features.json": json.dumps(features, indent=2).encode(),
        "training_set.json": json.dumps({"model_digest": digest, **ref.model_dump(mode="json")}, indent=2).encode(),
    }
