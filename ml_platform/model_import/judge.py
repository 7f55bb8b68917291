"""From a model that was read to a version: bound to its folder, compared with its library, judged, registered."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from ml_platform.code_version import code_version as current_code_version
from ml_platform.features.training_sets.build import build_training_set
from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.features.views.view import FeatureView
from ml_platform.governance.audit import record_event
from ml_platform.inference.matrix import FeatureEncoder, encode_labels
from ml_platform.lake.storage.tables import Lake
from ml_platform.model_import.binding import (
    bind_classes,
    bind_features,
    check_refusals,
    nullable_features,
    without_refused,
)
from ml_platform.model_import.declaration import Declaration
from ml_platform.model_import.foreign import Bound, ForeignModel
from ml_platform.model_import.refused import ImportRefused
from ml_platform.model_import.source import Source
from ml_platform.promotion.card import write_card
from ml_platform.promotion.promote import promote
from ml_platform.promotion.reconcile import versions_of
from ml_platform.promotion.versions import register
from ml_platform.registry.logged_model import log_model
from ml_platform.registry.manifest import Imported, Label
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import PLOTS, Tracker
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.training.artifacts.bundle import Signature, build_provenance, build_signature, store_bundle
from ml_platform.training.artifacts.plots import model_plots
from ml_platform.training.data.split import Parts, TrainingRows, window
from ml_platform.training.documents import (
    Evaluation,
    ImportLineage,
    ParityReport,
    RegisteredVersion,
    ReleaseDecision,
    TrainedModel,
    Window,
)
from ml_platform.training.evaluation.blocks import DAY, block_ids
from ml_platform.training.evaluation.evaluate import evaluate
from ml_platform.training.evaluation.metric_errors import holdout_error
from ml_platform.training.evaluation.metrics import choose_threshold, measure, shares
from ml_platform.training.evaluation.rescoring import VersionRows
from ml_platform.training.export.parity import ParityError, compare, nasty_rows
from ml_platform.training.search.tracking import dataset_of

_IMPORTANCE_ROWS = 2000
_PARITY_ROWS = 2000


@dataclass(frozen=True)
class Folder:
    """A model's folder in `defs/`, with what it belongs to."""

    spec: ModelSpec
    path: Path
    views: Mapping[str, FeatureView]


@dataclass(frozen=True)
class Claims:
    """What who imports a model says and wants.

    Attributes
    ----------
    by
        User.
    trained_until
        Instant (UTC) of the newest row that the model was trained on; None where that is not known.
    declared
        What its file does not say.
    rows
        Rows to compare graph and library on, beside those of the training set; with the features' columns.
    tolerance
        Largest difference of a score that is allowed, in place of the library's usual one.
    """

    by: str
    trained_until: datetime | None
    declared: Declaration
    rows: pl.DataFrame | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class ImportResult:
    """What an import came to."""

    trained: TrainedModel
    evaluation: Evaluation
    version: RegisteredVersion
    decision: ReleaseDecision
    unexplained: str
    threshold: float | None


@dataclass(frozen=True)
class ImportedModel:
    """A model bound to its folder, as a bundle is made of it."""

    spec: ModelSpec
    encoder: FeatureEncoder
    classes: tuple[Label, ...]
    family_name: str
    bound: Bound

    def predict(self, rows: pl.DataFrame) -> np.ndarray:
        """The library's own scores."""
        return self.bound.native(self.encoder.transform(rows))


def import_model(
    settings: Settings, folder: Folder, source: Source, model: ForeignModel, claims: Claims
) -> ImportResult:
    """Make a model that was read a version of a folder's model, and release it if the gate passes it.

    A training set is made as for a training. The graph must give the library's scores on its newest rows and on rows
    made to break it. The gate compares it as any challenger; where it is not known until when it was trained, its
    verdict says so, and a person has to promote it.

    Parameters
    ----------
    settings
        Where lake, registry and releases are.
    folder
        The model that it becomes a version of.
    source, model
        The file, and what was read from it.
    claims
        What who imports it says.

    Raises
    ------
    ImportRefused
        When it cannot become a version; nothing was registered.
    """
    spec, lake, store = folder.spec, Lake(settings.lake_uri), ReleaseStore(settings.releases_dir)
    tracker = Tracker(settings)
    ref = build_training_set(lake, spec, folder.path, folder.views)
    rows = _unseen(TrainingRows.read(lake, spec, ref), spec, claims.trained_until)
    everything = pl.concat([rows.parts.train, rows.parts.validation, rows.parts.holdout])
    imported, refused = _bind(folder, ref, source, model, claims, everything)
    parity = _check_parity(imported, claims, everything, refused)
    _check_answers(imported, rows.parts.holdout)
    trained = _store(folder, rows, source, model, claims, imported, parity, store=store, tracker=tracker)
    evaluation = evaluate(rows, spec, trained, store, VersionRows(lake, spec, folder.path, folder.views))
    evaluation = _with_doubt(evaluation, claims.trained_until)
    record_event(
        settings.audit_dir,
        settings.keys_dir,
        "model import",
        f"{spec.name}: {source.uri} (SHA-256 {source.digest}, {source.kind.name}"
        f"{', trusted' if source.kind.runs_code else ''}) as bundle {trained.digest[:12]}",
        by=claims.by,
    )
    version = register(spec, trained, evaluation, tracker=tracker)
    write_card(spec, folder.path, trained, evaluation, version, tracker=tracker)
    decision = promote(settings, spec, version, evaluation, tracker=tracker, by=claims.by)
    return ImportResult(trained, evaluation, version, decision, imported.bound.unexplained, trained.threshold)


def _unseen(rows: TrainingRows, spec: ModelSpec, trained_until: datetime | None) -> TrainingRows:
    """The training set with the holdout rows that the model cannot have learned from."""
    if trained_until is None:
        return rows
    parts = rows.parts
    later = parts.holdout.filter(pl.col(spec.timestamp) > trained_until)
    if later.is_empty():
        raise ImportRefused(
            f"no row of the holdout ({parts.bounds.holdout.first:%Y-%m-%d %H:%M} to "
            f"{parts.bounds.holdout.last:%Y-%m-%d %H:%M} "
            f"UTC) is later than --trained-until {trained_until:%Y-%m-%d %H:%M}: load newer rows, then import it again"
        )
    bounds = parts.bounds.model_copy(update={"holdout": window(later, spec)})
    return TrainingRows(rows.ref, Parts(parts.train, parts.validation, later, bounds))


def _bind(  # noqa: PLR0917 - private
    folder: Folder, ref: TrainingSetRef, source: Source, model: ForeignModel, claims: Claims, rows: pl.DataFrame
) -> tuple[ImportedModel, np.ndarray]:
    spec = folder.spec
    features = bind_features(model, ref.features, rows, claims.declared, source.inputs)
    classes, positive = bind_classes(model, spec, rows.get_column(spec.target), claims.declared)
    encoder = FeatureEncoder(features)
    try:
        bound = model.bind(spec.task, features, positive)
    except ImportRefused:
        raise
    except Exception as error:  # whatever an object of another version is short of
        raise ImportRefused(f"{model.summary} cannot be exported: {error}") from error
    if claims.tolerance is not None:
        bound = replace(bound, tolerance=claims.tolerance)
    imported = ImportedModel(spec, encoder, classes, f"imported {source.kind.flavor}", bound)
    if not _answers_at_all(imported, rows):
        _raise_reason(imported, rows)
    nullable = nullable_features(spec, folder.path, rows)
    return imported, check_refusals(spec, bound, encoder, rows.tail(_PARITY_ROWS), nullable)


def _answers_at_all(imported: ImportedModel, rows: pl.DataFrame) -> bool:
    """Whether the library answers to some row without nulls."""
    names = [one.name for one in imported.encoder.features]
    complete = rows.drop_nulls(names)
    scores = None
    if complete.height:
        try:
            scores = imported.predict(complete.tail(1))
        except Exception:  # noqa: BLE001 - the reason is raised by `_raise_reason`
            return False
    return scores is None or scores.shape == _shape(imported, 1)


def _raise_reason(imported: ImportedModel, rows: pl.DataFrame) -> None:
    names = [one.name for one in imported.encoder.features]
    try:
        scores = imported.predict(rows.drop_nulls(names).tail(1))
    except Exception as error:
        raise ImportRefused(
            f"the library does not answer to a row of the training set: {type(error).__name__}: {error}. Names, order "
            "and "
            f"types of the inputs are {', '.join(f'{one.name} ({one.kind})' for one in imported.encoder.features)}"
        ) from error
    raise ImportRefused(
        f"the model answers with {scores.shape[1:] or 'one number'} a row, wanted "
        f"{_shape(imported, 1)[1:] or 'one number'} "
        f"for {imported.spec.task}"
    )


def _shape(imported: ImportedModel, rows: int) -> tuple[int, ...]:
    return (rows, len(imported.classes)) if imported.spec.task == "multiclass" else (rows,)


def _check_parity(imported: ImportedModel, claims: Claims, rows: pl.DataFrame, refused: np.ndarray) -> ParityReport:
    spec, bound, features = imported.spec, imported.bound, imported.encoder.features
    real = imported.encoder.transform(rows.sort(spec.timestamp).tail(_PARITY_ROWS))
    parts = [real]
    if claims.rows is not None:
        parts.append(_given_rows(imported, claims.rows))
    compared = [without_refused(np.vstack(parts), features, refused)]
    numbers = np.array([one.categories is None for one in features])
    try:
        if bound.extremes and not refused[numbers, 1].any():
            far = without_refused(nasty_rows(bound.onnx, features, real, seed=spec.tuning.seed), features, refused)
            answers = bound.native(far).reshape(len(far), -1)
            compared.append(far[np.isfinite(answers).all(axis=1)])  # an exponent of a far value is infinite
        rows_compared = np.vstack(compared)
        return compare(
            bound.native,
            bound.onnx,
            spec.task,
            features,
            rows_compared,
            tolerance=bound.tolerance,
            real=len(compared[0]),
        )
    except ParityError as error:
        raise ImportRefused(str(error)) from error
    except Exception as error:
        raise ImportRefused(f"graph and library cannot be compared: {type(error).__name__}: {error}") from error


def _given_rows(imported: ImportedModel, rows: pl.DataFrame) -> np.ndarray:
    if rows.is_empty():
        raise ImportRefused("--rows has no rows: give some that the model can answer to")
    try:
        return imported.encoder.transform(rows)
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise ImportRefused(f"--rows: {error}. It has the columns {', '.join(rows.columns)}") from error


def _check_answers(imported: ImportedModel, holdout: pl.DataFrame) -> None:
    scores = imported.predict(holdout)
    wrong = ~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1)
    if wrong.any():
        raise ImportRefused(
            f"the model gives no finite number for {wrong.sum():,} of {len(scores):,} rows of the holdout"
        )
    if imported.spec.task != "regression":
        sums = scores.sum(axis=1) if scores.ndim > 1 else scores
        outside = scores.min() < 0 or scores.max() > 1 or (scores.ndim > 1 and np.abs(sums - 1).max() > 1e-3)
        if outside:
            raise ImportRefused(
                f"the model's answers are no probabilities: they go from {scores.min():.4g} to {scores.max():.4g}. If "
                "they are "
                "log-odds, say so by --link sigmoid (two classes) or --link softmax"
            )
    if len(scores) > 1 and (scores == scores[:1]).all():
        raise ImportRefused(
            f"the model answers {scores[0]} for every one of {len(scores):,} rows of the holdout: check the order and "
            "the "
            "units of its inputs"
        )


def _store(  # noqa: PLR0917 - private
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
    y = encode_labels(parts.holdout.get_column(spec.target), spec, imported.classes)
    score = imported.predict(parts.holdout)
    threshold = None
    if spec.task == "binary":
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
            imported.bound.onnx,
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
        model_uri = log_model(tracker, run_id, imported.bound.onnx, bundle.manifest, example=bundle.example)
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
        code_version=code,
        dagster_run_id=None,
        seconds=time.perf_counter() - started,
        imported=lineage,
    )


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


def _with_doubt(evaluation: Evaluation, trained_until: datetime | None) -> Evaluation:
    """The verdict, with what is not known of the model's training: where that could flatter it, a person decides."""
    if trained_until is not None:
        stated = (
            "It was trained elsewhere; who imported it says on no row later than "
            f"{trained_until:%Y-%m-%d %H:%M} UTC, which cannot be checked here."
        )
        return evaluation.model_copy(update={"reasons": (*evaluation.reasons, stated)})
    doubt = (
        "Do not promote by itself: it was trained elsewhere, on rows that are not known here, and may have seen the "
        "holdout rows, on which it then looks better than it is. Import it with --trained-until, or promote this "
        "version "
        "by name."
    )
    return evaluation.model_copy(update={"promote": False, "reasons": (doubt, *evaluation.reasons)})
