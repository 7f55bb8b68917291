"""A released model whose world changes after its training, and whose labels come."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.inference.batch import score_window
from ml_platform.promotion.card import write_card
from ml_platform.promotion.promote import promote
from ml_platform.promotion.versions import register
from ml_platform.settings import Settings
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import START, Shops

TRAINED_UNTIL = START + timedelta(days=50)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def score_days(shops: Shops, first: int, last: int) -> None:
    """Score the orders of days by what serves."""
    score_window(shops.lake, shops.spec, shops.folder, shops.views, shops.store, day(first), day(last))


def release(shops: Shops, trained: TrainedModel) -> None:
    """Register a trained model, and let it serve."""
    evaluation = shops.evaluate(trained).model_copy(update={"promote": True, "reasons": ("because",)})
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    write_card(shops.spec, shops.folder, trained, evaluation, version, tracker=shops.tracker)
    promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")


@pytest.fixture(scope="session")
def released_shops(trained_shops: tuple[Shops, TrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Shops:
    """Orders that come in after the training are late more often than before. Shared by the session: read only."""
    shared, trained = trained_shops
    home = shutil.copytree(shared.settings.home, tmp_path_factory.mktemp("released") / "home")
    shops = Shops(Settings(home=home), shared.folder, shared.spec, shared.views)
    release(shops, trained)
    orders = shops.lake.read("raw/orders").collect()
    slower = pl.when(pl.col("ordered_at") >= TRAINED_UNTIL).then(pl.col("minutes") + 12).otherwise("minutes")
    orders = orders.with_columns(slower.alias("minutes")).with_columns(late=pl.col("minutes") > 5)
    shops.lake.replace("raw/orders", orders)
    score_days(shops, 50, 75)
    return shops


@pytest.fixture
def slow_shops(released_shops: Shops, tmp_path: Path) -> Shops:
    """A copy of that world to change."""
    home = shutil.copytree(released_shops.settings.home, tmp_path / "slow")
    spec = released_shops.spec.model_copy(update={"calibration": "platt"})
    return Shops(Settings(home=home), released_shops.folder, spec, released_shops.views)
