import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ml_platform.inference.batch import score_frame
from ml_platform.inference.matrix import encode_labels
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.digests import BundleRefused
from ml_platform.registry.manifest import Target
from ml_platform.spec.promotion import Promotion
from ml_platform.training.documents import Evaluation, TrainedModel
from ml_platform.training.evaluation.evaluate import evaluate
from ml_platform.training.evaluation.metrics import measure
from ml_platform.training.evaluation.naive import best_constant, naive_baseline
from ml_platform.training.evaluation.rescoring import VersionRows
from ml_platform_tests.toy_world import REQUEST_FEATURES, START, Shops, multiclass_spec, regression_spec, shop_spec


@pytest.fixture
def trained(trained_shops: tuple[Shops, TrainedModel]) -> TrainedModel:
    return trained_shops[1]


def released(shops: Shops, trained: TrainedModel) -> None:
    shops.store.publish(
        trained.model, [Target(version=1, digest=trained.digest)], reason="test", by="ann", expected_revision=0
    )


def test_first_model_is_compared_with_the_naive_baseline(shops: Shops, trained: TrainedModel) -> None:
    found = shops.evaluate(trained)
    assert found.promote
    assert (found.reference, found.champion_version, found.revision) == ("naive baseline", None, 0)
    assert found.holdout == trained.bounds.holdout
    assert found.challenger == pytest.approx(trained.metrics, abs=1e-6)
    assert found.naive["roc_auc"] > 0.55  # shops differ, and the baseline knows their shares
    assert found.interval is not None
    assert found.interval.gain == pytest.approx(found.challenger["roc_auc"] - found.naive["roc_auc"])
    assert found.over_chance is not None
    assert found.over_chance.gain == pytest.approx(found.challenger["roc_auc"] - 0.5)
    assert found.support is not None
    assert (found.support.rows, found.support.blocks, found.tries) == (found.holdout.rows, 15, 1)
    assert found.interval.blocks == 15  # 14 days that end at the newest row begin within a fifteenth
    assert "over 15 days" in found.reasons[1]
    assert {result.column for result in found.slices} == {"shop"}
    assert 0 < found.latency_ms < 50
    assert Evaluation.model_validate_json(found.model_dump_json()) == found


def test_same_model_again_is_not_promoted(shops: Shops, trained: TrainedModel) -> None:
    released(shops, trained)
    again = shops.train(START + timedelta(days=50))
    found = shops.evaluate(again)
    assert not found.promote
    assert "the challenger is the champion (version 1) itself" in found.reasons[0]
    assert found.champion == found.challenger


def test_champion_is_rescored_on_the_challengers_holdout(shops: Shops, trained: TrainedModel) -> None:
    released(shops, trained)
    challenger = shops.respecified(families=["lightgbm"]).train()
    found = shops.evaluate(challenger)
    rows = shops.rows(challenger.training_set).parts.holdout
    champion = Scorer.load(shops.store.bundle_path(trained.digest))
    own = measure(
        "binary", rows["late"].cast(pl.Float64).to_numpy(), score_frame(champion, rows), threshold=trained.threshold
    )
    assert found.champion == pytest.approx(own)
    assert found.holdout is not None
    assert (found.holdout.rows, found.champion_version, found.revision) == (rows.height, 1, 1)
    assert found.interval is not None
    sure = found.interval.gain >= 0.005 and found.interval.lower > -0.0005
    assert found.promote == (sure and all(result.passed for result in found.slices))
    assert "of the champion (version 1) on" in found.reasons[1]


def test_every_challenger_on_the_same_rows_is_a_further_try(shops: Shops, trained: TrainedModel) -> None:
    released(shops, trained)
    trees = shops.respecified(families=["lightgbm"], tuning={"trials": 1})
    challengers = [trees.respecified(families=["lightgbm"], tuning={"trials": 1, "seed": seed}) for seed in (1, 2)]
    models = [(world, world.train()) for world in challengers]
    found = [world.evaluate(model) for world, model in (*models, models[0])]
    assert [evaluation.tries for evaluation in found] == [1, 2, 1]
    confidences = [evaluation.interval.confidence for evaluation in found if evaluation.interval]
    assert confidences == [0.95, pytest.approx(0.9875), 0.95]
    assert any("other challengers were judged on these rows" in reason for reason in found[1].reasons)


def test_a_model_that_says_the_same_of_every_row_is_never_promoted(shops: Shops, trained: TrainedModel) -> None:
    """Nor one whose scores know nothing, against no champion at all."""
    rows = shops.lake.read(trained.training_set.table, version=trained.training_set.version).collect()
    blind = rows.with_columns(pl.col("late").shuffle(seed=3))
    ref = trained.training_set.model_copy(update={"version": shops.lake.replace(trained.training_set.table, blind)})
    found = shops.evaluate(shops.fit(shops.candidates(ref)))
    assert not found.promote
    assert any("Failed: gain over the best constant answer" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("promotion", "said"),
    [
        ({"block": "week"}, "the holdout has 3 weeks, promotion.min_blocks wants 7"),
        ({"min_rows": 100_000}, "promotion.min_rows wants 100,000"),
        ({"min_class_rows": 5_000}, "promotion.min_class_rows wants 5,000"),
    ],
)
def test_a_holdout_that_cannot_tell_gives_no_verdict(
    shops: Shops, trained: TrainedModel, promotion: dict[str, object], said: str
) -> None:
    found = shops.respecified(promotion=promotion).evaluate(trained)
    assert not found.promote
    assert "no verdict" in found.reasons[0]
    assert said in found.reasons[1]


def test_blocks_are_what_the_spec_says(shops: Shops, trained: TrainedModel) -> None:
    by_shop = shops.respecified(promotion={"block": "shop", "max_latency_ms": 50}).evaluate(trained)
    assert by_shop.interval is not None
    assert (by_shop.interval.block, by_shop.interval.blocks) == ("shop", 8)
    assert "over 8 values of shop" in by_shop.reasons[1]
    with pytest.raises(ValueError, match=r"promotion.block: 'town' is neither day, week nor rows"):
        shops.respecified(promotion={"block": "town"}).evaluate(trained)


def test_no_row_is_new_to_a_champion_trained_later(shops: Shops, trained: TrainedModel) -> None:
    released(shops, shops.train())
    found = shops.evaluate(trained)
    assert not found.promote
    assert found.holdout is None
    assert "no row is new to both" in found.reasons[0]


def test_champion_is_rescored_by_its_own_definitions(shops: Shops, trained: TrainedModel, tmp_path: Path) -> None:
    released(shops, trained)
    edited = tmp_path / "features.py"
    edited.write_text(REQUEST_FEATURES.replace("> 20", "> 3").replace("weekday().cast(pl.Int64)", "hour()"))
    inputs = [field.model_dump() for field in shops.spec.inputs]
    next(field for field in inputs if field["name"] == "channel")["default"] = "web"
    challenger_world = shops.respecified(request_features=str(edited), inputs=inputs, lookups=[])
    challenger = challenger_world.train()
    found = challenger_world.evaluate(challenger)
    rows = challenger_world.rows(challenger.training_set).parts.holdout
    by_files = shops.rows(shops.training_set()).parts.holdout  # as the champion's files, which are unchanged, give them
    assert by_files["order_id"].equals(rows["order_id"])
    assert not by_files["heavy"].equals(rows["heavy"])
    champion = Scorer.load(shops.store.bundle_path(trained.digest))
    y = rows["late"].cast(pl.Float64).to_numpy()
    own = measure("binary", y, score_frame(champion, by_files), threshold=trained.threshold)
    assert found.champion == pytest.approx(own)
    assert found.interval is not None


def test_champion_of_a_view_that_changed_is_not_compared(shops: Shops, trained: TrainedModel) -> None:
    released(shops, trained)
    challenger = shops.respecified(lookups=[]).train()
    shops.views = {name: view.model_copy(update={"ttl": timedelta(days=9)}) for name, view in shops.views.items()}
    found = shops.respecified(lookups=[]).evaluate(challenger)
    assert not found.promote
    assert "cannot be given its own features of these rows" in found.reasons[0]
    assert "the definition of 'shop_load'" in found.reasons[0]
    assert found.champion is None
    assert found.challenger["roc_auc"] > 0.6


def test_champion_that_knows_a_class_which_the_challenger_does_not_is_measured_by_all_its_classes(
    shops: Shops, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(shops.folder, tmp_path / "defs"))
    spec = multiclass_spec(families=("logistic_regression",))
    world = Shops(shops.settings, folder, spec, shops.views)
    champion = world.train(START + timedelta(days=50))
    released(world, champion)
    until = (START + timedelta(days=76)).isoformat()
    lacking = f"CASE WHEN outcome = 'early' AND ordered_at < '{until}' THEN 'late' ELSE outcome END AS outcome FROM"
    spine = (folder / "outcome.sql").read_text()
    (folder / "outcome.sql").write_text(spine.replace("outcome FROM", lacking))
    challenger = world.train()
    assert world.store.load_manifest(challenger.digest).classes == ("late", "on time")
    found = world.evaluate(challenger)
    rows = world.rows(challenger.training_set).parts.holdout
    scorer = Scorer.load(world.store.bundle_path(champion.digest))
    y = encode_labels(rows["outcome"], spec, scorer.manifest.classes)
    assert found.champion == pytest.approx(measure("multiclass", y, score_frame(scorer, rows)))
    assert found.champion is not None
    assert found.champion["accuracy"] > found.challenger["accuracy"]


def test_damaged_champion_is_an_error(shops: Shops, trained: TrainedModel) -> None:
    released(shops, trained)
    (shops.store.bundle_path(trained.digest) / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleRefused):
        shops.evaluate(trained)


def test_unknown_slice_names_the_columns(shops: Shops, trained: TrainedModel) -> None:
    with pytest.raises(ValueError, match=r"promotion.slices names \['town'\].*it has \['order_id'"):
        shops.respecified(promotion={"slices": ["town"]}).evaluate(trained)


@pytest.mark.parametrize(
    ("metric", "score", "value"),
    [("roc_auc", 0.375, 0.5), ("log_loss", 0.375, 0.8531), ("accuracy", 1.0, 0.75), ("f1", 1.0, 6 / 7)],
)
def test_chance_is_the_best_that_is_always_the_same(metric: str, score: float, value: float) -> None:
    train = pl.DataFrame({"late": [True] * 300 + [False] * 500})
    y = np.array([1.0, 1.0, 1.0, 0.0])
    answer = best_constant(train, y, shop_spec(promotion={"metric": metric}))
    assert answer.tolist() == [score] * 4
    assert measure("binary", y, answer)[metric] == pytest.approx(value, abs=1e-4)


def test_naive_answers() -> None:
    train = pl.DataFrame(
        {"shop": ["a"] * 400 + ["b"] * 400, "late": [True] * 300 + [False] * 500, "minutes": range(800)}
    )
    rows = pl.DataFrame({"shop": ["b", "a", "new", None]})
    by_shop = naive_baseline(train, rows, shop_spec())
    assert by_shop.scores == pytest.approx([0.0179, 0.7321, 0.375, 0.375], abs=1e-3)
    overall = naive_baseline(train, rows, shop_spec(promotion={}))
    assert overall.scores.tolist() == [0.375] * 4
    median = naive_baseline(train, rows, regression_spec())
    assert np.unique(median.scores).tolist() == [399.5]


def test_named_columns_are_the_naive_answer_and_fall_back_on_the_median() -> None:
    train = pl.DataFrame({"minutes": range(800)})
    rows = pl.DataFrame({
        "week_ago": [7.0, None, float("nan"), float("inf"), None],
        "two_weeks_ago": [14, 15, None, 16, None],
    })  # fmt: skip
    answer = naive_baseline(train, rows, regression_spec(promotion=Promotion(baseline=("week_ago", "two_weeks_ago"))))
    assert answer.scores.tolist() == [7.0, 15.0, 399.5, 16.0, 399.5]
    assert answer.description == "each row's week_ago, else two_weeks_ago, else the median of the training rows, 399.5"


def test_a_first_model_must_beat_the_columns_that_are_its_baseline(shops: Shops) -> None:
    own = Shops(shops.settings, shops.folder, regression_spec(families=["ridge"]), shops.views)
    trained = own.train()
    by_median = own.evaluate(trained)
    assert by_median.promote
    assert by_median.naive_description.startswith("always the median")
    rows = own.rows(trained.training_set)
    holdout = rows.parts.holdout.with_columns(week_ago=pl.col("minutes") + 1.0)  # nearer than any model can be
    rows = replace(rows, parts=replace(rows.parts, holdout=holdout))
    spec = own.spec.model_copy(update={"promotion": own.spec.promotion.model_copy(update={"baseline": ("week_ago",)})})
    found = evaluate(rows, spec, trained, own.store, VersionRows(own.lake, spec, own.folder, own.views))
    assert found.naive["rmse"] == pytest.approx(1.0)
    assert not found.promote
    assert found.naive_description.startswith("each row's week_ago, else the median of the training rows")
    with pytest.raises(ValueError, match=r"promotion.baseline names \['week_ago'\]"):
        evaluate(
            own.rows(trained.training_set), spec, trained, own.store, VersionRows(own.lake, spec, own.folder, own.views)
        )


def test_a_baseline_of_columns_is_for_regressions() -> None:
    with pytest.raises(ValueError, match=r"promotion.baseline: wants a regression .* not task 'binary'; leave it out"):
        shop_spec(promotion={"baseline": ["weight"]})
