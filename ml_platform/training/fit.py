"""Train the best candidate on all rows before the holdout, export it, check the export, and store it as a bundle."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ml_platform.features.training_set import TrainingSetRef
from ml_platform.features.views import FeatureView
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.logged_model import log_model
from ml_platform.registry.manifest import Feature
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import PLOTS, Tracker
from ml_platform.spec import ModelSpec
from ml_platform.training.bundle import (
    build_golden,
    build_manifest,
    build_provenance,
    build_signature,
    bundle_files,
    golden_frame,
)
from ml_platform.training.code_version import code_version as current_code_version
from ml_platform.training.documents import Candidate, Candidates, TrainedModel, Window
from ml_platform.training.export import export_onnx
from ml_platform.training.families import build_estimator, fit_estimator, importance, predict
from ml_platform.training.matrix import FeatureEncoder, encode_labels, label_classes
from ml_platform.training.metrics import measure, shares
from ml_platform.training.parity import check_parity
from ml_platform.training.plots import model_plots
from ml_platform.training.split import Parts, TrainingRows, window

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

_IMPORTANCE_ROWS = 5000


@dataclass(frozen=True)
class _Fitted:
    """A fitted pipeline, the rows it was fitted on, and its scores on the holdout."""

    estimator: "Pipeline"
    encoder: FeatureEncoder
    features: tuple[Feature, ...]
    classes: tuple[str, ...]
    X: np.ndarray
    trained: Window
    y_holdout: np.ndarray
    holdout_score: np.ndarray


def fit_model(
    rows: TrainingRows,
    spec: ModelSpec,
    candidates: Candidates,
    *,
    folder: Path,
    views: Mapping[str, FeatureView],
    store: ReleaseStore,
    tracker: Tracker,
    code_version: str | None = None,
    dagster_run_id: str | None = None,
) -> TrainedModel:
    """Train the best candidate on the training and validation parts and store it as a bundle that nobody serves yet.

    Parameters
    ----------
    rows
        The training set that the search used.
    spec
        The model.
    candidates
        Outcome of the search; its best one is trained.
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
    ParityError
        When the exported graph answers differently; nothing is stored then.
    ValueError
        When the search used another training set, or a feature view changed since.
    """
    ref, parts = rows.ref, rows.parts
    if ref != candidates.training_set:
        raise ValueError(
            f"{spec.name}: the search used version {candidates.training_set.version} of {ref.table}, version "
            f"{ref.version} was given; materialise candidates again"
        )
    started = time.perf_counter()
    best = candidates.best
    code = code_version or current_code_version()
    signature = build_signature(spec, folder, views, ref, parts.holdout)
    with tracker.run(spec.name, f"train {best.family}", tags=_tags(ref, code, dagster_run_id)) as run_id:
        tracker.log(run_id, params=_params(spec, ref, best))
        fitted = _fit(spec, ref, best, parts)
        onnx = export_onnx(fitted.estimator, spec.task, len(fitted.features))
        parity = check_parity(fitted.estimator, onnx, spec.task, fitted.features, fitted.X, seed=spec.tuning.seed)
        metrics = measure(spec.task, fitted.y_holdout, fitted.holdout_score, threshold=best.threshold)
        weights = shares(importance(fitted.estimator, fitted.features, fitted.X[-_IMPORTANCE_ROWS:]))
        manifest = build_manifest(
            spec,
            signature,
            fitted.features,
            onnx,
            family=best.family,
            classes=fitted.classes,
            threshold=best.threshold,
            importance=weights,
            metrics=metrics,
            provenance=build_provenance(
                ref, fitted.trained, code_version=code, run_id=run_id, dagster_run_id=dagster_run_id
            ),
        )
        golden = golden_frame(parts.holdout, spec, signature)
        native = predict(fitted.estimator, spec.task, fitted.encoder.transform(golden))
        files = bundle_files(manifest, onnx, build_golden(golden, signature, fitted.encoder, native))
        digest = store.put_bundle(files)
        Scorer.load(store.bundle_path(digest))  # the bundle replays its own golden rows before anyone hears of it
        tracker.log(
            run_id,
            metrics={
                **{f"holdout_{name}": value for name, value in metrics.items()},
                **{f"validation_{name}": value for name, value in best.metrics.items()},
                "parity_max_difference": parity.max_difference,
            },
            tags={"bundle_digest": digest, "model_digest": manifest.model_digest},
        )
        tracker.log_files(
            run_id,
            {
                **_plots(spec, fitted, weights, best.threshold),
                **_documents(ref, weights, manifest.model_digest),
                **_native(fitted.estimator),
            },
        )
        model_uri = log_model(tracker, run_id, onnx, files["manifest.json"], example=fitted.encoder.transform(golden))
        return TrainedModel(
            model=spec.name,
            digest=digest,
            model_digest=manifest.model_digest,
            family=best.family,
            params=best.params,
            threshold=best.threshold,
            run_id=run_id,
            run_url=tracker.run_url(run_id),
            model_uri=model_uri,
            training_set=ref,
            bounds=parts.bounds,
            trained=fitted.trained,
            metrics=metrics,
            validation_metrics=best.metrics,
            importance=weights,
            parity=parity,
            code_version=code,
            dagster_run_id=dagster_run_id,
            seconds=time.perf_counter() - started,
        )


def _fit(spec: ModelSpec, ref: TrainingSetRef, best: Candidate, parts: Parts) -> _Fitted:
    rows = pl.concat([parts.train, parts.validation])
    classes = label_classes(rows.get_column(spec.target)) if spec.task == "multiclass" else ()
    y = encode_labels(rows.get_column(spec.target), spec, classes)
    y_holdout = encode_labels(parts.holdout.get_column(spec.target), spec, classes)
    encoder = FeatureEncoder.fit(rows, ref.features, None if spec.task == "multiclass" else y)
    X = encoder.transform(rows)
    estimator = build_estimator(best.family, spec.task, encoder.features, best.params, spec.tuning.seed)
    fit_estimator(estimator, X, y)
    return _Fitted(
        estimator=estimator,
        encoder=encoder,
        features=encoder.features,
        classes=classes,
        X=X,
        trained=window(rows, spec),
        y_holdout=y_holdout,
        holdout_score=predict(estimator, spec.task, encoder.transform(parts.holdout)),
    )


def _tags(ref: TrainingSetRef, code: str, dagster_run_id: str | None) -> dict[str, str]:
    tags = {"stage": "training", "code_version": code, "mlflow.source.git.commit": code}
    tags |= {f"delta_version.{table}": str(version) for table, version in sorted(ref.tables.items())}
    tags[f"delta_version.{ref.table}"] = str(ref.version)
    return tags | ({"dagster_run_id": dagster_run_id} if dagster_run_id else {})


def _params(spec: ModelSpec, ref: TrainingSetRef, best: Candidate) -> dict[str, object]:
    return {
        "family": best.family,
        **best.params,
        "threshold": best.threshold,
        "seed": spec.tuning.seed,
        "training_set": ref.table,
        "training_set_version": ref.version,
        "label_as_of": ref.as_of.isoformat(),
        "features": len(ref.features),
    }


def _plots(spec: ModelSpec, fitted: _Fitted, weights: Mapping[str, float], threshold: float | None) -> dict[str, bytes]:
    plots = model_plots(
        spec.task, fitted.y_holdout, fitted.holdout_score, weights, threshold=threshold, classes=fitted.classes
    )
    return {f"{PLOTS}/{name}": image for name, image in plots.items()}


def _documents(ref: TrainingSetRef, weights: Mapping[str, float], digest: str) -> dict[str, bytes]:
    features = [{**info.model_dump(), "importance": weights[info.name]} for info in ref.features]
    return {
        "features.json": json.dumps(features, indent=2).encode(),
        "training_set.json": json.dumps({"model_digest": digest, **ref.model_dump(mode="json")}, indent=2).encode(),
    }


def _native(estimator: "Pipeline") -> dict[str, bytes]:
    """The native model as data: LightGBM's text format. Of a linear model the graph says all."""
    model = estimator.named_steps["model"]
    return {"model.lgb": model.booster_.model_to_string().encode()} if hasattr(model, "booster_") else {}
