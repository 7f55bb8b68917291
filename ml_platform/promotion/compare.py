"""Two versions of a model side by side: how each was made, and both scored on the same rows that are new to both."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from ml_platform.features.views.view import FeatureView
from ml_platform.inference.batch import score_rows
from ml_platform.inference.matrix import encode_labels
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.model_card import carded_versions, load_card
from ml_platform.registry.origins import origin_of
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Strict
from ml_platform.training.data.split import window
from ml_platform.training.documents import Interval, SliceResult, Window
from ml_platform.training.evaluation.blocks import block_ids
from ml_platform.training.evaluation.contenders import (
    JudgedRows,
    aligned,
    all_classes,
    as_judged,
    contender,
    gain_of,
)
from ml_platform.training.evaluation.evaluate import one_row_latency_ms
from ml_platform.training.evaluation.guardrails.slices import group_results
from ml_platform.training.evaluation.rescoring import VersionRows


class ComparedVersion(Strict):
    """One side."""

    version: int = Field(description="Number in the registry.")
    digest: str = Field(description="Digest of the bundle.")
    family: str = Field(description="Kind of estimator.")
    params: dict[str, Any] = Field(description="Parameters, as its card has them; empty for a version without a card.")
    threshold: float | None = Field(description="Probability from which a binary model says true.")
    features: dict[str, float] = Field(description="Feature → share of the importance, largest first.")
    training_set: str = Field(description="Training set and its version.")
    tables: dict[str, int] = Field(description="Table → version that it was made of.")
    trained_from: str = Field(description="Timestamp of the oldest row that it learned from.")
    trained_until: str = Field(description="Timestamp of the newest.")
    training_rows: int = Field(description="Rows that it learned from.")
    code_version: str = Field(description="Commit of the code.")
    holdout_metrics: dict[str, float] = Field(description="On its own holdout, which is another than the other's.")
    latency_ms: float = Field(description="Median time of a one-row prediction, measured now.")
    graph_bytes: int = Field(description="Size of the ONNX graph.")


class SameRows(Strict):
    """Both versions, as the gate judged them, on the same rows."""

    rows: Window = Field(description="Rows that neither was trained on.")
    first: dict[str, float] = Field(description="Metric → value of the first version.")
    second: dict[str, float] = Field(description="Metric → value of the second version.")
    gain: Interval | None = Field(description="Of the second over the first; null where the rows make too few blocks.")
    within_blocks: Interval | None = Field(
        None, description="Of the same gain, if the same blocks came again with other rows; null as for `gain`."
    )
    groups: tuple[SliceResult, ...] = Field(description="Groups of `promotion.slices`; the second is the challenger.")


class VersionComparison(Strict):
    """Two versions of a model."""

    model: str = Field(description="Name of the model.")
    metric: str = Field(description="Metric of the gate.")
    first: ComparedVersion = Field(description="The first version.")
    second: ComparedVersion = Field(description="The second version.")
    same_rows: SameRows | None = Field(description="Null where there are none.")
    why_none: str = Field("", description="Why there are none.")


def compare_versions(
    lake: Lake,
    store: ReleaseStore,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    *,
    versions: tuple[int, int],
) -> VersionComparison:
    """Compare two versions.

    Parameters
    ----------
    lake, store
        Where training sets and bundles are.
    spec, folder, views
        The model, its folder, and the project's feature views by name.
    versions
        The first and the second; gains are the second's over the first.

    Raises
    ------
    LookupError
        When a version is not registered, with those that are, or its bundle is gone.
    BundleRefused
        When a bundle is damaged.
    """
    known = store.versions(spec.name)
    if missing := [str(version) for version in versions if version not in known]:
        raise LookupError(f"no version {' and '.join(missing)} is registered; there are {sorted(known) or 'none'}")
    digests = [known[version] for version in versions]
    sides = [_side(store, spec, version, known[version]) for version in versions]
    same_rows, why_none = _same_rows(lake, store, spec, VersionRows(lake, spec, folder, views), digests)
    return VersionComparison(
        model=spec.name, metric=spec.metric, first=sides[0], second=sides[1], same_rows=same_rows, why_none=why_none
    )


def _side(store: ReleaseStore, spec: ModelSpec, version: int, digest: str) -> ComparedVersion:
    scorer = Scorer.load(store.bundle_path(digest))
    manifest, made_of = scorer.manifest, scorer.manifest.provenance
    ranked = sorted(manifest.features, key=lambda feature: -feature.importance)
    return ComparedVersion(
        version=version,
        digest=digest,
        family=manifest.family,
        params=load_card(store, spec.name, version).params if version in carded_versions(store, spec.name) else {},
        threshold=manifest.threshold,
        features={feature.name: feature.importance for feature in ranked},
        training_set=f"{made_of.training_set} version {made_of.training_set_version}",
        tables=made_of.tables,
        trained_from=made_of.trained_from,
        trained_until=made_of.trained_until,
        training_rows=made_of.training_rows,
        code_version=made_of.code_version,
        holdout_metrics=manifest.metrics,
        latency_ms=one_row_latency_ms(scorer, store),
        graph_bytes=len(store.read_bundle(digest)["model.onnx"]),
    )


def _same_rows(
    lake: Lake, store: ReleaseStore, spec: ModelSpec, source: VersionRows, digests: list[str]
) -> tuple[SameRows | None, str]:
    """Score both on the rows of the newer training set that neither has learned from."""
    scorers = [as_judged(store, digest) for digest in digests]
    newer = max(scorers, key=lambda scorer: scorer.manifest.provenance.training_set_version)
    table, version = _training_set(store, newer)
    learned = max(datetime.fromisoformat(scorer.manifest.provenance.trained_until) for scorer in scorers)
    try:
        frame = lake.read(table, version=version).collect()
    except (LookupError, FileNotFoundError) as error:
        return None, f"the training set is gone: {error}"
    rows = frame.filter(pl.col(spec.timestamp) > learned).sort(spec.timestamp, spec.id)
    if rows.is_empty():
        return None, f"all rows of {table} version {version} are older than what one of them has learned from"
    try:
        own = [
            source.of(scorer.manifest, rows, tables=newer.manifest.provenance.tables, made_for=newer.manifest)
            for scorer in scorers
        ]
    except ValueError as error:
        return None, f"one of them cannot be given its own features of the rows: {error}"
    classes = all_classes(scorers)
    y = encode_labels(rows.get_column(spec.target), spec, classes)
    first, second = (
        contender(
            spec,
            y,
            aligned(score_rows(scorer, features), scorer.manifest.classes, classes),
            scorer.manifest.threshold,
        )
        for scorer, features in zip(scorers, own, strict=True)
    )
    blocks = block_ids(rows, spec.promotion.block, spec.timestamp)
    return SameRows(
        rows=window(rows, spec),
        first=first.metrics,
        second=second.metrics,
        gain=gain_of(spec, y, blocks, second, first, confidence=spec.promotion.confidence),
        within_blocks=gain_of(spec, y, blocks, second, first, confidence=spec.promotion.confidence, within=True),
        groups=group_results(spec, JudgedRows(rows, y, blocks), second, first),
    ), ""


def _training_set(store: ReleaseStore, scorer: Scorer) -> tuple[str, int]:
    """Table and version of a version's training set in this lake: of one from another environment, of its copy."""
    manifest: Manifest = scorer.manifest
    origin = origin_of(store, scorer.digest)
    if origin is not None and origin.training_set is not None:
        return origin.training_set, origin.training_set_version or 0
    return manifest.provenance.training_set, manifest.provenance.training_set_version
