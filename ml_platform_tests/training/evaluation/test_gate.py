from datetime import UTC, datetime
from typing import Any

import pytest

from ml_platform.training.documents import Evaluation, Interval, ParityReport, SliceResult, Support, Window
from ml_platform.training.evaluation.gate import NAIVE, decide
from ml_platform.training.evaluation.guardrails.model import latency_guardrail, parity_guardrail
from ml_platform.training.evaluation.guardrails.result import not_computed
from ml_platform.training.evaluation.guardrails.slices import slice_guardrails
from ml_platform_tests.toy_world import shop_spec

HOLDOUT = Window(first=datetime(2024, 3, 1, tzinfo=UTC), last=datetime(2024, 3, 28, tzinfo=UTC), rows=15213)
PROMOTION = {"slices": ["shop"], "max_slice_loss": 0.05, "max_latency_ms": 5}


def interval(lower: float, gain: float = 0.009) -> Interval:
    return Interval(
        gain=gain, lower=lower, upper=2 * gain - lower, confidence=0.95, standard_error=0.002, blocks=28, block="day"
    )


def support(**changes: Any) -> Support:
    enough = {"rows": 15213, "class_rows": 3000, "blocks": 28, "effective_blocks": 26.3, "constant": False}
    return Support.model_validate(enough | changes)


def judge(promotion: dict[str, Any] | None = None, **changes: Any) -> tuple[bool, tuple[str, ...]]:
    compared: dict[str, Any] = {
        "model": "order_late",
        "metric": "roc_auc",
        "higher_is_better": True,
        "challenger_digest": "a",
        "challenger_model_digest": "b",
        "revision": 1,
        "reference": "champion (version 3)",
        "challenger": {"roc_auc": 0.751},
        "champion": {"roc_auc": 0.742},
        "naive": {"roc_auc": 0.5},
        "interval": interval(0.004),
        "over_naive": interval(0.2, 0.25),
        "over_chance": interval(0.2, 0.25),
        "support": support(),
        "latency_ms": 0.03,
        "parity": ParityReport(rows=100, max_difference=1e-16, tolerance=1e-10),
        "slices": (group(0.02),),
        "holdout": HOLDOUT,
        "promote": False,
        "reasons": (),
    }
    spec = shop_spec(promotion=PROMOTION | (promotion or {}))
    found = Evaluation.model_validate({**compared, **changes})
    guardrails = (
        *slice_guardrails(spec, found.reference, found.slices),
        latency_guardrail(spec, found.latency_ms),
        parity_guardrail(spec, found.parity),
    )
    return decide(spec, found.model_copy(update={"guardrails": guardrails}))


def group(loss: float, *, lower: float | None = 0.001) -> SliceResult:
    passed = loss <= 0.05 or lower is None or lower <= 0
    return SliceResult(
        column="shop", value="a", rows=700, challenger=0.7, reference=0.7 + loss, loss=loss, lower=lower, passed=passed
    )


def test_clear_gain_is_promoted_with_numbers() -> None:
    promote, reasons = judge()
    assert promote
    assert reasons[0] == "Promote: the challenger passes the gate."
    assert "roc_auc 0.7510 against 0.7420 of the champion (version 3) on 15,213 unseen rows" in reasons[1]
    assert "gain +0.0090, 95% interval +0.0040 to +0.0140 over 28 days" in reasons[1]
    assert "gain wanted of at least +0.005, lower bound wanted above -0.0005" in reasons[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interval": interval(-0.001)}, "Failed: roc_auc 0.7510 against 0.7420"),
        ({"interval": interval(0.002, gain=0.0049)}, "gain wanted of at least +0.005"),
        ({"interval": None}, "Failed: roc_auc is undefined on 15,213 unseen rows"),
        ({"over_naive": interval(-0.01)}, "Failed: gain over the naive baseline: roc_auc 0.7510 against 0.5000: +0.0"),
        ({"over_naive": None}, "Failed: roc_auc of the naive baseline is undefined"),
        ({"over_chance": interval(0.0)}, "Failed: gain over the best constant answer: +0.0090, 95% interval"),
        ({"support": support(constant=True)}, "Failed: the challenger gives every holdout row the same answer"),
        ({"slices": (group(0.02), group(0.051))}, "Failed: 1 of 2 groups of shop lose more than 0.05"),
        ({"slices": ()}, "Failed: slices cannot be computed: no group of shop has 500 rows (promotion.min_slice_rows)"),
        ({"slices": (group(0.2, lower=None),)}, "Failed: slices cannot be computed"),
        ({"latency_ms": 6.0}, "Failed: a one-row prediction takes 6.000 ms, 5 ms are allowed"),
        (
            {"parity": ParityReport(rows=9, max_difference=1e-3, tolerance=1e-10)},
            "Failed: the exported graph differs from the trained model by at most 1.0e-03",
        ),
    ],
)
def test_any_failed_condition_refuses_and_says_which(changes: dict[str, Any], said: str) -> None:
    promote, reasons = judge(**changes)
    assert not promote
    assert reasons[0].startswith("Do not promote")
    assert any(said in reason for reason in reasons), reasons


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": 199}, "the holdout has 199 rows, promotion.min_rows wants 200"),
        ({"class_rows": 29}, "29 holdout rows are of another class than the most frequent"),
        ({"blocks": 6}, "the holdout has 6 days, promotion.min_blocks wants 7; lengthen split.holdout"),
        ({"effective_blocks": 2.1}, "a few of 28 days hold most holdout rows"),
    ],
)
def test_too_little_to_tell_is_no_verdict(changes: dict[str, Any], said: str) -> None:
    promote, reasons = judge(support=support(**changes))
    assert not promote
    assert reasons[0] == "Do not promote: no verdict, the holdout is too small for one."
    assert said in reasons[1]
    assert len(reasons) == 2


def test_tolerance_lets_an_unsure_gain_pass_and_superior_does_not() -> None:
    unsure = interval(-0.0004, gain=0.006)
    assert judge(interval=unsure)[0]
    assert not judge({"mode": "superior"}, interval=unsure)[0]
    assert not judge({"tolerance": 0.0}, interval=unsure)[0]
    assert judge({"mode": "superior"}, interval=interval(0.0001, gain=0.002))[0]


def test_the_spec_says_how_large_a_gain_is_wanted() -> None:
    assert not judge({"min_gain": 0.01})[0]
    assert judge({"min_gain": 0.001}, interval=interval(0.0005, gain=0.002))[0]
    assert not judge({"mode": "superior", "min_gain": 0.005})[0]


def test_a_further_try_is_told_and_has_no_tolerance() -> None:
    promote, reasons = judge(interval=interval(-0.0001), tries=2.75)
    assert not promote
    assert "lower bound wanted above +0, this sure because other challengers were judged on these rows" in reasons[1]
    assert "(try number 2.75)" in reasons[1]


def test_small_slice_losses_pass_and_the_worst_is_named() -> None:
    slices = (group(0.01), group(0.049))
    assert judge(slices=slices)[0]
    (found,) = slice_guardrails(shop_spec(promotion=PROMOTION), "champion", slices)
    assert "none of 2 groups of shop loses more than 0.05" in found.reason
    assert "0.7490" in found.reason
    assert (found.value, found.bound, found.verdict) == (0.049, 0.05, "held")


def test_a_loss_that_may_be_chance_does_not_refuse_and_is_told() -> None:
    slices = (group(0.01), group(0.08, lower=-0.001))
    assert judge(slices=slices)[0]
    (broken,) = slice_guardrails(shop_spec(promotion=PROMOTION), "champion", (*slices, group(0.06)))
    assert (broken.value, broken.lower, broken.verdict) == (0.06, 0.001, "broken"), "the number is the failing group's"
    (found,) = slice_guardrails(shop_spec(promotion=PROMOTION), "champion", slices)
    assert "none of 2 groups of shop surely loses to the champion; more than 0.05, which may be chance" in found.reason


def test_what_holds_is_named_with_its_bound() -> None:
    reasons = judge()[1]
    assert "Passed: guardrails hold: slices of shop 0.02 (bound 0.05), latency 0.03 (bound 5), " in reasons[-1]


def test_an_optional_guardrail_is_excused_only_where_it_cannot_be_computed() -> None:
    optional = {"guardrails": {"optional": ["slices", "latency"]}}
    assert judge(optional, slices=())[0]
    assert not judge(optional, slices=(group(0.2),))[0]
    assert not judge(optional, latency_ms=6.0)[0]
    spec = shop_spec(promotion=PROMOTION | optional)
    assert not_computed(spec.promotion, "slices", 0.05, "why").verdict == "not computed"


def test_first_model_is_compared_with_the_naive_baseline_once() -> None:
    promote, reasons = judge(reference=NAIVE, champion=None, interval=interval(0.0001, gain=0.001))
    assert promote  # no minimal gain: nothing serves that would be replaced
    assert sum("naive baseline" in reason for reason in reasons) == 1
