from datetime import UTC, datetime
from typing import Any

import pytest

from ml_platform.registry.gate import NAIVE, decide
from ml_platform.training.documents import Interval, ParityReport, SliceResult, Window
from ml_platform_tests.shops import shop_spec

HOLDOUT = Window(first=datetime(2024, 3, 1, tzinfo=UTC), last=datetime(2024, 3, 14, tzinfo=UTC), rows=15213)


def interval(lower: float) -> Interval:
    return Interval(gain=0.009, lower=lower, upper=0.013, confidence=0.95, resamples=400)


def judge(**changes: Any) -> tuple[bool, tuple[str, ...]]:
    given: dict[str, Any] = {
        "reference": "champion (version 3)",
        "challenger": {"roc_auc": 0.751},
        "compared": {"roc_auc": 0.742},
        "naive": {"roc_auc": 0.5},
        "interval": interval(0.004),
        "slices": (),
        "latency_ms": 0.03,
        "parity": ParityReport(rows=100, max_difference=1e-16, tolerance=1e-10),
        "holdout": HOLDOUT,
    }
    spec = shop_spec(promotion={"slices": ["shop"], "max_slice_loss": 0.05, "max_latency_ms": 5})
    return decide(changes.pop("spec", spec), **{**given, **changes})


def group(loss: float) -> SliceResult:
    return SliceResult(
        column="shop", value="a", rows=700, challenger=0.7, reference=0.7 + loss, loss=loss, passed=loss <= 0.05
    )


def test_clear_gain_is_promoted_with_numbers() -> None:
    promote, reasons = judge()
    assert promote
    assert reasons[0] == "Promote: the challenger passes the gate."
    assert "roc_auc 0.7510 against 0.7420 of the champion (version 3) on 15,213 unseen rows" in reasons[1]
    assert "95% interval +0.0040 to +0.0130" in reasons[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"interval": interval(-0.001)}, "Failed: roc_auc 0.7510 against 0.7420"),
        ({"interval": interval(0.0)}, "lower bound wanted above +0"),
        ({"interval": None}, "Failed: roc_auc is undefined on 15,213 unseen rows"),
        ({"naive": {"roc_auc": 0.76}}, "Failed: roc_auc 0.7510 against 0.7600 of the naive baseline"),
        ({"slices": (group(0.02), group(0.051))}, "Failed: 1 of 2 groups lose more than 0.05"),
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


def test_margin_is_the_specs() -> None:
    spec = shop_spec(promotion={"min_gain": 0.005})
    assert not judge(spec=spec)[0]


def test_small_slice_losses_pass_and_the_worst_is_named() -> None:
    promote, reasons = judge(slices=(group(0.01), group(0.049)))
    assert promote
    assert any("none of 2 groups of shop loses more than 0.05" in reason and "0.7490" in reason for reason in reasons)


def test_first_model_is_compared_with_the_naive_baseline_once() -> None:
    _, reasons = judge(reference=NAIVE, compared={"roc_auc": 0.5})
    assert sum("naive baseline" in reason for reason in reasons) == 1
