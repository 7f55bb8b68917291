"""Versions of all tasks, of tuned, calibrated and weighted models, and of a project's own ensemble are equal again."""

from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from ml_platform.promotion.reproduction.pages import reproduction_text
from ml_platform.promotion.reproduction.reproduce import reproduce
from ml_platform.promotion.versions import register
from ml_platform.settings import Settings
from ml_platform.spec.families import FamilyInfo
from ml_platform.spec.model import ModelSpec
from ml_platform.training.families.blend import BlendFamily, BlendMember
from ml_platform_tests.toy_world import START, build_shops, multiclass_spec, regression_spec, shop_spec

pytestmark = pytest.mark.slow


class Ensemble(BlendFamily):
    """Two fixed trials, averaged, as AutoML adopts them."""

    info = FamilyInfo("ensemble", ("binary",), tolerance=1e-9)
    members: ClassVar[tuple[BlendMember, ...]] = (
        BlendMember("logistic_regression", {"C": 1.0}, 0.4),
        BlendMember("lightgbm", {"n_estimators": 20, "num_leaves": 7}, 0.6),
    )


KINDS = {
    "tuned": shop_spec(families=["lightgbm", "extra_trees"], tuning={"trials": 3, "seed": 11}),
    "calibrated": shop_spec(calibration="platt", threshold="best_f1"),
    "weighted": shop_spec(class_weights="balanced", monotone={"weight": "increasing"}, families=["lightgbm"]),
    "regression": regression_spec(),
    "multiclass": multiclass_spec(),
    "ensemble": shop_spec(families=[f"{__name__}.Ensemble"], tuning={"trials": 1}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_equal(kind: str, tmp_path: Path) -> None:
    spec: ModelSpec = KINDS[kind]
    shops = build_shops(Settings(home=tmp_path / "home"), tmp_path / "shop", spec, rows=3000)
    trained = shops.train(START + timedelta(days=50))
    evaluation = shops.evaluate(trained).model_copy(update={"promote": True})
    refit = shops.refit(trained, evaluation)
    for one in (trained, refit):
        register(spec, one, evaluation, tracker=shops.tracker)
    versions = shops.store.versions(spec.name)
    assert len(versions) == 1 + (refit.digest != trained.digest)
    for version in versions:
        report = reproduce(shops.lake, shops.store, tmp_path, spec.name, version, by="somebody", search=True)
        assert report.verdict == "equal", "\n".join(reproduction_text(report))
