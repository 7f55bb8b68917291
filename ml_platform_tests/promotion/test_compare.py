"""Two versions side by side: what differs is told, and which is better on rows that neither has learned from."""

import shutil
from datetime import timedelta
from pathlib import Path

import msgspec
import polars as pl
import pytest

from ml_platform.promotion.compare import VersionComparison, compare_versions
from ml_platform.promotion.comparison_pages import comparison_html, comparison_text, parts_of, verdicts_of
from ml_platform.registry.comparisons import find_comparison
from ml_platform.registry.model_card import CardInterval
from ml_platform.registry.recorded_comparison import unlike
from ml_platform.registry.version_facts import facts_of
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


def compared(world: Shops, *versions: int) -> VersionComparison:
    return compare_versions(world.lake, world.store, world.spec, world.folder, world.views, versions=versions)


def gain(result: VersionComparison) -> CardInterval:
    assert result.same_rows is not None
    found = result.same_rows.gains[1]
    assert found is not None
    return found


def test_the_better_one_is_told_with_its_interval_whichever_comes_first(world: Shops) -> None:
    forth, back = compared(world, 1, 2), compared(world, 2, 1)
    assert forth.same_rows is not None
    assert forth.same_rows.rows > 500
    first, second = forth.same_rows.metrics
    assert first["roc_auc"] > second["roc_auc"]
    assert gain(forth).upper < 0 < gain(back).lower
    assert gain(forth).gain == pytest.approx(-gain(back).gain)
    for one in (forth, back):
        verdict, again = verdicts_of(one)
        assert verdict.endswith("version 1 is better.")
        assert again.startswith("If the same blocks came again with other rows: ")
        assert comparison_html(one).count('class="reach"') == 2


def test_each_version_answers_with_its_own_features(world: Shops) -> None:
    """On the holdout, which is that of both, and the rows of the gap before it, which neither has learned from."""
    result = compared(world, 1, 2)
    assert result.same_rows is not None
    for measured, side in zip(result.same_rows.metrics, result.sides, strict=True):
        assert measured == pytest.approx(side.metrics, abs=0.02)


def test_a_terminal_marks_what_differs(world: Shops) -> None:
    result = compared(world, 1, 2)
    lines = comparison_text(result)
    assert any(line.startswith("* features ") for line in lines)
    assert any(line.startswith("* features of it alone") and "shop_load__load" in line for line in lines)
    assert any(line.startswith("  learned until") for line in lines)
    assert any(line.startswith("* shop = shop-0") for line in lines)
    importance = dict(dict(parts_of(result))["Importance of features"])
    assert importance["shop_load__mood"][1] == "–"
    assert any("They read other features" in line for line in lines)


def test_the_page_has_the_verdict_and_all_parts(world: Shops) -> None:
    result = compared(world, 1, 2)
    page = comparison_html(result)
    assert verdicts_of(result)[0].split(":")[0] in page
    for title in (
        "Provenance",
        "Metrics on the same rows",
        "Groups on the same rows",
        "Importance of features",
    ):
        assert f"<h2>{title}</h2>" in page
    assert "<script" not in page


def test_what_was_compared_is_kept_for_the_console_in_any_order(world: Shops) -> None:
    digests = world.store.versions("order_late")
    made = compared(world, 2, 1).same_rows
    assert find_comparison(world.store, "order_late", digests) == made
    assert find_comparison(world.store, "order_late", {**digests, 2: "0" * 64}) is None


def test_three_versions_are_held_against_the_first(world: Shops) -> None:
    world.store.register_version("order_late", 3, world.store.versions("order_late")[1])
    result = compared(world, 2, 1, 3)
    assert result.same_rows is not None
    _, one, same = result.same_rows.gains
    assert one is not None
    assert one == same
    assert all(len(values) == 3 for _, rows in parts_of(result) for _, values in rows)


def test_what_does_not_compare_is_said(world: Shops, tmp_path: Path) -> None:
    """A version without a bundle, one of another target, and a definition that has moved on."""
    home = shutil.copytree(world.settings.home, tmp_path / "shops")
    shops = Shops(Settings(home=home), world.folder, world.spec, world.views)
    moved = shops.respecified(target="very_late")
    assert "defs.yaml now declares very_late (binary)" in verdicts_of(compared(moved, 1, 2))[0]
    manifest = world.store.load_manifest(world.store.versions("order_late")[1])
    other = facts_of(world.store, "order_late", 1)
    assert unlike([other, msgspec.structs.replace(other, target="minutes", task="regression")])[:2] == [
        "They do not predict the same: task is binary (version 1), regression (version 1).",
        f"They do not predict the same: target is {manifest.target} (version 1), minutes (version 1).",
    ]
    shutil.rmtree(shops.store.bundle_path(shops.store.versions("order_late")[2]))
    result = compared(shops, 1, 2)
    assert "version 2 cannot be scored: its bundle" in verdicts_of(result)[0]
    assert any(line.startswith("Of version 2: its bundle") for line in result.warnings)
    with pytest.raises(ValueError, match="wanted two versions or more, each once; found 1, 1"):
        compared(shops, 1, 1)


def test_without_rows_that_are_new_to_both_it_says_so(world: Shops, tmp_path: Path) -> None:
    home = shutil.copytree(world.settings.home, tmp_path / "shops")
    shops = Shops(Settings(home=home), world.folder, world.spec, world.views)
    table = shops.store.load_manifest(shops.store.versions("order_late")[1]).provenance.training_set
    late = shops.lake.read(table).collect().filter(pl.col("ordered_at") < START)
    shops.lake.replace(table, late)
    assert compared(shops, 1, 2).same_rows is not None  # a version's own training set is read by its version
    shutil.rmtree(home / "lake" / table)
    result = compared(shops, 1, 2)
    assert result.same_rows is None
    assert "the training set is gone" in verdicts_of(result)[0]


def test_a_version_that_is_not_registered_is_told(world: Shops) -> None:
    with pytest.raises(LookupError, match=r"no version 7 and 9 is registered; there are \[1, 2"):
        compared(world, 7, 9)


def test_every_metric_has_an_interval_and_the_gate_decides_by_its_own(world: Shops) -> None:
    result = compared(world, 1, 2)
    assert result.same_rows is not None
    for metrics, bounds in zip(result.same_rows.metrics, result.same_rows.intervals, strict=True):
        assert bounds.keys() == metrics.keys()
        assert all(low <= metrics[name] <= high for name, (low, high) in bounds.items())
    first, second = result.same_rows.further_gains
    assert first == {}
    assert second.keys() == result.same_rows.metrics[0].keys() - {"roc_auc"}
    assert second["log_loss"].gain == pytest.approx(
        result.same_rows.metrics[0]["log_loss"] - result.same_rows.metrics[1]["log_loss"]
    )
    assert second["log_loss"].upper < 0
    parts = dict(parts_of(result))
    assert "(" in dict(parts["Metrics on the same rows"])["brier"][0]
    assert "Gains over version 1 in other metrics, which decide nothing" in parts
