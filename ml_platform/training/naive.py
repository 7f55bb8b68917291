"""The naive baseline: the best answer without a model. The first model must beat it."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from ml_platform.registry.manifest import Label
from ml_platform.spec import ModelSpec
from ml_platform.training.matrix import encode_labels

_PRIOR_ROWS = 20.0


@dataclass(frozen=True)
class Baseline:
    """Scores of the naive answer and its description."""

    scores: np.ndarray
    description: str


def naive_baseline(
    train: pl.DataFrame, rows: pl.DataFrame, spec: ModelSpec, classes: tuple[Label, ...] = ()
) -> Baseline:
    """Answer `rows` from the labels of `train` alone.

    Binary: the share of positives, within each group of `promotion.slices` where the spec names slices (shrunk to the
    overall share). Multiclass: the share of each class. Regression: the median.
    """
    y = encode_labels(train.get_column(spec.target), spec, classes)
    if spec.task == "regression":
        median = float(np.median(y))
        return Baseline(np.full(rows.height, median), f"always the median of the training rows, {median:.4g}")
    if spec.task == "multiclass":
        share = np.bincount(y.astype(np.int64), minlength=len(classes)) / len(y)
        return Baseline(np.tile(share, (rows.height, 1)), "the share of each class in the training rows")
    overall = float(y.mean())
    columns = list(spec.promotion.slices)
    if not columns:
        return Baseline(np.full(rows.height, overall), f"the training rows' share of positives, {overall:.1%}")
    groups = (
        train.select(pl.col(name).cast(pl.String) for name in columns)
        .with_columns(pl.Series("positive", y))
        .group_by(columns)
        .agg(share=(pl.col("positive").sum() + _PRIOR_ROWS * overall) / (pl.len() + _PRIOR_ROWS))
    )
    joined = rows.select(pl.col(name).cast(pl.String) for name in columns).join(
        groups, on=columns, how="left", nulls_equal=True, maintain_order="left"
    )
    scores = joined.get_column("share").fill_null(overall).to_numpy()
    return Baseline(scores, f"the training rows' share of positives by {', '.join(columns)}, overall {overall:.1%}")
