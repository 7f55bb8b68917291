"""What passed the gate is fitted again on all rows; the gate goes on comparing what it judged."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from ml_platform.inference.batch import score_frame
from ml_platform.inference.scorer import Scorer
from ml_platform.promotion.promote import promote
from ml_platform.promotion.versions import register
from ml_platform.registry.manifest import Target
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Evaluation, TrainedModel
from ml_platform.training.evaluation.metrics import measure
from ml_platform.training.refit import concordance
from ml_platform_tests.toy_world import START, Shops, multiclass_spec, regression_spec, shop_spec


@pytest.fixture
def trained(trained_shops: tuple[Shops, TrainedModel]) -> TrainedModel:
    return trained_shops[1]


@pytest.fixture
def passed(shops: Shops, trained: TrainedModel) -> Evaluation:
    found = shops.evaluate(trained)
    assert found.promote, found.reasons
    return found


def test_refit_knows_every_labelled_row_and_says_what_it_is_of(
    shops: Shops, trained: TrainedModel, passed: Evaluation
) -> None:
    model = shops.refit(trained, passed)
    assert model.refit is not None
    assert model.refit.refitted
    assert model.judged_digest == trained.digest != model.digest
    assert model.trained.rows == trained.training_set.rows
    assert model.trained.last == trained.bounds.holdout.last
    assert (model.family, model.params, model.threshold) == (trained.family, trained.params, trained.threshold)
    assert model.metrics == trained.metrics  # nothing new was measured
    manifest = shops.store.load_manifest(model.digest)
    assert manifest.provenance.training_rows == trained.training_set.rows
    assert manifest.provenance.judged is not None
    assert manifest.provenance.judged.digest == trained.digest
    assert manifest.provenance.judged.model_digest == trained.model_digest
    assert manifest.threshold == trained.threshold
    before = shops.store.load_manifest(trained.digest)
    assert manifest.holdout_error == before.holdout_error is not None
    assert TrainedModel.model_validate_json(model.model_dump_json()) == model


def test_refit_is_the_same_every_time_but_for_its_run(shops: Shops, trained: TrainedModel, passed: Evaluation) -> None:
    first, second = (shops.refit(trained, passed) for _ in range(2))
    assert first.model_digest == second.model_digest != trained.model_digest


def test_refit_is_better_on_rows_after_it_was_judged(shops: Shops, trained: TrainedModel, passed: Evaluation) -> None:
    """Not by much in a world that never changes, but its scores agree with the judged model's."""
    model = shops.refit(trained, passed)
    later = shops.rows(shops.training_set()).parts.holdout.filter(pl.col("ordered_at") > model.trained.last)
    judged, refit = (
        score_frame(Scorer.load(shops.store.bundle_path(digest)), later) for digest in (trained.digest, model.digest)
    )
    y = later["late"].cast(pl.Float64).to_numpy()
    assert measure("binary", y, refit)["roc_auc"] == pytest.approx(measure("binary", y, judged)["roc_auc"], abs=0.03)
    assert concordance(judged, refit) > shops.spec.promotion.min_agreement


def test_what_the_gate_refused_is_not_refitted(shops: Shops, trained: TrainedModel, passed: Evaluation) -> None:
    refused = passed.model_copy(update={"promote": False})
    model = shops.refit(trained, refused)
    assert (model.digest, model.judged_digest) == (trained.digest, trained.digest)
    assert model.refit is not None
    assert not model.refit.refitted
    assert "The gate refused the model" in model.refit.reasons[0]


@pytest.mark.parametrize(
    ("promotion", "said"),
    [
        ({"refit": False}, "promotion.refit is false"),
        ({"min_agreement": 1.0}, "does not agree with the judged model on the holdout (concordance 0.9"),
    ],
)
def test_the_judged_model_is_registered_where_no_refit_may_serve(
    shops: Shops, trained: TrainedModel, passed: Evaluation, promotion: dict[str, object], said: str
) -> None:
    model = shops.respecified(promotion=promotion).refit(trained, passed)
    assert model.digest == trained.digest
    assert model.refit is not None
    assert said in model.refit.reasons[0]


def test_history_moves_with_the_refit(shops: Shops, trained: TrainedModel, passed: Evaluation) -> None:
    short = {"holdout": "14 days", "validation": "14 days", "gap": "1 day", "history": "10 days"}
    model = shops.respecified(split=short).refit(trained, passed)
    assert model.trained.last == trained.bounds.holdout.last
    assert timedelta(days=24) < model.trained.last - model.trained.first <= timedelta(days=25)


def test_evaluation_of_another_model_is_refused(shops: Shops, trained: TrainedModel, passed: Evaluation) -> None:
    with pytest.raises(ValueError, match="materialise the evaluation again"):
        shops.refit(trained.model_copy(update={"digest": "0" * 64}), passed)


def test_served_refit_is_registered_once_and_judged_as_it_was(
    shops: Shops, trained: TrainedModel, passed: Evaluation
) -> None:
    model = shops.refit(trained, passed)
    version = register(shops.spec, model, passed, tracker=shops.tracker)
    assert (version.digest, version.judged_digest) == (model.digest, trained.digest)
    decision = promote(shops.settings, shops.spec, version, passed, tracker=shops.tracker, by="ann")
    assert decision.promoted
    endpoint = shops.store.endpoint("order_late")
    assert endpoint is not None
    assert endpoint.targets == (Target(version=1, digest=model.digest),)
    stored = shops.tracker.client.get_model_version("order_late", "1")
    assert stored.tags["bundle_digest"] == model.digest
    assert stored.tags["judged_digest"] == trained.digest
    assert stored.tags["judged_trained_until"] < stored.tags["trained_until"]
    assert "Fitted again on" in stored.description

    # A run that is repeated after a kill refits again, and registers and releases nothing new.
    again = register(shops.spec, shops.refit(trained, passed), passed, tracker=shops.tracker)
    assert again == version
    repeated = promote(shops.settings, shops.spec, again, passed, tracker=shops.tracker, by="ann")
    assert (repeated.promoted, repeated.revision) == (True, decision.revision)
    assert "already serves" in repeated.reasons[0]

    # From the evaluation on: the challenger is the champion itself.
    evaluation = shops.evaluate(trained)
    assert not evaluation.promote
    assert "the challenger is the champion (version 1, before its refit) itself" in evaluation.reasons[0]
    assert register(shops.spec, shops.refit(trained, evaluation), evaluation, tracker=shops.tracker) == version

    # A retrain is compared with the judged champion: every row of its holdout is new to both.
    challenger = shops.train(START + timedelta(days=57))
    compared = shops.evaluate(challenger)
    assert compared.holdout == challenger.bounds.holdout
    assert compared.holdout is not None
    assert compared.holdout.first < model.trained.last  # the refit has learned from some of them
    assert (compared.champion_digest, compared.judged_digest) == (model.digest, trained.digest)
    rows = shops.rows(challenger.training_set).parts.holdout
    own = measure(
        "binary",
        rows["late"].cast(pl.Float64).to_numpy(),
        score_frame(Scorer.load(shops.store.bundle_path(trained.digest)), rows),
        threshold=trained.threshold,
    )
    assert compared.champion == pytest.approx(own)
    assert "champion (version 1, before its refit)" in compared.reasons[1]


def test_concordance_sees_a_shift_that_a_correlation_does_not() -> None:
    scores = np.linspace(0, 1, 50)
    assert concordance(scores, scores) == pytest.approx(1)
    assert concordance(scores, scores + 0.5) < 0.5
    assert concordance(scores, 1 - scores) == pytest.approx(-1)
    assert concordance(np.full(5, 0.3), np.full(5, 0.3)) == 1


def test_the_default_spec_refits() -> None:
    assert shop_spec(promotion={}).promotion.refit


@pytest.mark.parametrize("spec", [regression_spec(), multiclass_spec()], ids=lambda spec: spec.task)
def test_every_task_is_judged_and_refitted(shops: Shops, spec: ModelSpec) -> None:
    world = Shops(shops.settings, shops.folder, spec, shops.views)
    trained = world.train(START + timedelta(days=60))
    found = world.evaluate(trained)
    assert found.support is not None
    assert (found.support.class_rows is None) == (spec.task == "regression")
    assert found.promote, found.reasons
    assert any("gain over the best constant answer" in reason for reason in found.reasons)
    model = world.refit(trained, found)
    assert model.refit is not None
    assert model.refit.refitted, model.refit.reasons
    assert model.trained.rows == trained.training_set.rows
