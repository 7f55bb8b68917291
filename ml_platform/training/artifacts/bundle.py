"""Trained model → release bundle: manifest, graph, golden rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import polars as pl

from ml_platform.code_version import engine_code_version
from ml_platform.features.expressions.manifest_fields import manifest_features, manifest_input
from ml_platform.features.expressions.request_features import (
    RequestFeature,
    add_request_features,
    load_request_features,
)
from ml_platform.features.point_in_time.lookup import feature_column
from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.features.views.view import FeatureView
from ml_platform.inference.log_policy import withheld
from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import (
    Calibration,
    Conformal,
    Derived,
    Golden,
    HoldoutError,
    Imported,
    InferenceLogPolicy,
    Input,
    Judged,
    Label,
    Manifest,
    Provenance,
    Reliability,
    ViewLookup,
    Workers,
)
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.stored_documents import document_bytes
from ml_platform.spec.input_rules import rules_of
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import DistributedFit, Window

GOLDEN_ROWS = 20
_EXAMPLE_ROWS = 1_000  # last ones, among which the example of a request is
UNSEEN = "never seen in training"


@dataclass(frozen=True)
class Signature:
    """How a request becomes a row of the matrix."""

    inputs: tuple[Input, ...]
    derived: tuple[Derived, ...]
    lookups: tuple[ViewLookup, ...]
    request_features: dict[str, RequestFeature]


def build_signature(
    spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView], ref: TrainingSetRef, frame: pl.DataFrame
) -> Signature:
    """Describe request, derived features and look-ups; examples that the spec leaves open come from the newest row.

    Raises
    ------
    ValueError
        When a view changed since the training set was made, so that serving would look up something else.
    """
    request = load_request_features(folder / spec.request_features) if spec.request_features else {}
    derived = manifest_features(spec.inputs, request)
    lookups = []
    for lookup in spec.lookups:
        view = views[lookup.view]
        if view.hash != ref.view_hashes.get(view.name):
            raise ValueError(
                f"{spec.name}: the feature view '{view.name}' changed since the training set (version {ref.version}) "
                f"was made; materialise features/{view.name} and the training set again"
            )
        taken = lookup.features or tuple(view.columns)
        lookups.append(
            ViewLookup(
                view=view.name,
                view_hash=view.hash,
                keys={column: lookup.keys.get(column, column) for column in view.entity},
                features=tuple(feature_column(lookup.alias, name) for name in taken),
                ttl_seconds=view.ttl.total_seconds() if view.ttl else None,
                knowledge_time=lookup.knowledge_time,
                streamed=view.stream is not None,
            )
        )
    example = _example_row(frame, spec)
    hidden = {*spec.inference_log.redact, *spec.inference_log.hash}  # no example of these is taken from the data
    inputs = tuple(
        manifest_input(field, None if field.name in hidden else _plain(example[field.name])) for field in spec.inputs
    )
    return Signature(inputs, derived, tuple(lookups), request)


class Bundled(Protocol):
    """A model that becomes a bundle: trained here, or imported."""

    @property
    def spec(self) -> ModelSpec:
        """The model's declaration."""
        ...

    @property
    def encoder(self) -> FeatureEncoder:
        """Makes its matrix of rows."""
        ...

    @property
    def classes(self) -> tuple[Label, ...]:
        """Multiclass: the labels in the order of the scores."""
        ...

    @property
    def family_name(self) -> str:
        """What kind of estimator it is called."""
        ...

    @property
    def calibration(self) -> Calibration | None:
        """What its probabilities are mapped by; None where they are the model's own."""
        ...

    def predict(self, rows: pl.DataFrame) -> np.ndarray:
        """The model's scores, calibrated: (rows,), or (rows × classes) for multiclass."""
        ...


@dataclass(frozen=True)
class StoredBundle:
    """A bundle in the release store, which has replayed its own golden rows; nobody serves it yet."""

    digest: str
    manifest: Manifest
    scorer: Scorer
    example: np.ndarray  # matrix of the golden rows: (rows × features), float64


def store_bundle(
    fitted: Bundled,
    onnx: bytes,
    signature: Signature,
    holdout: pl.DataFrame,
    store: ReleaseStore,
    *,
    threshold: float | None,
    importance: Mapping[str, float],
    metrics: Mapping[str, float],
    holdout_error: HoldoutError | None,
    reliability: tuple[Reliability, ...],
    conformal: Conformal | None,
    provenance: Provenance,
) -> StoredBundle:
    """Put a fitted model into the release store, and load it from there.

    Parameters
    ----------
    fitted
        The model.
    onnx
        Its export.
    signature
        How a request becomes a row of its matrix.
    holdout
        Rows that the golden ones are picked from.
    store
        Gets the bundle.
    threshold
        Probability from which a binary prediction is true.
    importance
        Share of each feature in the model.
    metrics, holdout_error
        What was measured on the holdout, and the standard error of the promotion metric there.
    reliability
        What its probabilities were worth on the holdout.
    conformal
        What its intervals or sets are made of.
    provenance
        Data and code that made the model.

    Raises
    ------
    ValueError
        When the instant of logged rows would be computed from inputs that the log withholds.
    BundleRefused
        When the graph answers its golden rows otherwise than the fitted model.
    """
    manifest = _manifest(
        fitted,
        onnx,
        signature,
        threshold=threshold,
        importance=importance,
        metrics=metrics,
        holdout_error=holdout_error,
        reliability=reliability,
        conformal=conformal,
        provenance=provenance,
    )
    rows = _golden_frame(holdout, fitted.spec, signature)
    example = fitted.encoder.transform(rows)
    golden = _golden(rows, signature, example, fitted.predict(rows))
    digest = store.put_bundle(
        {
            "manifest.json": document_bytes(manifest),
            "model.onnx": onnx,
            "golden.json": msgspec.json.format(msgspec.json.encode(golden), indent=1),
        }
    )
    return StoredBundle(digest, manifest, Scorer.load(store.bundle_path(digest)), example)


def _manifest(
    fitted: Bundled,
    onnx: bytes,
    signature: Signature,
    *,
    threshold: float | None,
    importance: Mapping[str, float],
    metrics: Mapping[str, float],
    holdout_error: HoldoutError | None,
    reliability: tuple[Reliability, ...],
    conformal: Conformal | None,
    provenance: Provenance,
) -> Manifest:
    """Assemble the manifest; its `model_digest` is computed over `onnx` and the signature."""
    spec = fitted.spec
    names = [field.name for field in signature.inputs]
    timestamps = [field.name for field in signature.inputs if field.type == "timestamp"]
    timestamps += [feature.name for feature in signature.derived if feature.type == "timestamp"]
    manifest = Manifest(
        model=spec.name,
        model_digest="",
        task=spec.task,
        description=spec.description,
        owner=spec.owner,
        family=fitted.family_name,
        id=spec.id if spec.id in names else None,
        as_of=spec.timestamp if spec.timestamp in timestamps else None,
        inputs=signature.inputs,
        derived=signature.derived,
        lookups=signature.lookups,
        features=tuple(
            msgspec.structs.replace(item, importance=importance[item.name]) for item in fitted.encoder.features
        ),
        classes=fitted.classes,
        threshold=threshold,
        threshold_choice=spec.threshold.in_words if threshold is not None else "",
        target=spec.target,
        target_unit=spec.target_unit,
        quantile=spec.quantile,
        calibration=fitted.calibration,
        reliability=reliability,
        conformal=conformal,
        metric=spec.metric,
        metrics=dict(metrics),
        holdout_error=holdout_error,
        provenance=provenance,
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        tags=dict(spec.tags),
        inference_log=InferenceLogPolicy(**spec.inference_log.model_dump()),
    )
    if manifest.as_of in withheld(manifest):
        raise ValueError(
            f"inference_log: '{manifest.as_of}', which every logged row has as its instant, is computed from inputs "
            "that are redacted or hashed; leave those in the log"
        )
    return msgspec.structs.replace(manifest, model_digest=model_digest(onnx, manifest))


def build_provenance(
    ref: TrainingSetRef,
    trained: Window,
    *,
    code_version: str,
    run_id: str,
    dagster_run_id: str | None,
    judged: Judged | None = None,
    imported: Imported | None = None,
    distributed: DistributedFit | None = None,
) -> Provenance:
    """Say which data and code made the model, which model the gate judged where this is its refit, who imported it."""
    return Provenance(
        tables=dict(sorted(ref.tables.items())),
        training_set=ref.table,
        training_set_version=ref.version,
        trained_from=iso(trained.first),
        trained_until=iso(trained.last),
        training_rows=trained.rows,
        code_version=code_version,
        engine_version=engine_code_version(),
        mlflow_run_id=run_id,
        dagster_run_id=dagster_run_id,
        judged=judged,
        imported=imported,
        workers=None
        if distributed is None
        else Workers(distributed.workers, distributed.cpus_per_worker, distributed.executor),
    )


def _golden_frame(rows: pl.DataFrame, spec: ModelSpec, signature: Signature) -> pl.DataFrame:
    """Pick rows to replay: spread over time, those with most nulls, and one with every string unseen that may be so.

    Derived features of the altered row are computed anew, so that the whole frame is as offline would have it.
    """
    looked_up = [name for lookup in signature.lookups for name in lookup.features]
    names = [field.name for field in signature.inputs]
    used = rows.select(*names, *looked_up).with_columns(pl.selectors.float().fill_nan(None))
    ordered = used.with_columns(nulls=pl.sum_horizontal(pl.all().is_null())).with_row_index("row")
    emptiest = ordered.sort("nulls", "row", descending=[True, False]).head(GOLDEN_ROWS // 4)
    spread = ordered.gather_every(max(1, ordered.height // (GOLDEN_ROWS * 3 // 4)))
    chosen = pl.concat([spread.head(GOLDEN_ROWS * 3 // 4 - 1), emptiest]).unique("row").sort("row")
    strings = [one.name for one in signature.inputs if one.type == "string" and one.name != spec.id and not one.allowed]
    unseen = chosen.head(1).with_columns(pl.lit(UNSEEN).alias(name) for name in strings)
    picked = pl.concat([chosen, unseen]).drop("row", "nulls")
    return add_request_features(picked.lazy(), signature.request_features).collect()


def _golden(frame: pl.DataFrame, signature: Signature, matrix: np.ndarray, scores: np.ndarray) -> Golden:
    """Golden rows: those of `_golden_frame`, their matrix, and the native model's scores."""
    names = [field.name for field in signature.inputs]
    looked_up = [name for lookup in signature.lookups for name in lookup.features]
    return Golden(
        inputs=tuple({name: _plain(value) for name, value in row.items()} for row in frame.select(names).to_dicts()),
        looked_up=tuple(frame.select(looked_up).to_dicts()) if looked_up else ({},) * frame.height,
        matrix=tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in matrix),
        scores=tuple(scores.tolist()),
    )


def _example_row(frame: pl.DataFrame, spec: ModelSpec) -> dict[str, Any]:
    """One of the last rows: the last of those without nulls that keep all rules, else without nulls, else of all."""
    names = [field.name for field in spec.inputs]
    rules = {field.name: found for field in spec.inputs if (found := rules_of(field))}
    last = frame.select(names).tail(1).row(0, named=True)
    complete = frame.select(names).drop_nulls().tail(_EXAMPLE_ROWS).reverse().rows(named=True)
    keeping = (row for row in complete if all(rule.keeps(row[name]) for name in rules for rule in rules[name]))
    return next(keeping, complete[0] if complete else last)


def _plain(value: Any) -> Any:
    return iso(value) if isinstance(value, datetime) else value


def iso(instant: datetime) -> str:
    """Write an instant as manifests do: ISO 8601, UTC, with `Z`."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
