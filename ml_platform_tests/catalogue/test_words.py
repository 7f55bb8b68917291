"""Metrics in words: the numbers in the sentences are those of the rows."""

import re

import numpy as np
import pytest

from ml_platform.catalogue.model_page.words import (
    Subject,
    metric_in_words,
    number,
    of_hundred,
    outcomes_of,
    quality_in_words,
    things_of,
)
from ml_platform.registry.manifest import Conformal, Reliability
from ml_platform.training.evaluation.metrics import measure

FLIGHTS = Subject("binary", "flights", "late")


def reliability(y: np.ndarray, score: np.ndarray) -> tuple[Reliability, ...]:
    """Ten groups of rows by score."""
    parts = np.array_split(np.argsort(score), 10)
    return tuple(
        Reliability(predicted=float(score[part].mean()), observed=float(y[part].mean()), rows=len(part))
        for part in parts
    )


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.9])
def test_the_counts_of_right_and_wrong_answers_are_those_of_the_rows(threshold):
    draw = np.random.default_rng(5)
    score = draw.beta(2, 4, 2_000)
    y = (draw.random(2_000) < score).astype(float)
    found = outcomes_of(measure("binary", y, score, threshold=threshold), reliability(y, score))
    marked = score >= threshold
    assert found is not None
    assert found.hits == pytest.approx((marked & (y > 0.5)).sum(), abs=1e-3)
    assert found.false_alarms == pytest.approx((marked & (y < 0.5)).sum(), abs=1e-3)
    assert found.misses == pytest.approx((~marked & (y > 0.5)).sum(), abs=1e-3)


def test_numbers_of_other_rows_give_no_counts():
    rows = (Reliability(predicted=0.01, observed=0.01, rows=1_000),)
    assert outcomes_of({"accuracy": 0.5, "f1": 0.6}, rows) is None
    assert outcomes_of({"accuracy": 0.5}, rows) is None
    assert outcomes_of({"accuracy": 0.5, "f1": 0.6}, ()) is None


def test_a_binary_model_is_told_in_marked_and_found_rows():
    rows = (Reliability(predicted=0.2, observed=0.25, rows=100),)
    metrics = {"accuracy": 0.8, "f1": 0.6, "roc_auc": 0.79}
    said = quality_in_words(
        FLIGHTS,
        metrics,
        outcomes=outcomes_of(metrics, rows),
        naive={"roc_auc": 0.58},
        naive_words="the carrier's share",
    )
    assert said[0] == "Of 100 flights that it marks as late, 60 are; the others are false alarms."
    assert said[1] == "Of 100 flights that are late, it finds 60."
    assert "it gives the first the higher probability 79 times of 100; guessing does 50 times" in said[3]
    assert said[-1] == (
        "The simplest answer (the carrier's share) would be: tells late from not late in 58 of 100 pairs. "
        "The model: tells late from not late in 79 of 100 pairs."
    )


def test_a_model_that_marks_nothing_says_so():
    rows = (Reliability(predicted=0.2, observed=0.25, rows=100),)
    metrics = {"accuracy": 0.75, "f1": 0.0}
    said = quality_in_words(FLIGHTS, metrics, outcomes=outcomes_of(metrics, rows))
    assert said[:2] == ["It marked none of the flights as late.", "Of 100 flights that are late, it finds 0."]


def test_a_regression_is_told_in_its_unit():
    of = Subject("regression", "flights", "delay", "minutes")
    conformal = Conformal(levels=(0.5, 0.9), lower=(-6.8, -20.0), upper=(7.2, 45.0), rows=100, first="", last="")
    said = quality_in_words(
        of, {"mae": 9.6, "rmse": 20.0}, conformal=conformal, naive={"mae": 12.0}, naive_words="the median"
    )
    assert said[0] == "Half of the answers are within 7.2 minutes of what came."
    assert said[1] == "At least nine of ten of the answers are within 45 minutes of what came."
    assert said[-1].endswith("off by 9.6 minutes on average, 20 % less.")


def test_no_better_than_the_simplest_answer_is_said():
    of = Subject("regression", "flights", "delay")
    assert quality_in_words(of, {"mae": 12.0}, naive={"mae": 11.0})[-1].endswith("no better than that.")


def test_a_quantile_is_told_as_a_bound():
    of = Subject("regression", "orders", "minutes", "min", quantile=0.9)
    said = quality_in_words(of, {"pinball": 2.0, "coverage": 0.884}, naive={"pinball": 4.0}, naive_words="the quantile")
    assert said == [
        "The answer is meant as a bound: minutes should be at most that in 90 of 100 orders.",
        "It was in 88 of 100.",
        "The simplest answer (the quantile) has a loss of 4; the model has 2, 50 % less.",
    ]


def test_several_classes_are_told_by_right_names():
    said = quality_in_words(Subject("multiclass", "orders", "outcome"), {"accuracy": 0.83}, naive={"accuracy": 0.4})
    assert said[0] == "Of 100 orders, it names the right outcome for 83."
    assert said[1].endswith("The model: right in 83 of 100.")


def test_unknown_metrics_are_named():
    assert metric_in_words("new_metric", 0.5, FLIGHTS) == "new metric 0.5"
    assert quality_in_words(FLIGHTS, {}) == [
        "What was measured cannot be said in words: the model card has the numbers."
    ]


@pytest.mark.parametrize("share", [0.0, 1.0, 0.004, 0.9999, 0.5])
def test_shares_are_never_rounded_to_none_or_all(share):
    said = of_hundred(share)
    assert (said == "0") == (share == 0.0)
    assert (said == "100") == (share == 1.0)


def test_numbers_keep_what_counts():
    assert [number(one) for one in (0, 0.0012, 1.0, 9.99, 10.4, -3.25, 12345.6)] == [
        "0", "0.0012", "1", "10", "10", "-3.2", "12,346",
    ]  # fmt: skip
    assert all(re.fullmatch(r"-?[\d,.]+(e-\d+)?", number(one)) for one in (1e-12, 3.3333))


def test_things_are_named_after_the_identifier():
    assert [things_of(one) for one in ("order_id", "customer_key", "row", "bus_id")] == [
        "orders",
        "customers",
        "cases",
        "bus",
    ]
