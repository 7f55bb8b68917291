"""How sure a metric, or the gain of one model over another, is when rows of one block are alike: a cluster t interval.

Rows of one day share its weather, its strikes, its campaigns. Taken for independent, they give intervals that are far
too narrow. Here the metric is computed again without each block in turn; how much these values differ gives its
standard error, and Student's t with blocks − 1 degrees of freedom the interval (the jackknife over clusters, which
equals the cluster-robust variance of the delta method up to terms of 1 / blocks, and errs on the wide side: Hansen
2025). It needs blocks that are independent of one another, and more than a few of them.
"""

from dataclasses import dataclass

import numpy as np

from ml_platform.spec.types import Task
from ml_platform.training.evaluation.metrics import gain, metric_range, weighted

_MOST_GROUPS = 100  # of more blocks, several are left out at a time: the quantile hardly falls any further
_FEWEST_FOLDS = 5
_CELLS = 4_000_000  # of a chunk of weights: keeps the temporary arrays in the tens of megabytes


@dataclass(frozen=True)
class ClusterInterval:
    """An estimate with a two-sided interval, and the number of blocks that it rests on."""

    estimate: float
    lower: float
    upper: float
    standard_error: float
    confidence: float
    blocks: int  # that hold rows
    effective_blocks: float  # equally large blocks that would say as much (Kish); fewer where few blocks hold most rows


def metric_interval(
    metric: str,
    task: Task,
    y: np.ndarray,
    score: np.ndarray,
    *,
    blocks: np.ndarray,
    confidence: float = 0.95,
    weights: np.ndarray | None = None,
    threshold: float | None = None,
    quantile: float | None = None,
) -> ClusterInterval | None:
    """Interval of one metric of one model.

    Parameters
    ----------
    metric
        Name of one of the task's metrics.
    task
        Kind of model.
    y
        Labels (rows,), as `encode_labels` gives them.
    score
        (rows,) for binary and regression, (rows × classes) for multiclass.
    blocks
        Block of each row (rows,), of any type that sorts; see `ml_platform.training.evaluation.blocks`.
    confidence
        Share of repetitions in which the interval holds the true value.
    weights
        How many rows each one stands for (rows,); one each when None. A row of weight 0 is left out.
    threshold
        Binary: what counts as positive in `f1` and `accuracy`; 0.5 when None.
    quantile
        Of a regression that gives a quantile; None for the mean.

    Returns
    -------
    ClusterInterval or None
        Within the metric's own range. None where the metric is undefined, on all rows or without one of the blocks,
        and where the rows make fewer than two blocks.

    Examples
    --------
    >>> y, days = np.tile([0.0, 1.0, 1.0], 20), np.repeat(np.arange(20), 3)
    >>> found = metric_interval("brier", "binary", y, np.where(days % 2, 0.8, 0.6), blocks=days)
    >>> found.blocks, round(found.estimate, 3), found.lower < found.estimate < found.upper
    (20, 0.233, True)
    """
    replicates = Replicates.of(blocks, weights)
    if replicates is None:
        return None
    values = replicates.values(metric, task, y, score, threshold, quantile)
    return replicates.interval(values, confidence, metric_range(metric))


def gain_interval(
    metric: str,
    task: Task,
    y: np.ndarray,
    challenger: np.ndarray,
    reference: np.ndarray,
    *,
    blocks: np.ndarray,
    confidence: float = 0.95,
    weights: np.ndarray | None = None,
    thresholds: tuple[float | None, float | None] = (None, None),
    quantile: float | None = None,
) -> ClusterInterval | None:
    """Interval of the gain of one model over another on the same rows, positive where the challenger is better.

    Both models are measured on the same rows each time, so what they share cancels. Parameters are those of
    `metric_interval`; `thresholds` are the challenger's and the reference's.

    Examples
    --------
    >>> y, days = np.tile([0.0, 1.0], 50), np.repeat(np.arange(20), 5)
    >>> found = gain_interval("brier", "binary", y, y * 0.9, np.full(100, 0.5), blocks=days)
    >>> found.lower > 0.2
    True
    """
    replicates = Replicates.of(blocks, weights)
    if replicates is None:
        return None
    own, other = (
        replicates.values(metric, task, y, score, cut, quantile)
        for score, cut in zip((challenger, reference), thresholds, strict=True)
    )
    return replicates.interval(np.asarray(gain(metric, own, other)), confidence, (-np.inf, np.inf))


def within_blocks(blocks: np.ndarray) -> np.ndarray | None:
    """Deal the rows of every block evenly to folds, by chance; as blocks these see rows alone, not how blocks differ.

    Each fold has the same part of every block. So an interval over folds says how sure a metric is if the same blocks
    came again with other rows ("the same days again"), where one over blocks says how sure it is for other blocks.

    Parameters
    ----------
    blocks
        Block of each row (rows,).

    Returns
    -------
    numpy.ndarray or None
        Fold of each row (rows,). None where most blocks have fewer than five rows: too little is within them.

    Examples
    --------
    >>> folds = within_blocks(np.repeat([0, 1], 30))
    >>> [np.bincount(folds[:30]).tolist() == np.bincount(folds[30:]).tolist(), int(folds.max())]
    [True, 29]
    """
    sizes = np.unique(blocks, return_counts=True)[1]
    folds = int(min(np.median(sizes), _MOST_GROUPS // 2))
    if folds < _FEWEST_FOLDS:
        return None
    shuffled = np.random.default_rng(0).permutation(len(blocks))
    order = shuffled[np.argsort(blocks[shuffled], kind="stable")]
    dealt = np.empty(len(blocks), dtype=np.int64)
    dealt[order] = np.arange(len(blocks)) % folds
    return dealt


@dataclass(frozen=True)
class Replicates:
    """Which rows are left out together, one group of blocks at a time."""

    weights: np.ndarray
    group: np.ndarray  # of each row
    groups: int
    blocks: int
    effective_blocks: float

    @classmethod
    def of(cls, blocks: np.ndarray, weights: np.ndarray | None) -> "Replicates | None":
        """Give None where the rows with a weight make fewer than two blocks."""
        weights = np.ones(len(blocks)) if weights is None else weights
        present, block = np.unique(blocks, return_inverse=True)
        sizes = np.bincount(block, weights, len(present))
        number = np.cumsum(sizes > 0) - 1
        count = int((sizes > 0).sum())
        if count < 2:
            return None
        groups = min(count, _MOST_GROUPS)
        dealt = np.arange(count) % groups
        if count > groups:  # dealt out by chance, since neighbours may be alike in their sizes
            dealt = np.random.default_rng(0).permutation(dealt)
        effective = float(sizes.sum() ** 2 / (sizes @ sizes))
        return cls(weights, dealt[np.maximum(number, 0)][block], groups, count, effective)

    def values(  # noqa: PLR0917 - private
        self,
        metric: str,
        task: Task,
        y: np.ndarray,
        score: np.ndarray,
        threshold: float | None,
        quantile: float | None,
    ) -> np.ndarray:
        """The metric on all rows, and without each group (1 + groups,)."""
        chunk = max(1, _CELLS // len(y))
        left_out = np.arange(-1, self.groups)
        return np.concatenate(
            [
                weighted(
                    metric,
                    task,
                    y,
                    score,
                    self.weights * (self.group != left_out[start : start + chunk, None]),
                    threshold=threshold,
                    quantile=quantile,
                )
                for start in range(0, len(left_out), chunk)
            ]
        )

    def table(self, codes: np.ndarray, size: int, values: np.ndarray | None = None) -> np.ndarray:
        """Sums (groups × size) of values (rows,), 1 each when None, by group and by a code from 0 to `size` − 1."""
        weights = self.weights if values is None else self.weights * values
        return np.bincount(self.group * size + codes, weights, self.groups * size).reshape(self.groups, size)

    def interval(
        self, values: np.ndarray, confidence: float, limits: tuple[float, float] = (-np.inf, np.inf)
    ) -> ClusterInterval | None:
        """Interval of a statistic from its value on all rows, and without each group (1 + groups,)."""
        from scipy.special import stdtrit

        if not np.isfinite(values).all():
            return None
        value, moved = float(values[0]), values[1:] - values[0]
        error = float(np.sqrt((self.groups - 1) / self.groups * (moved @ moved)))
        reach = float(stdtrit(self.groups - 1, (1 + confidence) / 2)) * error
        return ClusterInterval(
            estimate=value,
            lower=max(value - reach, limits[0]),
            upper=min(value + reach, limits[1]),
            standard_error=error,
            confidence=confidence,
            blocks=self.blocks,
            effective_blocks=self.effective_blocks,
        )
