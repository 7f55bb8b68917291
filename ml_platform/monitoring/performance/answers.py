"""Labelled rows as the arrays that metrics are computed of: no label and no answer is dropped without being counted."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import polars.selectors as cs

from ml_platform.inference.matrix import UNKNOWN_LABEL, encode_labels
from ml_platform.monitoring.champion import rescore
from ml_platform.spec.model import ModelSpec
from ml_platform.training.evaluation.metrics import measure

if TYPE_CHECKING:
    from ml_platform.inference.scorer import Scorer

GROUP = "group: "  # before the names of columns that groups are made of
_SHOWN_CLASSES = 5


@dataclass(frozen=True)
class Answers:
    """Labels, scores, weights and days of rows, a value per row."""

    y: np.ndarray  # (rows,)
    score: np.ndarray  # (rows,), or (rows × classes) for multiclass
    weights: np.ndarray
    days: np.ndarray  # days since 1970 (UTC) of `as_of`
    unscored: int = 0  # labelled rows without a finite score, in none of the arrays
    unknown_class: int = 0  # rows whose class the model does not know
    unknown_classes: tuple[str, ...] = ()  # the commonest of them
    groups: pl.DataFrame = field(default_factory=pl.DataFrame)  # columns that groups are made of, where asked for

    @property
    def rows(self) -> int:
        """Rows that metrics are computed of."""
        return len(self.y)

    def notes(self) -> tuple[str, ...]:
        """What a reader of the metrics must know of the rows."""
        notes = []
        if self.unknown_class:
            names = ", ".join(self.unknown_classes)
            notes.append(f"{self.unknown_class:,} labels are of classes that the model does not know ({names}): errors")
        if self.unscored:
            notes.append(f"{self.unscored:,} labelled rows have no finite score and are in no metric")
        return tuple(notes)


def answers_of(labelled: pl.DataFrame, spec: ModelSpec, scorer: "Scorer | None") -> Answers:
    """Arrays of labelled rows.

    A class that the model does not know is an error in every metric. Without the bundle of a multiclass version nothing
    can be said of its rows: they count as unscored.
    """
    if spec.task == "multiclass":
        if scorer is None or labelled.is_empty():
            return _nothing(unscored=labelled.height)
        score = np.asarray(rescore(scorer, labelled))  # the recorded score is that of the predicted class alone
        finite = np.isfinite(score).all(axis=1)
        classes = scorer.manifest.classes
    else:
        score = labelled.get_column("score").cast(pl.Float64).fill_null(float("nan")).to_numpy()
        finite = np.isfinite(score)
        classes = ()
    judged, score = labelled.filter(pl.Series(finite)), score[finite]
    y = encode_labels(judged.get_column("target"), spec, classes) if judged.height else np.zeros(0)
    unknown = judged.get_column("target").cast(pl.String).filter(pl.Series(y == UNKNOWN_LABEL)) if classes else None
    return Answers(
        y=y,
        score=score,
        weights=judged.get_column("sample_weight").to_numpy(),
        days=judged.get_column("as_of").dt.epoch("d").to_numpy(),
        unscored=labelled.height - judged.height,
        unknown_class=0 if unknown is None else unknown.len(),
        unknown_classes=() if unknown is None else tuple(unknown.value_counts(sort=True)[:, 0].head(_SHOWN_CLASSES)),
        groups=judged.select(cs.starts_with(GROUP).name.map(lambda name: name.removeprefix(GROUP))),
    )


def figures(answers: Answers, spec: ModelSpec, scorer: "Scorer | None") -> dict[str, float]:
    """All metrics that are defined on the rows; for binary and regression also `mean_score` and `mean_target`."""
    if not answers.rows:
        return {}
    threshold = scorer.manifest.threshold if scorer else None
    metrics = measure(
        spec.task, answers.y, answers.score, threshold=threshold, quantile=spec.quantile, weights=answers.weights
    )
    if spec.task != "multiclass":
        metrics |= {"mean_score": float(np.average(answers.score, weights=answers.weights))}
        metrics |= {"mean_target": float(np.average(answers.y, weights=answers.weights))}
    return metrics


def _nothing(*, unscored: int) -> Answers:
    empty = np.zeros(0)
    return Answers(empty, empty, empty, empty, unscored=unscored)
