"""Two versions side by side: what differs is told, and which is better on rows that neither has learned from."""

import shutil
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.promotion.compare import VersionComparison, compare_versions
from ml_platform.promotion.comparison_pages import comparison_html, comparison_text, features_of, verdict_of
from ml_platform.settings import Settings
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import START, Shops


@pytest.fixture(scope="module")
def world(trained_shops: tuple[Shops, TrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Shops:
    """Version 2 does without the look-ups of version 1. Read only."""
    first, trained = trained_shops
    home = shutil.copytree(first.settings.home, tmp_path_factory.mktemp("compared") / "shops")
    shops = Shops(Settings(home=home), first.folder, first.spec, first.views)
    second = shops.respecified(lookups=()).train(START + timedelta(days=50))
    for version, digest in ((1, trained.digest), (2, second.digest)):
        shops.store.register_version("order_late", version, digest)
    return shops


def compared(world: Shops, first: int, second: int) -> VersionComparison:
    return compare_versions(world.lake, world.store, world.spec, world.folder, world.views, versions=(first, second))


def test_the_better_one_is_told_with_its_interval_whichever_comes_first(world: Shops) -> None:
    forth, back = compared(world, 1, 2), compared(world, 2, 1)
    assert forth.same_rows is not None
    assert back.same_rows is not None
    assert forth.same_rows.rows.rows > 500
    assert forth.same_rows.first["roc_auc"] > forth.same_rows.second["roc_auc"]
    assert forth.same_rows.gain is not None
    assert back.same_rows.gain is not None
    assert forth.same_rows.gain.upper < 0 < back.same_rows.gain.lower
    assert forth.same_rows.gain.gain == pytest.approx(-back.same_rows.gain.gain)
    for one in (forth, back):
        assert verdict_of(one).endswith("version 1 is better.")
        assert one.same_rows is not None
        assert one.same_rows.within_blocks is not None
        assert comparison_text(one)[-1].startswith("If the same blocks came again with other rows: ")
        assert comparison_html(one).count('class="reach"') == 2


def test_each_version_answers_with_its_own_features(world: Shops) -> None:
    """On the holdout, which is that of both, and the rows of the gap before it, which neither has learned from."""
    result = compared(world, 1, 2)
    assert result.same_rows is not None
    assert result.same_rows.first == pytest.approx(result.first.holdout_metrics, abs=0.02)
    assert result.same_rows.second == pytest.approx(result.second.holdout_metrics, abs=0.02)


def test_a_terminal_marks_what_differs(world: Shops) -> None:
    lines = comparison_text(compared(world, 1, 2))
    assert any(line.startswith("* features ") for line in lines)
    assert any(line.startswith("* features of it alone") and "shop_load__load" in line for line in lines)
    assert any(line.startswith("  learned until") for line in lines)
    assert any(line.startswith("* shop = shop-0") for line in lines)
    assert ("shop_load__mood", "–") in {(name, other) for name, _, other in features_of(compared(world, 1, 2))}


def test_the_page_has_the_verdict_and_all_parts(world: Shops) -> None:
    result = compared(world, 1, 2)
    page = comparison_html(result)
    assert verdict_of(result).split(":")[0] in page
    for title in ("How they were made", "Metrics", "Groups", "Importance of features"):
        assert f"<h2>{title}</h2>" in page
    assert "<script" not in page


def test_without_rows_that_are_new_to_both_it_says_so(world: Shops, tmp_path: Path) -> None:
    home = shutil.copytree(world.settings.home, tmp_path / "shops")
    shops = Shops(Settings(home=home), world.folder, world.spec, world.views)
    table = shops.store.load_manifest(shops.store.versions("order_late")[1]).provenance.training_set
    late = shops.lake.read(table).collect().filter(pl.col("ordered_at") < START)
    shops.lake.replace(table, late)
    result = compared(shops, 1, 1)
    assert result.same_rows is not None  # a version's own training set is read by its version
    shutil.rmtree(home / "lake" / table)
    result = compared(shops, 1, 2)
    assert result.same_rows is None
    assert "the training set is gone" in verdict_of(result)


def test_a_version_that_is_not_registered_is_told(world: Shops) -> None:
    with pytest.raises(LookupError, match=r"no version 7 and 9 is registered; there are \[1, 2\]"):
        compared(world, 7, 9)
