"""What a holdout can show before anybody looks: how large a true gain passes the gate, and how many blocks it takes.

The standard error of a gain over so many blocks, as it was measured, says what it would be over others: it falls with
the root of their number. With it the probability that a true gain passes the rule follows, for the two conditions of
the rule together: the measured gain is large enough, and the lower bound of its interval high enough.
"""

from math import sqrt

import numpy as np

from ml_platform.spec.promotion import Promotion
from ml_platform.training.documents import Interval, Power
from ml_platform.training.evaluation.blocks import blocks_in_words
from ml_platform.training.evaluation.rule import Rule, rule_of

SHARE = 0.8  # probability of passing that is asked for where nobody says otherwise
_MOST_BLOCKS = 100_000
_POINTS = 400  # of the distribution of the estimated standard error


def pass_probability(gain: float, standard_error: float, blocks: int, rule: Rule) -> float:
    """Probability that a true gain passes the rule.

    Parameters
    ----------
    gain
        The true gain.
    standard_error
        Of a measured gain over these blocks.
    blocks
        How many there are, at least two.
    rule
        What is wanted.

    Examples
    --------
    >>> rule = Rule(min_gain=0.005, bound=-0.0005, confidence=0.95)
    >>> round(pass_probability(0.0075, 0.0025, 28, rule), 2), round(pass_probability(0.0, 0.0025, 28, rule), 2)
    (0.83, 0.02)
    """
    from scipy.special import chdtri, ndtr, stdtrit

    if standard_error == 0:
        return float(rule.allows(gain, gain))
    degrees = blocks - 1
    quantiles = (np.arange(_POINTS) + 0.5) / _POINTS
    estimated = standard_error * np.sqrt(chdtri(degrees, 1 - quantiles) / degrees)
    wanted = np.maximum(rule.min_gain, rule.bound + stdtrit(degrees, (1 + rule.confidence) / 2) * estimated)
    return float(ndtr((gain - wanted) / standard_error).mean())


def detectable_gain(standard_error: float, blocks: int, rule: Rule, *, share: float = SHARE) -> float:
    """Smallest true gain that passes the rule with a probability.

    Examples
    --------
    >>> round(detectable_gain(0.0025, 28, Rule(min_gain=0.005, bound=-0.0005, confidence=0.95)), 4)
    0.0072
    """
    low = min(rule.min_gain, rule.bound)
    step = max(standard_error, 1e-12)
    while pass_probability(low + step, standard_error, blocks, rule) < share:
        step *= 2
    high = low + step
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if pass_probability(middle, standard_error, blocks, rule) >= share else (middle, high)
    return high


def blocks_needed(
    gain: float, standard_error: float, blocks: int, rule: Rule, *, share: float = SHARE, fewest: int = 2
) -> int | None:
    """Blocks with which a true gain passes with a probability; None where no number of them suffices.

    Parameters
    ----------
    gain
        The true gain.
    standard_error, blocks
        Of a gain, as it was measured over so many blocks.
    rule, share
        What is wanted, and how probable it is to pass.
    fewest
        Blocks below which there is no verdict.

    Examples
    --------
    >>> rule = Rule(min_gain=0.005, bound=-0.0005, confidence=0.95)
    >>> blocks_needed(0.0075, 0.0025, 28, rule), blocks_needed(0.004, 0.0025, 28, rule)
    (26, None)
    """

    def passes(number: int) -> bool:
        return pass_probability(gain, standard_error * sqrt(blocks / number), number, rule) >= share

    low, high = fewest, fewest
    while not passes(high):
        if high >= _MOST_BLOCKS:
            return None
        low, high = high + 1, high * 2
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle + 1, high)
    return low


def power_of(promotion: Promotion, metric: str, interval: Interval, *, reference: float, first: bool) -> Power:
    """Say what the blocks of a measured gain could show, at a first try.

    Parameters
    ----------
    promotion
        The rule.
    metric
        Metric of the gate.
    interval
        The gain over the reference.
    reference
        The reference's value of the metric.
    first
        Whether nothing serves yet.
    """
    rule = rule_of(promotion, metric, reference=reference, tries=1, first=first)
    error, blocks = interval.standard_error, interval.blocks
    return Power(
        share=SHARE,
        blocks=blocks,
        block=interval.block,
        standard_error=error,
        confidence=rule.confidence,
        min_gain=rule.min_gain,
        bound=rule.bound,
        min_blocks=promotion.min_blocks,
        detectable=detectable_gain(error, blocks, rule),
        observed=interval.gain,
        blocks_needed=blocks_needed(interval.gain, error, blocks, rule, fewest=promotion.min_blocks),
    )


def in_words(power: Power) -> str:
    """Say what was computed.

    Examples
    --------
    >>> found = Power(
    ...     blocks=28, block="day", standard_error=0.0025, confidence=0.95, min_gain=0.005, bound=-0.0005,
    ...     detectable=0.0072, observed=0.006, blocks_needed=80,
    ... )
    >>> in_words(found)
    '28 days detect a gain of +0.0072 with 80% power; the observed +0.0060, if true, would need 80 days'
    """
    there = blocks_in_words(power.blocks, power.block)
    said = f"{there} detect a gain of {power.detectable:+.4f} with {power.share:.0%} power"
    observed = f"the observed {power.observed:+.4f}"
    if power.blocks_needed is None:
        return f"{said}; {observed} would not pass in so many cases with any number of them, as the rule wants more"
    if power.blocks_needed <= power.blocks:
        return f"{said}; {observed}, if true, would do with {blocks_in_words(power.blocks_needed, power.block)}"
    return f"{said}; {observed}, if true, would need {blocks_in_words(power.blocks_needed, power.block)}"
