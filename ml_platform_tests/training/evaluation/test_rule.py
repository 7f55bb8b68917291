"""How large a gain the gate wants, and how sure of it."""

import numpy as np
import pytest
from pydantic import ValidationError

from ml_platform.spec.promotion import Promotion
from ml_platform.training.evaluation.rule import Rule, confidence_at, rule_of


def rule(promotion: Promotion, *, metric: str = "roc_auc", tries: float = 1, first: bool = False) -> Rule:
    return rule_of(promotion, metric, reference=20.0, tries=tries, first=first)


@pytest.mark.parametrize(
    ("metric", "min_gain"), [("roc_auc", 0.005), ("average_precision", 0.01), ("rmse", 0.2), ("log_loss", 0.2)]
)
def test_a_retrain_has_to_gain_more_than_another_seed_gives(metric: str, min_gain: float) -> None:
    retrain = rule(Promotion(), metric=metric)
    assert (retrain.min_gain, retrain.confidence) == (min_gain, 0.95)
    assert retrain.bound == pytest.approx(-min_gain / 10)


def test_declared_gain_and_tolerance_are_taken() -> None:
    assert rule(Promotion(min_gain=0.003, tolerance=0.004)) == Rule(0.003, -0.004, 0.95)
    assert rule(Promotion(min_gain=0.0)) == Rule(0.0, 0.0, 0.95)


def test_superior_is_judged_by_the_lower_bound_alone() -> None:
    assert rule(Promotion(mode="superior")) == Rule(0.0, 0.0, 0.95)
    assert rule(Promotion(mode="superior", min_gain=0.002)) == Rule(0.0, 0.002, 0.95)


def test_a_first_release_is_better_than_naive_for_sure() -> None:
    assert rule(Promotion(min_gain=0.003, tolerance=0.004), first=True) == Rule(0.0, 0.0, 0.95)


def test_further_tries_have_no_tolerance_and_share_what_error_is_left() -> None:
    second = rule(Promotion(tolerance=0.004), tries=2)
    assert (second.min_gain, second.bound) == (0.005, 0.0)
    assert second.confidence == pytest.approx(0.9875)
    errors = [1 - confidence_at(Promotion(), tries) for tries in range(1, 1000)]
    assert sum(errors) < 1.65 * 0.05


def test_superior_has_no_tolerance() -> None:
    with pytest.raises(ValidationError, match="belongs to mode non_inferior"):
        Promotion(mode="superior", tolerance=0.01)


def false_promotions(promotion: Promotion, error: float, *, tries: int, blocks: int = 28) -> float:
    """Share of champions that lose their place to one of some challengers, none of which is better.

    `error` is the standard error of a gain; half of its variance is the champion's own, which all gains share.
    """
    from scipy.special import stdtrit

    rng, repetitions = np.random.default_rng(3), 20_000
    shared = rng.normal(size=(repetitions, 1))
    gains = error * (shared + rng.normal(size=(repetitions, tries))) / np.sqrt(2)
    errors = error * np.sqrt(rng.chisquare(blocks - 1, gains.shape) / (blocks - 1))
    promoted = np.zeros(repetitions, dtype=bool)
    for number in range(tries):
        wanted = rule(promotion, tries=1 + number)
        lower = gains[:, number] - stdtrit(blocks - 1, (1 + wanted.confidence) / 2) * errors[:, number]
        promoted |= (gains[:, number] >= wanted.min_gain) & (lower > wanted.bound)
    return float(promoted.mean())


@pytest.mark.parametrize("tries", [1, 8, 50])
@pytest.mark.parametrize("mode", ["non_inferior", "superior"])
def test_no_better_challengers_are_promoted_in_less_than_5_percent_at_any_noise(mode: str, tries: int) -> None:
    promotion = Promotion.model_validate({"mode": mode})
    rates = [false_promotions(promotion, error, tries=tries) for error in (5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 3e-2)]
    assert max(rates) < 0.05
    assert max(rates) > 0.02  # the simulation can fail


def test_a_large_tolerance_has_its_price() -> None:
    assert false_promotions(Promotion(min_gain=0.003, tolerance=0.005), 4e-3, tries=1) > 0.15
