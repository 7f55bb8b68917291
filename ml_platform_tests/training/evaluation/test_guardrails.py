"""Guardrails: each number, its bound and its verdict, by hand-made rows and by a trained model."""

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from ml_platform.registry.manifest import Target
from ml_platform.spec.guardrails import GUARDRAILS, guardrails_of
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Evaluation, GuardrailResult, Support, TrainedModel
from ml_platform.training.evaluation.calibration import expected_calibration_error
from ml_platform.training.evaluation.contenders import JudgedRows, contender
from ml_platform.training.evaluation.guardrails.calibration import calibration_error
from ml_platform.training.evaluation.guardrails.fairness import fairness_guardrails, rate_difference
from ml_platform.training.evaluation.guardrails.judge import compared_guardrails
from ml_platform.training.evaluation.guardrails.model import leakage_guardrail, size_guardrail
from ml_platform.training.evaluation.guardrails.result import not_applicable
from ml_platform.training.evaluation.guardrails.slices import group_results
from ml_platform.training.evaluation.guardrails.stability import changed_decisions, score_shift
from ml_platform.training.evaluation.guardrails.table import guardrail_lines
from ml_platform_tests.toy_world import Shops, multiclass_spec, regression_spec, shop_spec

DAYS = np.repeat(np.arange(20), 100)
FAIR = {"columns": ["shop", ["shop", "channel"]], "max_selection_difference": 0.1, "max_true_positive_difference": 0.1}


def by_name(results: tuple[GuardrailResult, ...] | list[GuardrailResult], name: str) -> list[GuardrailResult]:
    return [result for result in results if result.name == name]


def with_promotion(spec: ModelSpec, **promotion: Any) -> ModelSpec:
    return type(spec).model_validate(spec.model_dump() | {"promotion": promotion})


def test_a_trained_model_has_one_result_for_each_guardrail_of_its_task(
    trained_shops: tuple[Shops, TrainedModel], shops: Shops
) -> None:
    trained = trained_shops[1]
    guarded = shops.respecified(
        promotion={
            "slices": ["shop", ["shop", "channel"]],
            "min_slice_rows": 20,
            "max_latency_ms": 50,
            "guardrails": {
                "fairness": FAIR | {"min_rows": 50, "min_positives": 10},
                "max_calibration_error": 0.2,
                "max_changed_decisions": 0.01,
                "max_score_shift": 0.2,
            },
        }
    )
    shops.store.publish(
        trained.model, [Target(version=1, digest=trained.digest)], reason="test", by="ann", expected_revision=0
    )
    blind = guarded.respecified(lookups=[], promotion=guarded.spec.promotion.model_dump())
    found = blind.evaluate(blind.train())
    assert (
        tuple(dict.fromkeys(result.name for result in found.guardrails)) == GUARDRAILS[:-1]
    )  # without a log to replay
    assert guardrails_of("binary") == GUARDRAILS
    titles = [result.title for result in found.guardrails]
    assert len(titles) == len(set(titles))
    assert {"slices of shop, channel", "selection_rate of shop, channel"} <= set(titles)
    (changed,) = by_name(found.guardrails, "changed_decisions")
    assert changed.verdict == "broken", "a model that does not know the load answers many rows otherwise"
    assert f"Failed: {changed.reason}." in found.reasons
    (leakage,) = by_name(found.guardrails, "leakage")
    assert (leakage.verdict, leakage.passed) == ("shown", True), "this training set was not searched for leaks"
    assert Evaluation.model_validate_json(found.model_dump_json()) == found
    assert found.within_blocks is not None
    assert found.interval is not None
    assert found.within_blocks.gain == pytest.approx(found.interval.gain)
    assert found.within_blocks.blocks == found.interval.blocks
    lines = guardrail_lines(found.guardrails)
    assert len(lines) > len(titles)
    assert any(line.startswith("changed_decisions, broken: ") for line in lines)


def test_a_view_that_changed_since_the_training_breaks_its_guardrail(
    trained_shops: tuple[Shops, TrainedModel], shops: Shops
) -> None:
    trained = trained_shops[1]
    assert by_name(shops.evaluate(trained).guardrails, "views")[0].verdict == "held"
    changed = {name: view.model_copy(update={"ttl": timedelta(days=9)}) for name, view in shops.views.items()}
    found = Shops(shops.settings, shops.folder, shops.spec, changed).evaluate(trained)
    (views,) = by_name(found.guardrails, "views")
    assert (views.value, views.bound, views.verdict) == (1, 0, "broken")
    assert "'shop_load'" in views.reason
    assert not found.promote


def test_before_the_first_release_nothing_changes(trained_shops: tuple[Shops, TrainedModel], shops: Shops) -> None:
    strict = shops.respecified(promotion={"guardrails": {"max_changed_decisions": 0.001, "max_score_shift": 0.001}})
    found = strict.evaluate(trained_shops[1])
    assert {result.verdict for result in found.guardrails if result.name in {"changed_decisions", "score_shift"}} == {
        "not applicable"
    }
    assert found.promote
    unbounded = not_applicable(shops.spec.promotion, "changed_decisions", None, "nothing serves yet")
    assert unbounded.verdict == "not applicable"


def rows_of(y: np.ndarray, **columns: Any) -> JudgedRows:
    return JudgedRows(pl.DataFrame({"row": np.arange(len(y)), **columns}), y, DAYS[: len(y)])


def test_calibration_error_is_the_mean_gap_of_ten_bins() -> None:
    rng = np.random.default_rng(3)
    score = rng.random(2000)
    y = (rng.random(2000) < score**2).astype(float)
    found = calibration_error("binary", y, score, blocks=DAYS)
    assert found is not None
    assert found.value == pytest.approx(expected_calibration_error("binary", y, score), abs=1e-12)
    assert found.lower > 0.1 > found.by_chance
    calibrated = calibration_error("binary", (rng.random(2000) < score).astype(float), score, blocks=DAYS)
    assert calibrated is not None
    assert calibrated.lower == 0
    assert calibrated.upper < 0.06


def test_calibration_of_classes_and_of_a_quantile() -> None:
    rng = np.random.default_rng(4)
    score = rng.dirichlet([1, 1, 1], 2000)
    y = np.array([rng.choice(3, p=one) for one in score]).astype(float)
    good = calibration_error("multiclass", y, score, blocks=DAYS)
    bad = calibration_error("multiclass", y, score[:, ::-1], blocks=DAYS)
    unknown = calibration_error("multiclass", np.full(2000, -1.0), score, blocks=DAYS)
    assert good is not None
    assert bad is not None
    assert unknown is not None
    assert good.lower == 0
    assert bad.lower > 0.1
    assert unknown.value == pytest.approx(score.max(axis=1).mean()), "no class that is known happens at all"
    assert bad.value == pytest.approx(expected_calibration_error("multiclass", y, score[:, ::-1]))
    values = rng.normal(size=2000)
    for quantile, gap in ((0.9, 0.0), (0.5, 0.4)):
        found = calibration_error("regression", values, np.full(2000, 1.2816), blocks=DAYS, quantile=quantile)
        assert found is not None
        assert found.value == pytest.approx(gap, abs=0.03)


def test_one_block_or_one_score_gives_no_nonsense() -> None:
    y, score = np.tile([0.0, 1.0], 100), np.full(200, 0.5)
    assert calibration_error("binary", y, score, blocks=np.zeros(200)) is None
    assert changed_decisions(y, score, blocks=np.zeros(200)) is None
    constant = calibration_error("binary", y, score, blocks=np.arange(200))
    assert constant is not None
    assert constant.value == pytest.approx(0)
    shift = score_shift(score, score, blocks=np.arange(200))
    assert shift is not None
    assert shift.estimate == pytest.approx(0)


def test_rates_are_compared_between_the_groups_that_are_large_enough() -> None:
    rng = np.random.default_rng(5)
    shop = np.array(["a", "b", "tiny"])[np.where(np.arange(2000) < 30, 2, np.arange(2000) % 2)]
    rate = np.where(shop == "a", 0.2, 0.6)
    score = np.where(rng.random(2000) < rate, 0.9, 0.1)
    y = (rng.random(2000) < 0.5).astype(float)
    spec = shop_spec(promotion={"guardrails": {"fairness": FAIR | {"columns": ["shop"]}}})
    rows = rows_of(y, shop=shop, channel=np.where(np.arange(2000) % 3, "web", "phone"))
    selected, true_positive = fairness_guardrails(spec, rows, contender(spec, y, score, 0.5))
    frame = pl.DataFrame({"shop": shop, "hit": score > 0.5, "y": y}).filter(pl.col("shop") != "tiny")
    for result, part in ((selected, frame), (true_positive, frame.filter(pl.col("y") == 1))):
        rates = part.group_by("shop").agg(pl.col("hit").mean()).get_column("hit").to_numpy()
        assert result.value == pytest.approx(np.ptp(rates))
        assert result.verdict == "broken"
        assert "not judged, with fewer than 200 rows" in result.reason
        assert "tiny (30)" in result.reason


def test_groups_that_are_too_small_cannot_be_judged_and_fail_unless_optional() -> None:
    y = np.tile([0.0, 1.0], 100)
    rows = rows_of(y, shop=np.arange(200) % 4)
    for optional in (False, True):
        guardrails = {"fairness": FAIR | {"columns": ["shop"]}, "optional": ["selection_rate"] if optional else []}
        spec = shop_spec(promotion={"guardrails": guardrails})
        selected = fairness_guardrails(spec, rows, contender(spec, y, y, 0.5))[0]
        assert (selected.verdict, selected.passed, selected.value) == ("not computed", optional, None)
        assert "fewer than two of 4 groups of shop have 200 rows" in selected.reason
        assert "0 (50), 1 (50)" in selected.reason


def test_a_group_of_a_single_block_has_no_interval_and_is_not_judged() -> None:
    codes = np.where(DAYS == 3, 2, np.arange(len(DAYS)) % 2)
    hits = codes == 2
    every = np.ones(len(DAYS), dtype=bool)
    found = rate_difference(hits, every, codes, np.array([0, 1, 2]), blocks=DAYS)
    assert found is not None
    assert found.value == 0
    assert np.isnan(found.rates[2])


def test_a_slice_of_two_columns_that_loses_is_found_though_each_column_does_not() -> None:
    rng = np.random.default_rng(6)
    shop, channel = np.arange(2000) % 2, (np.arange(2000) // 2) % 2
    y = rng.normal(size=2000)
    bad = (shop == 1) & (channel == 1)
    own = y + np.where(bad, 1.0, np.where((shop == 0) & (channel == 0), 0.0, 0.1)) * rng.normal(size=2000)
    other = y + np.where(bad, 0.3, 0.8) * rng.normal(size=2000)
    spec = with_promotion(
        regression_spec(), slices=["shop", ["shop", "channel"]], max_slice_loss=0.3, metric="rmse", min_slice_rows=100
    )
    rows = rows_of(y, shop=shop, channel=channel)
    results = group_results(spec, rows, contender(spec, y, own, None), contender(spec, y, other, None))
    assert [(one.column, one.value) for one in results if not one.passed] == [("shop, channel", "1, 1")]
    assert all(one.passed for one in results if one.column == "shop")
    (failed,) = [one for one in results if not one.passed]
    assert failed.lower is not None
    assert 0 < failed.lower < failed.loss


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "quantile"])
def test_every_task_has_its_guardrails_and_no_other(task: str) -> None:
    rng = np.random.default_rng(7)
    y, score = (rng.random(2000) < 0.5).astype(float), rng.random(2000)
    spec = shop_spec(promotion={"guardrails": {"fairness": FAIR | {"columns": ["shop"]}}})
    if task == "multiclass":
        spec = multiclass_spec()
        score = rng.dirichlet([1, 1, 1], 2000)
    elif task != "binary":
        spec = regression_spec(**({"quantile": 0.9} if task == "quantile" else {}))
    side = contender(spec, y, score, 0.5 if task == "binary" else None)
    support = Support(
        rows=2000,
        class_rows=None if task[0] == "r" or task == "quantile" else 900,
        blocks=20,
        effective_blocks=20,
        constant=False,
    )
    rows = rows_of(y, shop=np.arange(2000) % 3)
    slices = group_results(spec, rows, side, side)
    results = compared_guardrails(
        spec, rows, own=side, champion=side, reference="champion", slices=slices, support=support
    )
    of_the_model = {"parity", "latency", "bundle_size", "views", "leakage", "replay"} | (
        {"slices"} if task == "binary" else set()
    )
    expected = set(guardrails_of(spec.task, spec.quantile)) - of_the_model
    assert {result.name for result in results} == expected
    assert ("calibration" in expected) == (task != "regression")
    assert all(result.passed for result in results)
    assert {result.value for result in results if result.name in {"changed_decisions", "score_shift"}} == {0}


def test_size_and_leakage_have_bounds(trained_shops: tuple[Shops, TrainedModel]) -> None:
    spec = shop_spec(promotion={"guardrails": {"max_bundle_mb": 0.5, "max_feature_strength": 0.8}})
    assert size_guardrail(spec, 400_000).verdict == "held"
    assert size_guardrail(spec, 600_000).verdict == "broken"
    trained = trained_shops[1]
    unsearched = leakage_guardrail(spec, trained)
    assert (unsearched.verdict, unsearched.passed) == ("not computed", False)
    ref = trained.training_set.model_copy(update={"strength": {"weight": 0.9, "channel": 0.6}})
    searched = trained.model_copy(update={"training_set": ref})
    assert leakage_guardrail(spec, searched).verdict == "broken"
    assert leakage_guardrail(shop_spec(), searched).verdict == "held"
    known = shop_spec(promotion=spec.promotion.model_dump(), leakage={"allow": ["weight"]})
    assert leakage_guardrail(known, searched).value == 0.6


def test_an_evaluation_of_an_earlier_engine_is_read() -> None:
    old = {
        "model": "order_late",
        "metric": "roc_auc",
        "higher_is_better": True,
        "challenger_digest": "a",
        "challenger_model_digest": "b",
        "revision": 1,
        "reference": "naive baseline",
        "interval": {
            "gain": 0.1,
            "lower": 0.05,
            "upper": 0.15,
            "confidence": 0.95,
            "standard_error": 0.02,
            "blocks": 28,
            "block": "day",
        },
        "slices": [
            {
                "column": "shop",
                "value": "a",
                "rows": 700,
                "challenger": 0.7,
                "reference": 0.6,
                "loss": -0.1,
                "passed": True,
            }
        ],
        "latency_ms": 0.03,
        "parity": {"rows": 100, "max_difference": 0.0, "tolerance": 1e-10},
        "promote": True,
        "reasons": ["Promote: the challenger passes the gate."],
    }
    found = Evaluation.model_validate(old)
    assert (found.guardrails, found.power, found.within_blocks, found.slices[0].lower) == ((), None, None, None)
