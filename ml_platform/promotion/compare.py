"""Versions of a model side by side: how each was made, and all scored on the same rows that are new to all."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl

from ml_platform.features.views.view import FeatureView
from ml_platform.inference.batch import score_frame
from ml_platform.inference.matrix import encode_labels
from ml_platform.inference.scorer import Scorer
from ml_platform.lake.storage.tables import Lake
from ml_platform.promotion.card import card_interval
from ml_platform.registry.comparisons import ComparedGroup, SameRows, keep_comparison
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Manifest
from ml_platform.registry.origins import origin_of
from ml_platform.registry.recorded_comparison import predict_the_same, unlike
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.version_facts import VersionFacts, facts_of
from ml_platform.spec.model import ModelSpec
from ml_platform.training.data.split import window
from ml_platform.training.documents import SliceResult
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
from ml_platform.training.evaluation.further_metrics import further_gains, further_intervals
from ml_platform.training.evaluation.guardrails.slices import group_results
from ml_platform.training.evaluation.rescoring import VersionRows


@dataclass(frozen=True)
class VersionComparison:
    """Versions of a model side by side.

    Attributes
    ----------
    model
        Its name.
    sides
        What is recorded of each, with the latency as measured now.
    warnings
        Why their numbers do not compare, or only with care.
    same_rows
        All of them on rows that none has learned from; None where there are none.
    why_none
        Why there are none.
    """

    model: str
    sides: tuple[VersionFacts, ...]
    warnings: tuple[str, ...]
    same_rows: SameRows | None
    why_none: str = ""


def compare_versions(
    lake: Lake,
    store: ReleaseStore,
    spec: ModelSpec,
    folder: Path,
    views: Mapping[str, FeatureView],
    *,
    versions: Sequence[int],
) -> VersionComparison:
    """Compare versions, and keep what they came to on the same rows, where the console finds it.

    Parameters
    ----------
    lake, store
        Where training sets and bundles are.
    spec, folder, views
        The model, its folder, and the project's feature views by name.
    versions
        Two or more; gains are over the first.

    Raises
    ------
    LookupError
        When a version is not registered, with those that are.
    ValueError
        When there are fewer than two.
    BundleRefused
        When a bundle is damaged.
    """
    if len(set(versions)) < len(versions) or len(versions) < 2:
        raise ValueError(f"wanted two versions or more, each once; found {', '.join(map(str, versions)) or 'none'}")
    known = store.versions(spec.name)
    if missing := [str(version) for version in versions if version not in known]:
        raise LookupError(f"no version {' and '.join(missing)} is registered; there are {sorted(known) or 'none'}")
    sides = tuple(facts_of(store, spec.name, version) for version in versions)
    why_none = _incomparable(spec, sides)
    same_rows = None
    if not why_none:
        sides = tuple(msgspec.structs.replace(side, latency_ms=_latency(store, side)) for side in sides)
        same_rows, why_none = _same_rows(lake, store, spec, VersionRows(lake, spec, folder, views), sides)
    if same_rows is not None:
        keep_comparison(store, same_rows)
    return VersionComparison(
        model=spec.name,
        sides=sides,
        warnings=(*unlike(sides), *_recalibrated_later(sides, same_rows)),
        same_rows=same_rows,
        why_none=why_none,
    )


def _incomparable(spec: ModelSpec, sides: Sequence[VersionFacts]) -> str:
    """Why no rows can judge between versions; an empty text where they can."""
    if without_bundle := [side for side in sides if side.bundle_bytes is None]:
        return "; ".join(f"version {side.version} cannot be scored: {side.missing[0]}" for side in without_bundle)
    if not predict_the_same(sides):
        return "they do not predict the same"
    side = sides[0]
    if (side.target, side.task) != (spec.target, spec.task):
        return (
            f"they predict {side.target} ({side.task}), and defs.yaml now declares {spec.target} ({spec.task}): there "
            "are no labels to judge them by"
        )
    return ""


def _latency(store: ReleaseStore, side: VersionFacts) -> float:
    return one_row_latency_ms(Scorer.load(store.bundle_path(side.digest)), store)


def _same_rows(
    lake: Lake, store: ReleaseStore, spec: ModelSpec, source: VersionRows, sides: Sequence[VersionFacts]
) -> tuple[SameRows | None, str]:
    """Score all on the rows of the newest training set that none has learned from."""
    scorers = [as_judged(store, side.digest) for side in sides]
    made = {scorer.digest: scorer.manifest for scorer in scorers}
    if any(manifest.recalibrated is not None for manifest in made.values()):  # on answers that came after its training
        made |= dict(_of_newer_sets(store, spec.name, max(made.values(), key=_set_version)))
    digest, newest = max(made.items(), key=lambda one: _set_version(one[1]))
    table, version = _training_set(store, newest, digest)
    learned = max(datetime.fromisoformat(scorer.manifest.provenance.trained_until) for scorer in scorers)
    try:
        rows = (
            lake.read(table, version=version)
            .filter(pl.col(spec.timestamp) > learned)
            .sort(spec.timestamp, spec.id)
            .collect(engine="streaming")
        )
    except (LookupError, FileNotFoundError) as error:
        return None, f"the training set is gone: {error}"
    if rows.is_empty():
        return None, f"all rows of {table} version {version} are older than what one of them has learned from"
    try:
        own = [source.of(scorer.manifest, rows, tables=newest.provenance.tables, made_for=newest) for scorer in scorers]
    except ValueError as error:
        return None, f"one of them cannot be given its own features of the rows: {error}"
    classes = all_classes(scorers)
    y = encode_labels(rows.get_column(spec.target), spec, classes)
    first, *others = scored = [
        contender(
            spec,
            y,
            aligned(score_frame(scorer, features), scorer.manifest.classes, classes),
            scorer.manifest.threshold,
        )
        for scorer, features in zip(scorers, own, strict=True)
    ]
    blocks = block_ids(rows, spec.promotion.block, spec.timestamp)
    confidence = spec.promotion.confidence
    gains = [gain_of(spec, y, blocks, other, first, confidence=confidence) for other in others]
    again = [gain_of(spec, y, blocks, other, first, confidence=confidence, within=True) for other in others]
    judged = JudgedRows(rows, y, blocks)
    further = [further_gains(spec, judged, other, first, confidence=confidence) for other in others]
    compared, now = window(rows, spec), datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    assert compared.first is not None
    assert compared.last is not None
    return SameRows(
        model=spec.name,
        versions=tuple(side.version for side in sides),
        digests=tuple(side.digest for side in sides),
        metric=spec.metric,
        rows=compared.rows,
        first=compared.first.isoformat(),
        last=compared.last.isoformat(),
        metrics=tuple(one.metrics for one in scored),
        gains=(None, *(card_interval(gain) if gain else None for gain in gains)),
        within_blocks=(None, *(card_interval(gain) if gain else None for gain in again)),
        intervals=tuple(further_intervals(spec, judged, one, confidence=confidence) for one in scored),
        further_gains=({}, *({name: card_interval(gain) for name, gain in one.items()} for one in further)),
        groups=_groups([group_results(spec, judged, other, first) for other in others]),
        compared_at=now,
    ), ""


def _groups(results: Sequence[Sequence[SliceResult]]) -> tuple[ComparedGroup, ...]:
    """Results of each later version beside the first, group by group."""
    by_group: dict[tuple[str, str], list[SliceResult | None]] = {}
    for place, found in enumerate(results):
        for one in found:
            by_group.setdefault((one.column, one.value), [None] * len(results))[place] = one
    groups = []
    for (column, value), found_there in by_group.items():
        known = next(one for one in found_there if one is not None)
        values = (known.reference, *(one.challenger if one else None for one in found_there))
        groups.append(ComparedGroup(column=column, value=value, rows=known.rows, metrics=values))
    return tuple(groups)


def _set_version(manifest: Manifest) -> int:
    return manifest.provenance.training_set_version


def _of_newer_sets(store: ReleaseStore, model: str, known: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Bundles and manifests of the model's versions whose training set is a newer version of the same table."""
    for digest in set(store.versions(model).values()):
        with contextlib.suppress(LookupError, BundleRefused):  # without its bundle it has nothing to offer
            manifest = store.load_manifest(digest)
            is_same = manifest.provenance.training_set == known.provenance.training_set
            if is_same and _set_version(manifest) > _set_version(known) and origin_of(store, digest) is None:
                yield digest, manifest


def _recalibrated_later(sides: Sequence[VersionFacts], same_rows: SameRows | None) -> list[str]:
    """Say of recalibrated versions that the rows are older than what they were recalibrated on."""
    if same_rows is None:
        return []
    return [
        f"Version {side.version} was recalibrated on answers until {side.calibration.fitted_until[:10]}, later than "
        f"all of these rows (until {same_rows.last[:10]}): they do not show what it was recalibrated for; train "
        "a version on newer rows, or see `ml-platform replay`."
        for side in sides
        if side.recalibrated and side.calibration and side.calibration.fitted_from > same_rows.last
    ]


def _training_set(store: ReleaseStore, manifest: Manifest, digest: str) -> tuple[str, int]:
    """Table and version of a version's training set in this lake: of one from another environment, of its copy."""
    origin = origin_of(store, digest)
    if origin is not None and origin.training_set is not None:
        return origin.training_set, origin.training_set_version or 0
    return manifest.provenance.training_set, manifest.provenance.training_set_version
