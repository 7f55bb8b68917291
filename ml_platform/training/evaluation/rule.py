"""The gate's rule: how large a gain, and how sure of it, a challenger must be, after how many tries."""

from dataclasses import dataclass

from ml_platform.spec.promotion import Promotion

SEED_NOISE = {"roc_auc": 0.005, "accuracy": 0.005, "average_precision": 0.01, "f1": 0.01, "r2": 0.01}
SEED_NOISE_SHARE = 0.01  # of the reference's value, for metrics whose unit is the data's
TOLERANCE_SHARE = 0.1  # of min_gain: keeps false promotions below 4 % of first tries, whatever the noise


@dataclass(frozen=True)
class Rule:
    """What is wanted of a gain."""

    min_gain: float  # the gain itself is at least this; 0 where only the bound counts
    bound: float  # the lower bound of the interval is above this
    confidence: float

    def allows(self, gain: float, lower: float) -> bool:
        """Whether a gain with this lower bound of its interval is enough."""
        return gain >= self.min_gain and lower > self.bound


def rule_of(promotion: Promotion, metric: str, *, reference: float, tries: float, first: bool) -> Rule:
    """Say what a challenger has to show.

    Parameters
    ----------
    promotion
        Mode, minimal gain, tolerance and confidence as declared.
    metric
        Metric of the gate.
    reference
        The reference's value of it.
    tries
        How many challengers were judged on these rows, this one included (see `evaluation.tries`). After the
        first there is no tolerance.
    first
        Whether nothing serves yet: the reference is the naive baseline, and the lower bound must be above 0.

    Examples
    --------
    >>> rule_of(Promotion(), "roc_auc", reference=0.75, tries=1, first=False)
    Rule(min_gain=0.005, bound=-0.0005, confidence=0.95)
    >>> rule_of(Promotion(), "roc_auc", reference=0.75, tries=2, first=False)
    Rule(min_gain=0.005, bound=0.0, confidence=0.9875)
    """
    confidence = confidence_at(promotion, tries)
    if first or promotion.mode == "superior":
        return Rule(0.0, 0.0 if first else (promotion.min_gain or 0.0), confidence)
    min_gain = seed_noise(metric, reference) if promotion.min_gain is None else promotion.min_gain
    tolerance = TOLERANCE_SHARE * min_gain if promotion.tolerance is None else promotion.tolerance
    return Rule(min_gain, -tolerance if tries <= 1 and tolerance else 0.0, confidence)


def confidence_at(promotion: Promotion, tries: float) -> float:
    """Confidence of the gain's interval at a try: the error of the k-th is 1 / k² of the first one's.

    So the errors of all tries together stay below 1.65 of it (π² / 6), however many there are.
    """
    return 1 - (1 - promotion.confidence) / tries**2


def seed_noise(metric: str, reference: float) -> float:
    """Difference of a metric, near the value `reference`, that the seed of training alone may well make."""
    return SEED_NOISE.get(metric, SEED_NOISE_SHARE * abs(reference))
