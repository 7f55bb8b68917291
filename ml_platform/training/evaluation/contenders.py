"""Models that answer to the same rows: their scores, what these are worth, and how much better one is than another."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl

from ml_platform.inference.calibration import for_classes
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.manifest import Label
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Interval
from ml_platform.training.evaluation.cluster_interval import gain_interval, within_blocks
from ml_platform.training.evaluation.metrics import measure
from ml_platform.training.export.calibrated_graph import calibrate_graph


@dataclass(frozen=True)
class JudgedRows:
    """Rows that contenders answer to: their columns, labels (rows,), and the block of each (rows,)."""

    frame: pl.DataFrame
    y: np.ndarray
    blocks: np.ndarray


@dataclass(frozen=True)
class Contender:
    """A model's scores on the compared rows."""

    scores: np.ndarray
    threshold: float | None
    metrics: dict[str, float]


def contender(spec: ModelSpec, y: np.ndarray, scores: np.ndarray, threshold: float | None) -> Contender:
    """Measure scores of rows with these labels."""
    return Contender(scores, threshold, measure(spec.task, y, scores, threshold=threshold, quantile=spec.quantile))


def as_judged(store: ReleaseStore, digest: str) -> Scorer:
    """Load a version as the gate judged it: after its refit it knows rows on which it is to be compared now.

    Where its probabilities were calibrated anew since, the judged model is calibrated so too: it has two numbers from
    rows that it may be compared on, which is to its good, and the challenger meets what really serves. The bundle
    itself stands in where the judged one is gone; then only rows after its refit are new to it.
    """
    served = Scorer.load(store.bundle_path(digest))
    judged = served.manifest.provenance.judged
    if judged is None or not store.bundle_path(judged.digest).is_dir():
        return served
    scorer = Scorer.load(store.bundle_path(judged.digest))
    if served.manifest.recalibrated is None:
        return scorer
    manifest = scorer.manifest
    calibration = for_classes(served.manifest.calibration, served.manifest.classes, manifest.classes)
    if calibration is None:
        return scorer
    onnx = calibrate_graph(store.read_bundle(judged.digest)["model.onnx"], manifest.task, calibration)
    return Scorer(msgspec.structs.replace(manifest, calibration=calibration), onnx, judged.digest)


def all_classes(scorers: Sequence[Scorer]) -> tuple[Label, ...]:
    """Classes that any of the models knows, the first one's first: none is blamed for what only it knows."""
    classes = list(scorers[0].manifest.classes)
    for other in scorers[1:]:
        names = set(map(str, classes))
        classes += [name for name in other.manifest.classes if str(name) not in names]
    return tuple(classes)


def aligned(scores: np.ndarray, classes: tuple[Label, ...], wanted: tuple[Label, ...]) -> np.ndarray:
    """Multiclass scores in another order of classes; a class that the model does not know has probability 0."""
    if classes == wanted:
        return scores
    zero, names = np.zeros(len(scores)), [str(name) for name in classes]
    return np.column_stack([scores[:, names.index(str(name))] if str(name) in names else zero for name in wanted])


def gain_of(
    spec: ModelSpec,
    y: np.ndarray,
    blocks: np.ndarray,
    own: Contender,
    other: Contender,
    *,
    confidence: float,
    within: bool = False,
) -> Interval | None:
    """Interval of how much better one is than the other; None where the rows make too few blocks.

    With `within` it is that of the same blocks with other rows (`cluster_interval.within_blocks`).
    """
    folds = within_blocks(blocks) if within else blocks
    if folds is None:
        return None
    interval = gain_interval(
        spec.metric,
        spec.task,
        y,
        own.scores,
        other.scores,
        blocks=folds,
        confidence=confidence,
        thresholds=(own.threshold, other.threshold),
        quantile=spec.quantile,
    )
    if interval is None:
        return None
    return Interval(
        gain=interval.estimate,
        lower=interval.lower,
        upper=interval.upper,
        confidence=confidence,
        standard_error=interval.standard_error,
        blocks=len(np.unique(blocks)) if within else interval.blocks,
        block=spec.promotion.block,
    )
