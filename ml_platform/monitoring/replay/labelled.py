"""Labelled rows that both versions answered, and neither has learned from: what a verdict rests on."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ml_platform.features.training_sets.build import spine_labels
from ml_platform.features.training_sets.spine import Span
from ml_platform.inference.matrix import encode_labels
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.replay.documents import LabelledComparison
from ml_platform.monitoring.replay.pairs import Pair
from ml_platform.monitoring.replay.tally import BoundedSample
from ml_platform.promotion.declared import DeclaredModel
from ml_platform.registry.manifest import Label, Manifest
from ml_platform.spec.model import ModelSpec
from ml_platform.training.evaluation.cluster_interval import gain_interval
from ml_platform.training.evaluation.metrics import measure

if TYPE_CHECKING:
    from ml_platform.inference.scorer import Scorer

MIN_DAYS = 3  # of labelled rows, for an interval over days
_LABELLED_ROWS = 500_000  # that are scored at most


@dataclass
class Counted:
    """Rows on the way to those that are scored."""

    rows: int = 0
    without_id: int = 0
    labelled: int = 0
    learned: int = 0


@dataclass(frozen=True)
class Labels:
    """Known labels by a hash of the row's id, which is an eighth of the id's own memory."""

    frame: pl.DataFrame

    @classmethod
    def read(cls, lake: Lake, declared: DeclaredModel, champion: Manifest, log: pl.LazyFrame) -> "Labels":
        """Read the labels of the window, if its instants are the spine's; else all."""
        spec, span = declared.spec, None
        if champion.as_of == spec.timestamp:
            first, last = (
                log.select(first=pl.col("as_of").min(), last=pl.col("as_of").max()).collect(engine="streaming").row(0)
            )
            span = Span(spec.timestamp, first, last.replace(microsecond=999_999)) if first is not None else None
        labels = spine_labels(lake, spec, declared.folder, span=span)
        return cls(labels.select(_hash(pl.col(spec.id)), pl.col(spec.target).alias("target")).collect().unique("hash"))


def _hash(identifier: pl.Expr) -> pl.Expr:
    return identifier.cast(pl.String).hash(seed=3).alias("hash")


def new_from(scorers: "tuple[Scorer, Scorer]") -> datetime:
    """Instant after which neither version has learned from a row."""
    ends = [datetime.fromisoformat(one.manifest.provenance.trained_until) for one in scorers]
    return max(end if end.tzinfo else end.replace(tzinfo=UTC) for end in ends)


def labelled_pairs(pairs: Iterator[Pair], labels: Labels, learned_until: datetime) -> tuple[BoundedSample, Counted]:
    """Keep the labelled rows that neither has learned from; consumes the pairs."""
    sample, counted = BoundedSample(_LABELLED_ROWS), Counted()
    for pair in pairs:
        columns = {
            f"{name}{number}": scores[:, number] if scores.ndim > 1 else scores
            for name, scores in (("champion", pair.champion), ("challenger", pair.challenger))
            for number in range(scores.shape[1] if scores.ndim > 1 else 1)
        }
        rows = pair.rows.with_columns(
            _hash(pl.col("id")), **{name: pl.Series(values) for name, values in columns.items()}
        )
        counted.rows += rows.height
        counted.without_id += rows.get_column("id").null_count()
        known = rows.drop_nulls("id").join(labels.frame, on="hash", how="inner").drop_nulls("target")
        counted.labelled += known.height
        fair = known.filter(pl.col("as_of") > learned_until)
        counted.learned += known.height - fair.height
        sample.add(fair.drop("id"))
    return sample, counted


def compare_labelled(
    spec: ModelSpec, sample: BoundedSample, scorers: "tuple[Scorer, Scorer]", classes: tuple[Label, ...]
) -> tuple[LabelledComparison | None, list[str]]:
    """Measure both on the sampled rows, with the interval of the gain; None with what is missing."""
    rows = sample.rows()
    if rows.is_empty():
        return None, []
    rows = rows.sort("scored_at").unique("hash", keep="last", maintain_order=True)
    days = rows.get_column("as_of").dt.epoch("d").to_numpy()
    if rows.height < spec.monitoring.min_rows or len(np.unique(days)) < MIN_DAYS:
        return None, [
            f"{rows.height:,} labelled rows of {len(np.unique(days))} days that neither has learned from: wanted are "
            f"{spec.monitoring.min_rows:,} (`monitoring.min_rows`) of {MIN_DAYS} days; wait for labels, or take more "
            "--days"
        ]
    y = encode_labels(rows.get_column("target"), spec, classes)
    weights = rows.get_column("sample_weight").to_numpy()
    champion, challenger = (_scores(rows, name, classes) for name in ("champion", "challenger"))
    thresholds = scorers[1].manifest.threshold, scorers[0].manifest.threshold
    interval = gain_interval(
        spec.metric,
        spec.task,
        y,
        challenger,
        champion,
        blocks=days,
        confidence=spec.promotion.confidence,
        weights=weights,
        thresholds=thresholds,
        quantile=spec.quantile,
    )
    values = [
        measure(spec.task, y, scores, threshold=cut, quantile=spec.quantile, weights=weights).get(spec.metric)
        for scores, cut in zip((challenger, champion), thresholds, strict=True)
    ]
    if interval is None or values[0] is None or values[1] is None:
        return None, [f"{spec.metric} is not defined on the labelled rows, or without one of their days"]
    return LabelledComparison(
        rows=rows.height,
        days=interval.blocks,
        metric=spec.metric,
        challenger=values[0],
        champion=values[1],
        gain=interval.estimate,
        lower=interval.lower,
        upper=interval.upper,
        confidence=interval.confidence,
        sampled=not sample.is_whole,
    ), []


def _scores(rows: pl.DataFrame, name: str, classes: tuple[Label, ...]) -> np.ndarray:
    if not classes:
        return rows.get_column(f"{name}0").to_numpy()
    return rows.select(f"{name}{number}" for number in range(len(classes))).to_numpy()


def why_no_labels(counted: Counted, scorers: "tuple[Scorer, Scorer]") -> list[str]:
    """Say why no labelled row is left, if none is."""
    if not counted.rows:
        return []
    if counted.without_id == counted.rows:
        return ["ids: no logged row has one, so no label can be found for it"]
    if not counted.labelled:
        return [f"labels: none of {counted.rows:,} rows has one yet; they come late, ask again when they are there"]
    if counted.learned == counted.labelled:
        return [
            f"rows that are new to both: one of them has learned from rows up to {new_from(scorers):%Y-%m-%d %H:%M}, "
            f"and all {counted.labelled:,} labelled rows are older"
        ]
    return []
