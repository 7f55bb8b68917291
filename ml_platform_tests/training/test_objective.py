"""Weights, classes and quantiles from a spec, through search and training, to the model that serves."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from ml_platform.inference.batch import score_frame
from ml_platform.inference.scorer import Scorer
from ml_platform.settings import Settings
from ml_platform.spec.model import Tuning
from ml_platform.training.candidate_fit import fit_candidate
from ml_platform.training.data.split import read_rows
from ml_platform.training.families.registry import get_family
from ml_platform.training.objective import Objective
from ml_platform.training.search.run_search import search
from ml_platform.training.search.trial import trial_data
from ml_platform_tests.toy_world import START, Shops, build_shops, multiclass_spec, regression_spec, shop_spec

AS_OF = START + timedelta(days=50)
SPINE = """
SELECT order_id, shop, channel, weight, ordered_at, known_at, {target},
       CASE WHEN shop = 'shop-1' THEN 0 ELSE 2.5 END AS importance
FROM raw.orders
"""


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Shops:
    """The world of shops, in which the orders of one shop do not count."""
    home = tmp_path_factory.mktemp("weighted")
    shops = build_shops(Settings(home=home), home / "shops", shop_spec(weight="importance"), rows=2500)
    for target in ("late", "minutes", "outcome"):
        (shops.folder / f"{target}.sql").write_text(SPINE.format(target=target))
    return shops


def test_rows_of_weight_0_are_as_if_they_were_not_there(weighted: Shops) -> None:
    ref = weighted.training_set(AS_OF)
    assert ref.weight_summary["largest"] == 2.5
    assert ref.weight_summary["effective_rows"] == pytest.approx(ref.rows * ref.weight_summary["mean"] / 2.5)
    rows = read_rows(weighted.lake, weighted.spec, ref)
    unweighted = shop_spec()
    for family in ("logistic_regression", "lightgbm"):
        params = get_family(family).default_params("binary")
        one = fit_candidate(weighted.spec, ref.features, rows, family, params)
        other = fit_candidate(unweighted, ref.features, rows.filter(pl.col("shop") != "shop-1"), family, params)
        assert one.trained.rows == other.trained.rows < rows.height
        np.testing.assert_allclose(one.predict(rows), other.predict(rows), atol=1e-9)


def test_metrics_count_every_row_alike(weighted: Shops) -> None:
    """The validation metrics of a trial are those of all validation rows, the weightless among them."""
    ref = weighted.training_set(AS_OF)
    data = trial_data(weighted.rows(ref).parts, weighted.spec, ref)
    assert data.objective.validation_weights is not None
    assert data.objective.weights is not None
    assert set(data.objective.validation_weights.tolist()) == {0.0, 2.5}
    assert len(data.y_validation) == len(data.objective.validation_weights)
    assert len(data.y) == np.count_nonzero(data.objective.weights)


def test_a_weight_that_is_none_names_its_row(weighted: Shops) -> None:
    text = (weighted.folder / "late.sql").read_text()
    (weighted.folder / "late.sql").write_text(text.replace("THEN 0", "THEN NULL"))
    try:
        with pytest.raises(ValueError, match="weight 'importance': wanted finite numbers from 0 on, found None in the"):
            weighted.training_set(AS_OF)
    finally:
        (weighted.folder / "late.sql").write_text(text)


def test_balanced_classes_count_alike_and_probabilities_stay(shops: Shops) -> None:
    """On average the probability is the share of late orders, though in fitting both classes counted alike."""
    balanced = Shops(
        shops.settings,
        shops.folder,
        shop_spec(class_weights="balanced", families=["lightgbm"], tuning={"trials": 1}),
        shops.views,
    )
    ref = balanced.training_set(AS_OF)
    trained = balanced.fit(search(balanced.rows(ref), balanced.spec, tracker=balanced.tracker))
    holdout = balanced.rows(ref).parts.holdout
    scores = score_frame(Scorer.load(balanced.store.bundle_path(trained.digest)), holdout)
    assert abs(scores.mean() - holdout["late"].mean()) < 0.08
    assert trained.metrics["roc_auc"] > 0.6


def test_weights_of_classes_by_name() -> None:
    y = np.array([0.0, 0.0, 1.0, 2.0])
    rows = pl.DataFrame({"w": [1.0] * 4})
    spec = multiclass_spec(class_weights={"b": 3.0})
    assert Objective.of(spec, (), rows, y, classes=("a", "b", "c")).class_weights == (1.0, 3.0, 1.0)
    balanced = Objective.of(multiclass_spec(class_weights="balanced"), (), rows, y, classes=("a", "b", "c"))
    assert balanced.class_weights == pytest.approx((2 / 3, 4 / 3, 4 / 3))
    combined = balanced.combined(np.array([1.0, -1.0]), np.array([2.0, 2.0]))
    assert combined is not None
    assert combined.tolist() == pytest.approx([8 / 3, 0.0])
    with pytest.raises(ValueError, match=r"class_weights names \['d'\], which no training row has; classes are"):
        Objective.of(multiclass_spec(class_weights={"d": 3.0}), (), rows, y, classes=("a", "b", "c"))


@pytest.mark.parametrize("monotone", [{"shop": "increasing"}, {"wieght": "increasing"}])
def test_a_monotone_column_must_be_a_numeric_feature(shops: Shops, monotone: dict[str, str]) -> None:
    ref = shops.training_set(AS_OF)
    rows = read_rows(shops.lake, shops.spec, ref)
    spec = shops.spec.model_copy(update={"monotone": monotone})
    with pytest.raises(ValueError, match="are no numeric features; there are weight"):
        fit_candidate(spec, ref.features, rows, "lightgbm", get_family("lightgbm").default_params("binary"))


def test_a_quantile_is_trained_judged_and_served(shops: Shops) -> None:
    """Training, gate, naive baseline and plots by the pinball loss; nine of ten labels are below the score."""
    spec = regression_spec(families=("lightgbm",), quantile=0.9, tuning=Tuning(trials=1))
    quantile = Shops(shops.settings, shops.folder, spec, shops.views)
    trained = quantile.train(AS_OF)
    assert set(trained.metrics) == {"pinball", "coverage"}
    assert abs(trained.metrics["coverage"] - 0.9) < 0.06
    evaluation = quantile.evaluate(trained)
    assert evaluation.metric == "pinball"
    assert evaluation.challenger["pinball"] == pytest.approx(trained.metrics["pinball"])
    assert evaluation.challenger["pinball"] < evaluation.naive["pinball"]
    assert "always the 0.9 quantile of the training rows" in evaluation.naive_description
    assert evaluation.over_chance is not None
    assert evaluation.over_chance.lower > 0
    names = {item.path for item in quantile.tracker.client.list_artifacts(trained.run_id, "plots")}
    assert "plots/coverage.png" in names
    assert Scorer.load(quantile.store.bundle_path(trained.digest)).manifest.quantile == 0.9
