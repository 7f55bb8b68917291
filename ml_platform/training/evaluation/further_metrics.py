"""How sure metrics are that decide nothing: an interval of each, where the rows are few enough to afford it."""

from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Interval
from ml_platform.training.evaluation.cluster_interval import ClusterInterval, gain_interval, metric_interval
from ml_platform.training.evaluation.contenders import Contender, JudgedRows

MOST_ROWS = 200_000  # a metric is computed up to 101 times; of more rows only the gate's gets an interval


def further_gains(
    spec: ModelSpec, rows: JudgedRows, own: Contender, other: Contender, *, confidence: float
) -> dict[str, Interval]:
    """Intervals of the gains in all metrics but the gate's, over blocks; of those that are defined for both.

    Nothing for more than `MOST_ROWS` rows. No correction for looking at several: they decide nothing.
    """
    if len(rows.y) > MOST_ROWS:
        return {}
    found = {
        name: gain_interval(
            name,
            spec.task,
            rows.y,
            own.scores,
            other.scores,
            blocks=rows.blocks,
            confidence=confidence,
            thresholds=(own.threshold, other.threshold),
            quantile=spec.quantile,
        )
        for name in own.metrics
        if name != spec.metric and name in other.metrics
    }
    return {name: _gain(spec, one) for name, one in found.items() if one is not None}


def further_intervals(
    spec: ModelSpec, rows: JudgedRows, side: Contender, *, confidence: float
) -> dict[str, tuple[float, float]]:
    """Lower and upper bound of every metric of one model, over blocks; the gate's alone for more rows."""
    names = [name for name in side.metrics if name == spec.metric or len(rows.y) <= MOST_ROWS]
    found = {
        name: metric_interval(
            name,
            spec.task,
            rows.y,
            side.scores,
            blocks=rows.blocks,
            confidence=confidence,
            threshold=side.threshold,
            quantile=spec.quantile,
        )
        for name in names
    }
    return {name: (one.lower, one.upper) for name, one in found.items() if one is not None}


def _gain(spec: ModelSpec, one: ClusterInterval) -> Interval:
    return Interval(
        gain=one.estimate,
        lower=one.lower,
        upper=one.upper,
        confidence=one.confidence,
        standard_error=one.standard_error,
        blocks=one.blocks,
        block=spec.promotion.block,
    )
