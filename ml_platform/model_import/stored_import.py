"""Bundles an imported model, as a run of MLflow."""

import time
from dataclasses import replace

import msgspec
import numpy as np
import polars as pl

from ml_platform.code_version import code_version as current_code_version
from ml_platform.inference.matrix import encode_labels
from ml_platform.model_import.claims import Claims, Folder
from ml_platform.model_import.foreign import ForeignModel
from ml_platform.model_import.library_parity import ImportedModel
from ml_platform.model_import.refused import ImportRefused
from ml_platform.model_import.source import Source
from ml_platform.promotion.reconcile import versions_of
from ml_platform.registry.logged_model import log_model
from ml_platform.registry.manifest import Imported
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import PLOTS, Tracker
from ml_platform.spec.model import ModelSpec
from ml_platform.training.artifacts.bundle import Signature, build_provenance, build_signature, store_bundle
from ml_platform.training.artifacts.plots import model_plots
from ml_platform.training.data.split import Parts, TrainingRows
from ml_platform.training.documents import (
    ImportLineage,
    ParityReport,
    TrainedModel,
    Window,
)
from ml_platform.training.evaluation.blocks import DAY, block_ids
from ml_platform.training.evaluation.calibration import reliability_of
from ml_platform.training.evaluation.metric_errors import holdout_error
from ml_platform.training.evaluation.metrics import choose_threshold, measure, shares
from ml_platform.training.export.calibrated_graph import calibrate_graph, check_calibrated
from ml_platform.training.export.parity import ParityError
from ml_platform.training.search.tracking import dataset_of
from ml_platform.training.uncertainty.calibrate import calibration_of
from ml_platform.training.uncertainty.conformal import conformal_of
from ml_platform.training.uncertainty.platt import NotCalibratable

_IMPORTANCE_ROWS = 2000


def store_import(  # noqa: PLR0917 - private
    folder: Folder,
    rows: TrainingRows,
    source: Source,
    model: ForeignModel,
    claims: Claims,
    imported: ImportedModel,
    parity: ParityReport,
    *,
    store: ReleaseStore,
    tracker: Tracker,
) -> TrainedModel:
    """Bundle a model as a run of MLflow; nobody serves it yet."""
    started = time.perf_counter()
    spec, parts, code = folder.spec, rows.parts, current_code_version()
    lineage = ImportLineage(
        by=claims.by,
        source=source.uri,
        flavor=source.kind.flavor,
        digest=source.digest,
        library=model.library,
        summary=model.summary,
        origin=source.origin,
        trained_until_stated=claims.trained_until is not None,
        trusted=source.kind.runs_code,
    )
    trained = Window(first=rows.ref.first, last=claims.trained_until or rows.ref.last, rows=0)
    signature = _with_used_lookups(
        build_signature(spec, folder.path, folder.views, rows.ref, parts.holdout),
        {one.name for one in imported.encoder.features},
    )
    imported, onnx, threshold, told = _calibrated(spec, parts, claims, imported)
    y = encode_labels(parts.holdout.get_column(spec.target), spec, imported.classes)
    score = imported.predict(parts.holdout)
    if spec.task == "binary" and threshold is None:
        validation = encode_labels(parts.validation.get_column(spec.target), spec)
        threshold = choose_threshold(spec.threshold, validation, imported.predict(parts.validation))
    metrics = measure(spec.task, y, score, threshold=threshold)
    importance = _importance(imported, parts.holdout)
    tags = {"stage": "import", "code_version": code, **lineage.model_dump(mode="json", exclude={"origin"})}
    with tracker.run(spec.name, f"import {source.kind.flavor}", tags={k: str(v) for k, v in tags.items()}) as run_id:
        tracker.log(
            run_id,
            params={"family": imported.family_name, "threshold": threshold, "origin": source.origin},
            datasets=[dataset_of(tracker, rows.ref).input("evaluation")],
        )
        bundle = store_bundle(
            imported,
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
            ),
            reliability=reliability_of(spec.task, y, score),
            conformal=conformal_of(spec, parts.holdout, y, score),
            provenance=build_provenance(
                rows.ref,
                trained,
                code_version=code,
                run_id=run_id,
                dagster_run_id=None,
                imported=Imported(**lineage.model_dump()),
            ),
        )
        _refuse_repeated(tracker, spec.name, bundle.manifest.model_digest, source.digest)
        tracker.log(
            run_id,
            metrics={
                **{f"holdout_{name}": value for name, value in metrics.items()},
                "parity_max_difference": parity.max_difference,
            },
            tags={"bundle_digest": bundle.digest, "model_digest": bundle.manifest.model_digest},
        )
        plots = model_plots(spec.task, y, score, importance, threshold=threshold, classes=imported.classes)
        files = {f"{PLOTS}/{name}": image for name, image in plots.items()}
        if not source.kind.runs_code:  # what could run code is not handed on
            files[model.native_name] = source.path.read_bytes()
        tracker.log_files(run_id, files)
        model_uri = log_model(tracker, run_id, onnx, bundle.manifest, example=bundle.example)
    return TrainedModel(
        model=spec.name,
        digest=bundle.digest,
        model_digest=bundle.manifest.model_digest,
        family=imported.family_name,
        params={},
        threshold=threshold,
        run_id=run_id,
        run_url=tracker.run_url(run_id),
        model_uri=model_uri,
        training_set=rows.ref,
        bounds=parts.bounds,
        trained=trained,
        metrics=metrics,
        validation_metrics={},
        importance=importance,
        parity=parity,
        calibration=told,
        code_version=code,
        dagster_run_id=None,
        seconds=time.perf_counter() - started,
        imported=lineage,
    )


def _calibrated(
    spec: ModelSpec, parts: Parts, claims: Claims, imported: ImportedModel
) -> tuple[ImportedModel, bytes, float | None, str]:
    """Calibrate a model on validation rows that it cannot have learned from, if its spec asks for it.

    Returns
    -------
    tuple
        The model, its graph, the threshold that was chosen with it (None where it was not calibrated), what was done.
    """
    onnx = imported.bound.onnx
    if spec.calibration == "none":
        return imported, onnx, None, ""
    until = claims.trained_until
    if until is None:
        explanation = (
            "Not calibrated: it is not known which rows it has learned from, and its answers to those would look surer "
            "than they are. Import it with --trained-until, or recalibrate it once it serves and labels have come."
        )
        return imported, onnx, None, explanation
    rows = parts.validation.filter(pl.col(spec.timestamp) > until)
    try:
        found, threshold, explanation = calibration_of(spec, rows, imported.predict(rows), imported.classes)
        calibrated_onnx = calibrate_graph(onnx, spec.task, found)
        X = imported.encoder.transform(rows)
        check_calibrated(calibrated_onnx, onnx, found, spec.task, imported.encoder.features, X)
    except (NotCalibratable, ParityError) as error:
        reason = f"Not calibrated on the {rows.height:,} validation rows after --trained-until: {error}."
        return imported, onnx, None, reason
    return replace(imported, calibration=found), calibrated_onnx, threshold, explanation


def _with_used_lookups(signature: Signature, used: set[str]) -> Signature:
    """The signature without what is looked up for other features than the model's own."""
    lookups = [
        msgspec.structs.replace(one, features=tuple(name for name in one.features if name in used))
        for one in signature.lookups
    ]
    return replace(signature, lookups=tuple(one for one in lookups if one.features))


def _refuse_repeated(tracker: Tracker, name: str, model_digest: str, source_digest: str) -> None:
    for entry in versions_of(tracker, name):
        if (entry.tags.get("model_digest"), entry.tags.get("import_source_digest")) == (model_digest, source_digest):
            raise ImportRefused(
                f"this file is version {entry.version} of {name} already, with the same graph; to serve it: "
                "ml-platform promote "
                f'{name} {entry.version} --reason "…"'
            )


def _importance(imported: ImportedModel, holdout: pl.DataFrame) -> dict[str, float]:
    """Share of each feature: how far scores move when its values are those of other rows."""
    X = imported.encoder.transform(holdout.tail(_IMPORTANCE_ROWS))
    scores = imported.bound.native(X)
    order = np.random.default_rng(0).permutation(len(X))
    weights = {}
    for position, feature in enumerate(imported.encoder.features):
        shuffled = X.copy()
        shuffled[:, position] = X[order, position]
        weights[feature.name] = float(np.abs(imported.bound.native(shuffled) - scores).mean())
    return shares(weights)
