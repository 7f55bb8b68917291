"""What a model must beat: the naive baseline, which needs no model, and chance, the same answer to every row."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from ml_platform.inference.matrix import encode_labels
from ml_platform.registry.manifest import Label
from ml_platform.spec.guardrails import single_columns
from ml_platform.spec.model import ModelSpec
from ml_platform.training.evaluation.metrics import measure

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
    overall share). Multiclass: the share of each class. Regression: the first finite value of the columns
    `promotion.baseline`, such as the one a season ago; without any, the median, or the model's own quantile.
    """
    y = encode_labels(train.get_column(spec.target), spec, classes)
    if spec.task == "regression":
        value = float(np.quantile(y, 0.5 if spec.quantile is None else spec.quantile))
        name = "median" if spec.quantile is None else f"{spec.quantile:g} quantile"
        if spec.promotion.baseline:
            return _column_baseline(rows, spec.promotion.baseline, median=value)
        return Baseline(np.full(rows.height, value), f"always the {name} of the training rows, {value:.4g}")
    if spec.task == "multiclass":
        share = np.bincount(y.astype(np.int64), minlength=len(classes)) / len(y)
        return Baseline(np.tile(share, (rows.height, 1)), "the share of each class in the training rows")
    overall = float(y.mean())
    columns = list(single_columns(spec.promotion.slices))
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


def _column_baseline(rows: pl.DataFrame, columns: tuple[str, ...], *, median: float) -> Baseline:
    numbers = [pl.col(name).cast(pl.Float64) for name in columns]
    finite = [pl.when(number.is_finite()).then(number) for number in numbers]
    scores = rows.select(pl.coalesce(*finite, pl.lit(median))).to_series().to_numpy()
    else_median = f"{', else '.join(columns)}, else the median of the training rows, {median:.4g}"
    return Baseline(scores, f"each row's {else_median}")


def best_constant(train: pl.DataFrame, y: np.ndarray, spec: ModelSpec, classes: tuple[Label, ...] = ()) -> np.ndarray:
    """Scores of the best answer that is the same for all rows, by the gate's metric: what chance can do.

    The share of each class, the model's quantile, the median (`mae`) or the mean of the training rows; for `accuracy`
    and `f1`, which see the predicted class alone, always the class that does best on the rows themselves.

    Parameters
    ----------
    train
        Rows before those that are answered.
    y
        Labels of the answered rows (rows,), as `encode_labels` gives them.
    spec
        The model.
    classes
        Of a multiclass model.

    Returns
    -------
    numpy.ndarray
        (rows,) or (rows × classes); `accuracy` and `f1` take a threshold of 0.5.
    """
    known = encode_labels(train.get_column(spec.target), spec, classes)
    if spec.quantile is not None:
        return np.full(len(y), np.quantile(known, spec.quantile))
    if spec.task == "regression":
        return np.full(len(y), np.median(known) if spec.metric == "mae" else known.mean())
    if spec.task == "binary":
        shares = np.array([1 - known.mean(), known.mean()])
    else:
        shares = np.bincount(known.astype(np.int64), minlength=len(classes)) / len(known)
    if spec.metric in ("accuracy", "f1"):
        shares = max(
            np.eye(len(shares)),
            key=lambda answer: measure(spec.task, y, _scores(answer, len(y), spec)).get(spec.metric, -1.0),
        )
    return _scores(shares, len(y), spec)


def _scores(shares: np.ndarray, rows: int, spec: ModelSpec) -> np.ndarray:
    return np.full(rows, shares[1]) if spec.task == "binary" else np.tile(shares, (rows, 1))
