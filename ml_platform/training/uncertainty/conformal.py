"""Split conformal prediction: from how far answers were from labels to intervals and sets that hold a wanted share.

Regression: quantiles of label minus score, on either side by itself, since errors need not be alike on both. Classes:
those of at least a probability, of which the label's has had as much in the wanted share of the rows. Both hold for
new rows like those that they were computed on; `adaptive` corrects them for rows that are not.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from ml_platform.inference.intervals import LEVELS, class_sets, interval_bounds
from ml_platform.registry.manifest import Conformal
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Task
from ml_platform.training.artifacts.bundle import iso

MIN_ROWS = 100
_JUDGED_LEVEL = 0.9


def conformal_of(spec: ModelSpec, rows: pl.DataFrame, y: np.ndarray, score: np.ndarray) -> Conformal | None:
    """Compute what intervals and sets are made of, on rows that the model has not learned from.

    Coverage and width are measured on the newer half of the rows, by numbers that the older half gives.

    Parameters
    ----------
    spec
        The model.
    rows
        The rows, sorted by timestamp.
    y, score
        Their encoded labels and scores, as `measure` takes them.

    Returns
    -------
    Conformal | None
        None for fewer than `MIN_ROWS` rows, of which outer quantiles cannot be told.
    """
    if len(y) < MIN_ROWS:
        return None
    half = len(y) // 2
    instants = rows.get_column(spec.timestamp)
    covered, width = measured(spec.task, y[half:], score[half:], numbers_of(spec.task, y[:half], score[:half]))
    first, last = iso(instants.min()), iso(instants.max())  # type: ignore[arg-type]
    numbers = numbers_of(spec.task, y, score)
    return conformal_with(numbers, rows=len(y), first=first, last=last, coverage=covered, width=width)


def numbers_of(
    task: Task, y: np.ndarray, score: np.ndarray, misses: Sequence[tuple[float, float]] | None = None
) -> dict[str, tuple[float, ...]]:
    """Numbers of a `Conformal` for all `LEVELS`.

    Parameters
    ----------
    misses
        For each level the share of labels that may be below and above an interval; of sets, the sum is the share that
        may be outside. Half of what the level leaves on either side when None.
    """
    shares = misses or [((1 - level) / 2, (1 - level) / 2) for level in LEVELS]
    if task == "regression":
        apart = np.sort(y - score)
        lower = [-_upper_quantile(-apart[::-1], below) for below, _ in shares]
        upper = [_upper_quantile(apart, above) for _, above in shares]
        return {
            "levels": LEVELS,
            "lower": tuple(np.minimum.accumulate(lower).tolist()),
            "upper": tuple(np.maximum.accumulate(upper).tolist()),
        }
    missing = np.sort(1 - _of_label(y, score))
    cutoffs = [1 - _upper_quantile(missing, below + above) for below, above in shares]
    return {"levels": LEVELS, "cutoffs": tuple(np.minimum.accumulate(np.clip(cutoffs, 0.0, 1.0)).tolist())}


def conformal_with(
    numbers: Mapping[str, tuple[float, ...]],
    *,
    rows: int = 0,
    first: str = "",
    last: str = "",
    coverage: float | None = None,
    width: float | None = None,
) -> Conformal:
    """A `Conformal` of the numbers that `numbers_of` gives."""
    return Conformal(
        levels=numbers["levels"],
        lower=numbers.get("lower", ()),
        upper=numbers.get("upper", ()),
        cutoffs=numbers.get("cutoffs", ()),
        rows=rows,
        first=first,
        last=last,
        coverage=coverage,
        width=width,
    )


def measured(
    task: Task, y: np.ndarray, score: np.ndarray, numbers: Mapping[str, tuple[float, ...]], level: float = _JUDGED_LEVEL
) -> tuple[float, float]:
    """Share of labels within intervals or sets of a level, and the mean width of these."""
    conformal = conformal_with(numbers)
    if task == "regression":
        low, high = interval_bounds(conformal, level)
        return float(((y >= score + low) & (y <= score + high)).mean()), high - low
    sets = class_sets(conformal, level, score)
    known = y >= 0
    held = sets[np.arange(len(y))[known], y[known].astype(np.int64)].sum() / len(y)
    return float(held), float(sets.sum(axis=1).mean())


def _of_label(y: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Probability that each row's label had; 0 of a class that the model does not know."""
    labels = y.astype(np.int64)
    if score.ndim == 1:
        return np.where(labels == 1, score, 1 - score)
    return np.where(labels < 0, 0.0, score[np.arange(len(score)), np.maximum(labels, 0)])


def _upper_quantile(ordered: np.ndarray, above: float) -> float:
    """Smallest value that at most a share of new values exceeds; the largest where so few rows cannot tell."""
    rank = int(np.ceil((len(ordered) + 1) * (1 - above)))
    return float(ordered[min(max(rank, 1), len(ordered)) - 1])
