"""Whether groups are treated alike: how far apart the rates at which they are answered true may be.

The number is the largest difference between two groups. Of many groups that are treated alike, two differ by chance.
So each pair's difference has an interval over blocks of rows, all pairs share the confidence (Bonferroni), and the
bound is broken only where one pair's whole interval is above it. Groups too small for that are named, and not judged.
"""

from dataclasses import dataclass

import numpy as np

from ml_platform.spec.guardrails import Fairness, GuardrailName
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import GuardrailResult
from ml_platform.training.evaluation.cluster_interval import Replicates
from ml_platform.training.evaluation.contenders import Contender, JudgedRows
from ml_platform.training.evaluation.guardrails.groups import Groups
from ml_platform.training.evaluation.guardrails.result import measured, not_computed

_RATES: dict[GuardrailName, str] = {
    "selection_rate": "answered true",
    "true_positive_rate": "answered true where they are",
}
_FEWEST_GROUPS = 2  # of blocks: with one alone nothing is known of how blocks differ


@dataclass(frozen=True)
class RateDifference:
    """Largest difference of a rate between two groups, with an interval for all pairs together."""

    value: float
    lower: float
    upper: float
    highest: int  # group with the highest rate
    lowest: int
    rates: np.ndarray  # (groups,), NaN for those that are not judged


def rate_difference(
    hits: np.ndarray,
    counted: np.ndarray,
    codes: np.ndarray,
    judged: np.ndarray,
    *,
    blocks: np.ndarray,
    confidence: float = 0.95,
) -> RateDifference | None:
    """Compare the rates of groups.

    Parameters
    ----------
    hits, counted
        Whether each row is a hit, and whether it counts at all (rows,).
    codes
        Number of each row's group (rows,).
    judged
        Numbers of the groups to compare.
    blocks
        Block of each row (rows,).
    confidence
        Of the intervals of all pairs together.

    Returns
    -------
    RateDifference or None
        None with fewer than two groups that have counted rows in two blocks or more.
    """
    replicates = Replicates.of(blocks, None)
    if replicates is None or len(judged) < 2:
        return None
    size = int(codes.max()) + 1
    top = replicates.table(codes, size, hits & counted)[:, judged]  # groups of blocks × groups
    bottom = replicates.table(codes, size, counted)[:, judged]
    spread = (bottom > 0).sum(axis=0)
    usable = np.flatnonzero(spread >= _FEWEST_GROUPS)
    if len(usable) < 2:
        return None
    top, bottom, spread = top[:, usable], bottom[:, usable], spread[usable]
    left_out = (top.sum(axis=0) - top) / (bottom.sum(axis=0) - bottom)
    rate = top.sum(axis=0) / bottom.sum(axis=0)
    moved, count = left_out - rate, len(usable)
    # A group whose rows all agree does not vary between blocks, and is no surer for that: not surer than single rows.
    rows = bottom.sum(axis=0) + 2
    smooth = (top.sum(axis=0) + 1) / rows
    least = smooth * (1 - smooth) / rows
    each = 1 - (1 - confidence) / (count * (count - 1) / 2)
    lower, upper = 0.0, 0.0
    for one in range(count - 1):  # against all after it
        difference = np.abs(rate[one] - rate[one + 1 :])
        variance = ((moved[:, [one]] - moved[:, one + 1 :]) ** 2).sum(axis=0) * (1 - 1 / replicates.groups)
        variance = np.maximum(variance, least[one] + least[one + 1 :])
        reach = _t(np.minimum(spread[one], spread[one + 1 :]) - 1, each) * np.sqrt(variance)
        lower, upper = max(lower, float((difference - reach).max())), max(upper, float((difference + reach).max()))
    rates = np.full(size, np.nan)
    rates[judged[usable]] = rate
    return RateDifference(
        value=float(rate.max() - rate.min()),
        lower=lower,
        upper=min(upper, 1.0),
        highest=int(judged[usable[rate.argmax()]]),
        lowest=int(judged[usable[rate.argmin()]]),
        rates=rates,
    )


def _t(degrees: np.ndarray, confidence: float) -> np.ndarray:
    from scipy.special import stdtrit

    return np.asarray(stdtrit(degrees, (1 + confidence) / 2))


def fairness_guardrails(spec: ModelSpec, rows: JudgedRows, own: Contender) -> list[GuardrailResult]:
    """Hold the differences of both rates to their bounds, for each entry of `fairness.columns`."""
    fairness = spec.promotion.guardrails.fairness
    if fairness is None:
        return []
    return [
        _guardrail(spec, fairness, name, rows, own, Groups.by(rows.frame, one))
        for one in fairness.columns
        for name in _RATES
    ]


def _guardrail(  # noqa: PLR0917 - private
    spec: ModelSpec,
    fairness: Fairness,
    name: GuardrailName,
    rows: JudgedRows,
    own: Contender,
    groups: Groups,
) -> GuardrailResult:
    promotion, size = spec.promotion, len(groups.names)
    answered = own.scores >= (0.5 if own.threshold is None else own.threshold)
    bound, counted = fairness.max_selection_difference, np.ones(len(answered), dtype=bool)
    if name == "true_positive_rate":
        bound, counted = fairness.max_true_positive_difference, rows.y > 0.5
    counts = np.bincount(groups.codes[counted], minlength=size)
    large = groups.sizes >= fairness.min_rows
    if name == "true_positive_rate":
        large &= counts >= fairness.min_positives
    small = np.flatnonzero(~large)
    wanted = f"{fairness.min_rows} rows" + (
        f" and {fairness.min_positives} true ones" if name == "true_positive_rate" else ""
    )
    left_out = f"; not judged, with fewer than {wanted}: {groups.named(small, groups.sizes)}" if len(small) else ""
    found = rate_difference(
        answered, counted, groups.codes, np.flatnonzero(large), blocks=rows.blocks, confidence=promotion.confidence
    )
    if found is None:
        why = f"fewer than two of {size} groups of {groups.of} have {wanted}, on several blocks{left_out}"
        return not_computed(promotion, name, bound, why, of=groups.of)
    judged = int(np.isfinite(found.rates).sum())
    said = (
        f"{_RATES[name]}, by {groups.of}: from {found.rates[found.lowest]:.1%} of {groups.names[found.lowest]} to "
        f"{found.rates[found.highest]:.1%} of {groups.names[found.highest]}, a difference of {found.value:.3f} "
        f"({100 * promotion.confidence:.4g}% interval {found.lower:.3f} to {found.upper:.3f} over {judged} groups)"
    )
    if bound is not None:
        said += f", {bound:g} is allowed"
    return measured(
        promotion, name, found.value, bound, said + left_out, of=groups.of, lower=found.lower, upper=found.upper
    )
