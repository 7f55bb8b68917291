"""What the next holdout can show, from how much the gain of the last comparison varied between blocks."""

from dataclasses import dataclass
from math import isfinite, sqrt

from ml_platform.registry.model_card import CardPower, carded_versions, load_card
from ml_platform.registry.releases import ReleaseStore, is_name
from ml_platform.training.evaluation.blocks import blocks_in_words
from ml_platform.training.evaluation.power import blocks_needed, detectable_gain, pass_probability
from ml_platform.training.evaluation.rule import Rule

_SHOWN = (0.5, 1, 2, 4)  # times the blocks that were measured on
_FEWEST = 2


@dataclass(frozen=True)
class MeasuredPower:
    """Power as a version's comparison measured it.

    Attributes
    ----------
    model, version
        Which one it was.
    metric, reference
        Metric of the gate, and what the version was held against.
    power
        What was computed from it.
    """

    model: str
    version: int
    metric: str
    reference: str
    power: CardPower

    @property
    def rule(self) -> Rule:
        """What the gate wants of a first try."""
        return Rule(self.power.min_gain, self.power.bound, self.power.confidence)

    def error_over(self, blocks: int) -> float:
        """Standard error of a gain over so many blocks."""
        return self.power.standard_error * sqrt(self.power.blocks / blocks)


def measured_power(store: ReleaseStore, model: str) -> MeasuredPower:
    """Take the newest version that was compared with a champion; of a model that never had one, the newest.

    Raises
    ------
    LookupError
        When there is no such model, or no version has a card with its power.
    DocumentUnreadable
        When a card is damaged.
    """
    store.check_version(model)
    cards = [load_card(store, model, version) for version in reversed(carded_versions(store, model))]
    estimates = [
        MeasuredPower(model, card.version, card.quality.metric, card.quality.reference, card.quality.power)
        for card in cards
        if card.quality is not None and card.quality.power is not None
    ]
    against_a_champion = [one for one in estimates if one.reference.startswith("champion")]
    for one in (*against_a_champion, *estimates):
        return one
    raise LookupError(
        f"no version of {model} has a measured power: it comes with the gate's comparison on enough rows. Train one: "
        f"ml-platform run {model}"
    )


def power_lines(
    measured: MeasuredPower, *, blocks: int | None = None, gain: float | None = None, share: float | None = None
) -> list[str]:
    """Lines of a terminal: what several numbers of blocks detect, and what a gain needs.

    Parameters
    ----------
    measured
        The last comparison.
    blocks
        A further number of blocks to show, at least two.
    gain
        A true gain; the observed one when None.
    share
        Wanted probability of passing; what was recorded when None.

    Raises
    ------
    ValueError
        When the gain is no finite number.
    """
    if gain is not None and not isfinite(gain):
        raise ValueError(f"gain: wanted a finite number, found {gain}")
    power, rule = measured.power, measured.rule
    share, gain = share or power.share, power.observed if gain is None else gain
    numbers = {max(_FEWEST, round(power.blocks * times)) for times in _SHOWN} | ({blocks} if blocks else set())
    needed = blocks_needed(gain, power.standard_error, power.blocks, rule, share=share, fewest=power.min_blocks)
    lines = [
        f"{measured.model}: the gain in {measured.metric} of version {measured.version} over the {measured.reference} "
        f"has a standard error of {power.standard_error:.2g} over {blocks_in_words(power.blocks, power.block)}.",
        f"The gate wants a gain of at least {rule.min_gain:+.4g} and a lower bound above {rule.bound:+.4g} at "
        f"{100 * rule.confidence:.4g}% confidence.",
    ]
    if not measured.reference.startswith("champion"):
        lines.append("No version was compared with a champion yet: two versions mostly differ less than these do.")
    wanted = f"{_percent(share)} of cases"
    width = max(len(blocks_in_words(number, power.block)) for number in numbers)
    for number in sorted(numbers):
        detected = detectable_gain(measured.error_over(number), number, rule, share=share)
        passing = pass_probability(gain, measured.error_over(number), number, rule)
        lines.append(
            f"  {blocks_in_words(number, power.block):>{width}} detect {detected:+.4f} with {_percent(share)} power; "
            f"a true gain of {gain:+.4f} passes in {passing:.0%} of cases"
        )
    lines.append(
        f"A true gain of {gain:+.4f} needs {blocks_in_words(needed, power.block)} to pass in {wanted}."
        if needed is not None
        else f"A true gain of {gain:+.4f} does not pass in {wanted} with any number of them: the rule wants more."
    )
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"


def power_beforehand(store: ReleaseStore, model: str) -> str | None:
    """One sentence to read before a training; None where no version says it."""
    if not is_name(model) or not carded_versions(store, model):
        return None
    try:
        measured = measured_power(store, model)
    except LookupError:
        return None
    power = measured.power
    there = blocks_in_words(power.blocks, power.block)
    return (
        f"As version {measured.version} was measured, {there} of holdout detect a gain of {power.detectable:+.4f} in "
        f"{measured.metric} with {_percent(power.share)} power (more: ml-platform models power {model})"
    )
