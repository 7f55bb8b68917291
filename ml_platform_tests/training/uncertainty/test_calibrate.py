"""Calibration as a step of training: from defs.yaml to the graph that serves, without a look at the holdout."""

import shutil
from datetime import timedelta

import msgspec
import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from ml_platform.inference.batch import score_frame
from ml_platform.inference.calibration import calibrated
from ml_platform.inference.matrix import encode_labels
from ml_platform.inference.scorer import Scorer
from ml_platform.settings import Settings
from ml_platform.training.data.split import read_rows, split_by_time
from ml_platform.training.documents import TrainedModel
from ml_platform.training.evaluation.metrics import choose_threshold
from ml_platform_tests.toy_world import START, Shops, multiclass_spec, shop_spec

AS_OF = START + timedelta(days=50)


@pytest.fixture(scope="module")
def world(trained_shops, tmp_path_factory) -> tuple[dict[str, Shops], dict[str, TrainedModel]]:
    """A copy of the small world in which both kinds of classifiers were trained with calibration."""
    shared, _ = trained_shops
    home = shutil.copytree(shared.settings.home, tmp_path_factory.mktemp("calibrated") / "home")
    specs = {
        "binary": shop_spec(calibration="platt", families=["lightgbm"]),
        "multiclass": multiclass_spec(calibration="platt", families=("logistic_regression",)),
    }
    shops = {task: Shops(Settings(home=home), shared.folder, spec, shared.views) for task, spec in specs.items()}
    return shops, {task: one.train(AS_OF) for task, one in shops.items()}


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_graph_is_calibrated_and_the_manifest_says_by_what(world, task):
    shops, trained = world[0][task], world[1][task]
    scorer = Scorer.load(shops.store.bundle_path(trained.digest))  # replays its golden rows
    found = scorer.manifest.calibration
    assert found is not None
    assert found.fitted_on == "validation"
    assert found.rows == trained.bounds.validation.rows
    assert found.error_after <= found.error_before
    assert trained.calibration.startswith("Calibrated by Platt scaling: slope ")
    assert trained.parity.max_difference <= trained.parity.tolerance
    run = shops.tracker.client.get_run(trained.run_id).data
    assert run.params["calibration"] == trained.calibration
    assert 0 <= run.metrics["holdout_calibration_error"] < 0.1


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_explanations_add_up_to_calibrated_log_odds(world, task):
    shops, trained = world[0][task], world[1][task]
    scorer = Scorer.load(shops.store.bundle_path(trained.digest))
    golden = msgspec.json.decode(shops.store.read_bundle(trained.digest)["golden.json"])
    matrix = np.array(golden["matrix"], dtype=np.float64)
    explainer = scorer.explainer()
    assert explainer is not None
    explained = explainer.explain(matrix)
    raw = explained.base + explained.contributions.sum(axis=2)
    if task == "binary":
        answers = 1 / (1 + np.exp(-raw[:, 0]))
    else:
        answers = np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    assert np.abs(answers - scorer.score(matrix)).max() < 1e-9


def test_the_threshold_is_chosen_of_calibrated_probabilities_of_the_validation_rows(world):
    from ml_platform.training.candidate_fit import fit_candidate

    shops, trained = world[0]["binary"], world[1]["binary"]
    spec, ref = shops.spec, trained.training_set
    parts = split_by_time(read_rows(shops.lake, spec, ref), spec)
    earlier = fit_candidate(spec, ref.features, parts.train, trained.family, trained.params)
    y = encode_labels(parts.validation["late"], spec)
    own = earlier.predict(parts.validation)
    manifest = shops.store.load_manifest(trained.digest)
    assert trained.threshold == choose_threshold(spec.threshold, y, calibrated(manifest.calibration, own))
    # The order of the rows is the same, so the same rows are answered true.
    before = choose_threshold(spec.threshold, y, own)
    assert calibrated(manifest.calibration, np.array([before]))[0] == pytest.approx(trained.threshold)


def test_neither_the_model_that_serves_nor_the_holdout_teaches_the_calibration(world):
    shops, trained = world[0]["binary"], world[1]["binary"]
    rows = read_rows(shops.lake, shops.spec, trained.training_set)
    held_out = split_by_time(rows, shops.spec).holdout["order_id"].to_list()
    turned = rows.with_columns(pl.col("late") ^ pl.col("order_id").is_in(held_out))
    version = shops.lake.replace(trained.training_set.table, turned)
    moved = trained.training_set.model_copy(update={"version": version})
    again = shops.fit(shops.candidates(moved))
    manifests = [shops.store.load_manifest(one.digest) for one in (trained, again)]
    assert again.model_digest == trained.model_digest
    assert manifests[0].calibration == manifests[1].calibration
    assert manifests[0].conformal != manifests[1].conformal  # which is of the holdout


def test_a_refit_keeps_the_calibration_that_was_judged(world):
    shops, trained = world[0]["binary"], world[1]["binary"]
    evaluation = shops.evaluate(trained).model_copy(update={"promote": True})
    refitted = shops.refit(trained, evaluation)
    assert refitted.refit.refitted
    judged, served = (shops.store.load_manifest(one.digest) for one in (trained, refitted))
    assert served.calibration == judged.calibration
    assert served.conformal == judged.conformal
    assert served.threshold == judged.threshold


def test_without_the_key_nothing_is_calibrated(trained_shops):
    shops, trained = trained_shops
    manifest = shops.store.load_manifest(trained.digest)
    assert manifest.calibration is None
    assert trained.calibration == ""
    assert manifest.conformal.rows == trained.bounds.holdout.rows  # intervals and sets need no calibration
    assert manifest.conformal.coverage == pytest.approx(0.9, abs=0.05)


def test_too_few_rows_leave_a_model_uncalibrated_and_say_so(world):
    shops = world[0]["binary"].respecified(calibration="platt", families=["logistic_regression"], sample=0.05)
    trained = shops.train(AS_OF)
    assert trained.calibration.startswith("Not calibrated: ")
    assert "are too few: 100 and 20 are wanted" in trained.calibration
    assert shops.store.load_manifest(trained.digest).calibration is None


def test_a_regression_has_no_probabilities_to_calibrate():
    with pytest.raises(ValidationError, match="calibration: only a classifier has probabilities"):
        shop_spec(task="regression", target="minutes", families=["ridge"], calibration="platt")


def test_batch_scores_are_calibrated(world):
    shops, trained = world[0]["binary"], world[1]["binary"]
    scorer = Scorer.load(shops.store.bundle_path(trained.digest))
    parts = split_by_time(read_rows(shops.lake, shops.spec, trained.training_set), shops.spec)
    score = score_frame(scorer, parts.holdout)
    y = encode_labels(parts.holdout["late"], shops.spec)
    assert abs(score.mean() - y.mean()) < 0.05
