"""Models that answer to the same rows: their scores, what these are worth, and how much better one is than another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ml_platform.inference.scorer import Scorer
from ml_platform.registry.manifest import Label
from ml_platform.registry.releases import ReleaseStore
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Interval, SliceResult
from ml_platform.training.evaluation.cluster_interval import gain_interval
from ml_platform.training.evaluation.metrics import gain, measure


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

    The bundle itself stands in where the judged one is gone; then only rows after its refit are new to it.
    """
    served = Scorer.load(store.bundle_path(digest))
    judged = served.manifest.provenance.judged
    if judged is None or not store.bundle_path(judged.digest).is_dir():
        return served
    return Scorer.load(store.bundle_path(judged.digest))


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
    spec: ModelSpec, y: np.ndarray, blocks: np.ndarray, own: Contender, other: Contender, *, confidence: float
) -> Interval | None:
    """Interval of how much better one is than the other; None where the rows make too few blocks."""
    interval = gain_interval(
        spec.metric,
        spec.task,
        y,
        own.scores,
        other.scores,
        blocks=blocks,
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
        blocks=interval.blocks,
        block=spec.promotion.block,
    )


def group_results(
    spec: ModelSpec, rows: pl.DataFrame, y: np.ndarray, own: Contender, other: Contender
) -> tuple[SliceResult, ...]:
    """The gate's metric on every large enough group of `promotion.slices` for which it is defined, for both."""
    results = []
    for column in spec.promotion.slices:
        groups = rows.get_column(column).cast(pl.String)
        for value in groups.unique().sort().to_list():
            chosen = (groups.is_null() if value is None else groups == value).fill_null(False).to_numpy()
            if chosen.sum() < spec.promotion.min_slice_rows:
                continue
            values = [
                contender(spec, y[chosen], model.scores[chosen], model.threshold).metrics.get(spec.metric)
                for model in (own, other)
            ]
            if values[0] is None or values[1] is None:
                continue
            loss = -float(gain(spec.metric, values[0], values[1]))
            results.append(
                SliceResult(
                    column=column,
                    value="(null)" if value is None else str(value),
                    rows=int(chosen.sum()),
                    challenger=values[0],
                    reference=values[1],
                    loss=loss,
                    passed=loss <= spec.promotion.max_slice_loss,
                )
            )
    return tuple(results)
