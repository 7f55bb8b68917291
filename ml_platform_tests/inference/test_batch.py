import re
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform.features.views.recorded_definitions import ViewChanged
from ml_platform.inference.batch import BatchReport, NoRelease, score_frame, score_window
from ml_platform.inference.recorded_columns import of_features
from ml_platform.inference.scorer import Scorer
from ml_platform.registry.digests import model_digest
from ml_platform.registry.manifest import Derived, Manifest, Target
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import REQUEST_FEATURES, START, Shops, multiclass_spec, regression_spec, shop_spec


@pytest.fixture
def released(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> Shops:
    digest = trained_shops[1].digest
    shops.store.publish("order_late", [Target(version=4, digest=digest)], reason="test", by="ann")
    return shops


def score(shops: Shops, first: int, days: int) -> BatchReport:
    start = START + timedelta(days=first)
    return score_window(
        shops.lake, shops.spec, shops.folder, shops.views, shops.store, start, start + timedelta(days=days)
    )


def test_every_row_of_the_span_is_scored_once(released: Shops) -> None:
    report = score(released, 60, 3)
    table = released.lake.read("predictions/order_late").collect()
    orders = released.lake.read("raw/orders").collect()
    wanted = orders.filter(pl.col("ordered_at").is_between(START + timedelta(60), START + timedelta(63), closed="left"))
    assert sorted(table["id"]) == sorted(wanted["order_id"])
    assert (report.rows, report.unscored, report.model_version) == (wanted.height, 0, 4)
    assert report.mean_score == pytest.approx(table["score"].mean())
    assert table.columns[:7] == ["id", "as_of", "scored_at", "model_version", "score", "prediction", "date"]
    assert table["date"].unique().sort().to_list() == [date(2024, 3, 1), date(2024, 3, 2), date(2024, 3, 3)]
    assert table.schema["as_of"] == pl.Datetime("us", "UTC")
    assert (table.schema["shop"], table.schema["weight"], table.schema["heavy"]) == (pl.String, pl.Float64, pl.Float64)
    threshold = released.store.load_manifest(report.digest).threshold
    assert table["prediction"].to_list() == (table["score"] >= threshold).to_list()


def test_scores_are_those_of_single_requests(released: Shops) -> None:
    report = score(released, 60, 1)
    scorer = Scorer.load(released.store.bundle_path(report.digest))
    names = [feature.name for feature in scorer.manifest.features]
    for row in released.lake.read("predictions/order_late").collect().head(40).iter_rows(named=True):
        assert scorer.score_row({name: row[name] for name in names}) == pytest.approx(row["score"], abs=1e-6)


def test_scoring_again_replaces_and_leaves_other_days(released: Shops) -> None:
    first = score(released, 60, 3)
    again = score(released, 61, 1)
    table = released.lake.read("predictions/order_late").collect()
    assert table.height == first.rows
    assert table["id"].n_unique() == first.rows
    assert table.filter(pl.col("date") == date(2024, 3, 2)).height == again.rows
    assert table["scored_at"].n_unique() == 2


def test_rows_that_serving_would_refuse_are_left_out_and_counted(shops: Shops) -> None:
    inputs = [field.model_dump() for field in shops.spec.inputs]
    weight = next(field for field in inputs if field["name"] == "weight")
    plain = next(field for field in inputs if field["name"] == "shop")
    weights = shops.lake.read("raw/orders").collect()["weight"]
    weight |= {"minimum": float(weights.quantile(0.1) or 0.0), "on_violation": "reject"}
    plain |= {"allowed": ("shop-1", "shop-2"), "on_violation": "flag"}
    order = next(field for field in inputs if field["name"] == "order_id")
    order |= {"pattern": r"order-\d*[0-8]"}
    world = shops.respecified(inputs=inputs)
    trained = world.train(START + timedelta(days=50))
    world.store.publish("order_late", [Target(version=1, digest=trained.digest)], reason="test", by="ann")
    report = score(world, 60, 3)
    table = world.lake.read("predictions/order_late").collect()
    ordered = pl.col("ordered_at").is_between(START + timedelta(60), START + timedelta(63), closed="left")
    orders = world.lake.read("raw/orders").filter(ordered).collect()
    unmatched = orders["order_id"].str.ends_with("9")
    light = (orders["weight"] < weight["minimum"]).fill_null(value=False)
    assert report.refused == {"weight: range": light.sum(), "order_id: pattern": unmatched.sum()}
    assert report.refused_rows == (unmatched | light).sum() > max(report.refused.values())
    assert set(table["id"]) == set(orders.filter(~(unmatched | light))["order_id"])
    assert report.rows == table.height > report.refused_rows
    assert table["weight"].min() >= weight["minimum"]
    told = " ".join(report.refused_examples)
    assert "weight: wanted a finite number of at least" in told
    assert r'order_id: wanted a string that matches order-\d*[0-8], found "order-' in told
    flagged = table.filter(pl.col("flags").is_not_null())
    assert 0 < flagged.height == report.flagged["shop: allowed"] < table.height
    assert set(flagged["flags"].list.first().struct.field("field")) == {"shop"}
    assert set(flagged["shop"]).isdisjoint({"shop-1", "shop-2"})


def picky(shops: Shops, digest: str, *, late: str, wordy: str) -> str:
    """A bundle with derived features that two orders do not have, and one that is beyond 64 bits for another order."""

    def op(name: str, *args: dict[str, Any], **parameters: Any) -> dict[str, Any]:
        return {"op": name, "args": list(args), **parameters}

    def of_order(order: str, then: dict[str, Any], otherwise: dict[str, Any]) -> dict[str, Any]:
        is_it = op("equal", {"op": "column", "name": "order_id"}, {"op": "literal", "value": order})
        return op("when", is_it, then, otherwise)

    spans = [{"op": "literal", "type": "duration", "value": days * 86_400_000_000} for days in (3_000_000, 0)]
    words = [{"op": "literal", "value": word} for word in ("x", "7")]
    derived = (
        Derived(name="later", type="timestamp", tree=op("add", {"op": "column", "name": "ordered_at"},
                                                        of_order(late, *spans))),
        Derived(name="number", type="integer", tree=op("cast", of_order(wordy, *words), to="Int64")),
    )  # fmt: skip
    files = shops.store.read_bundle(digest)
    manifest = msgspec.json.decode(files["manifest.json"], type=Manifest)
    manifest = msgspec.structs.replace(manifest, derived=(*manifest.derived, *derived))
    manifest = msgspec.structs.replace(manifest, model_digest=model_digest(files["model.onnx"], manifest))
    return shops.store.put_bundle({**files, "manifest.json": msgspec.json.encode(manifest)})


def test_a_bad_row_is_left_out_and_told_and_the_others_are_scored(
    released: Shops, trained_shops: tuple[Shops, TrainedModel], tmp_path: Path
) -> None:
    score(released, 60, 1)
    before = released.lake.read("predictions/order_late").collect()
    infinite, early, late, wordy = before["id"].head(4)
    digest = picky(released, trained_shops[1].digest, late=late, wordy=wordy)
    released.store.publish("order_late", [Target(version=5, digest=digest)], reason="test", by="ann")
    folder = Path(shutil.copytree(released.folder, tmp_path / "edited"))
    spine = (folder / "late.sql").read_text()
    spine = spine.replace("weight,", f"CASE WHEN order_id = '{infinite}' THEN 'inf'::DOUBLE ELSE weight END AS weight,")
    label = f"CASE WHEN order_id = '{early}' THEN TIMESTAMPTZ 'infinity' ELSE known_at END AS known_at,"
    (folder / "late.sql").write_text(spine.replace("known_at,", label))
    world = Shops(released.settings, folder, released.spec, released.views)
    report = score(world, 60, 1)
    assert (report.rows, report.refused_rows, report.unscored) == (before.height - 3, 3, 0)
    assert report.refused == {"weight: type": 1, "row: derived": 2}
    told = sorted(report.refused_examples, key=lambda example: [infinite, late, wordy].index(example.split(":")[0]))
    assert told[0] == f"{infinite}: weight: wanted a finite number, found inf"
    assert told[1].startswith(f"{late}: row: features cannot be derived from it: date value out of range")
    assert told[2].startswith(f"{wordy}: row: features cannot be derived from it: invalid literal for int()")
    after = world.lake.read("predictions/order_late").collect()
    left = before.filter(~pl.col("id").is_in([infinite, late, wordy]))
    assert_frame_equal(after.select("id", "score"), left.select("id", "score"), check_row_order=False)
    assert score(world, 61, 1).refused_rows == 0, "each row is told with its own day"
    with pytest.raises(ValueError, match=f"found inf in the row '{infinite}'|outside of the years 1 to 9999"):
        world.training_set()


def test_rows_without_an_id_are_left_out_and_told(released: Shops, tmp_path: Path) -> None:
    whole = score(released, 60, 1)
    first = released.lake.read("predictions/order_late").collect()["id"].sort().head(2)
    folder = Path(shutil.copytree(released.folder, tmp_path / "edited"))
    spine = (folder / "late.sql").read_text()
    without = f"CASE WHEN order_id NOT IN ('{first[0]}', '{first[1]}') THEN order_id END AS order_id,"
    (folder / "late.sql").write_text(spine.replace("order_id,", without))
    world = Shops(released.settings, folder, released.spec, released.views)
    report = score(world, 60, 1)
    assert (report.rows, report.refused_rows) == (whole.rows - 2, 2)
    assert report.refused == {"order_id: null": 2}
    assert re.fullmatch(r"row \d+ without id: order_id: wanted an id, found null", report.refused_examples[0])
    quarantined = released.lake.read("quarantine/predictions/order_late").collect()
    assert quarantined["reasons"].to_list() == [["order_id: wanted an id, found null"]] * 2
    assert released.lake.read("predictions/order_late").collect()["id"].null_count() == 0
    assert score(world, 61, 1).refused_rows == 0, "each row is told with its own day"
    with pytest.raises(ValueError, match=r"gives 2 of 6,000 rows without an id \('order_id' is null\)"):
        world.training_set()


def test_a_default_stands_for_nulls_in_training_and_in_batch(shops: Shops) -> None:
    inputs = [field.model_dump() for field in shops.spec.inputs]
    next(field for field in inputs if field["name"] == "channel")["default"] = "web"
    world = shops.respecified(inputs=inputs)
    trained = world.train(START + timedelta(days=50))
    world.store.publish("order_late", [Target(version=1, digest=trained.digest)], reason="test", by="ann")
    score(world, 60, 3)
    assert world.lake.read("raw/orders").collect()["channel"].null_count() > 0
    for table in ("training_sets/order_late", "predictions/order_late"):
        assert world.lake.read(table).collect()["channel"].null_count() == 0
    channel = next(field for field in world.store.load_manifest(trained.digest).inputs if field.name == "channel")
    assert (channel.default, channel.required) == ("web", False)


def test_span_without_rows(released: Shops) -> None:
    report = score(released, 400, 2)
    assert (report.rows, report.unscored, report.mean_score) == (0, 0, None)
    with pytest.raises(ValueError, match="must start before it ends"):
        score(released, 60, 0)


def test_no_release_says_what_to_do(shops: Shops) -> None:
    with pytest.raises(NoRelease, match="materialise order_late/release"):
        score(shops, 60, 1)


def test_a_version_is_scored_by_its_own_definitions(released: Shops, tmp_path: Path) -> None:
    score(released, 60, 5)
    before = released.lake.read("predictions/order_late").collect()
    folder = Path(shutil.copytree(released.folder, tmp_path / "edited"))
    other = REQUEST_FEATURES.replace("> 20", "> 3").replace("cast(pl.Int64)", "cast(pl.Int64) * 7")
    (folder / "request_features.py").write_text(other)
    inputs = [field.model_dump() for field in released.spec.inputs]
    next(field for field in inputs if field["name"] == "channel")["default"] = "web"
    spec = shop_spec(inputs=inputs, lookups=[])
    score(Shops(released.settings, folder, spec, released.views), 60, 5)
    after = released.lake.read("predictions/order_late").collect()
    key = pl.col("scored_at")
    assert_frame_equal(after.select(pl.exclude("scored_at")), before.drop("scored_at"), check_row_order=False)
    assert after.select(key.min()).item() > before.select(key.max()).item()


def test_an_input_that_the_spine_no_longer_gives(released: Shops, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(released.folder, tmp_path / "edited"))
    (folder / "late.sql").write_text((folder / "late.sql").read_text().replace("weight, ", ""))
    with pytest.raises(ValueError, match=r"late\.sql must give the columns \['weight'\]"):
        score(Shops(released.settings, folder, released.spec, released.views), 60, 1)


def test_a_view_that_is_gone(released: Shops) -> None:
    with pytest.raises(ViewChanged, match=r"'shop_load' \(which is gone\) changed since the version"):
        score(Shops(released.settings, released.folder, released.spec, {}), 60, 1)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [(regression_spec(), pl.Float64), (multiclass_spec(), pl.String)],
    ids=["regression", "multiclass"],
)
def test_other_tasks(shops: Shops, spec, kind: pl.DataType) -> None:
    world = Shops(shops.settings, shops.folder, spec, shops.views)
    trained = world.train()
    world.store.publish(spec.name, [Target(version=1, digest=trained.digest)], reason="test", by="ann")
    report = score(world, 60, 2)
    table = world.lake.read(report.table).collect()
    assert table.schema["prediction"] == kind
    assert table.schema["score"] == pl.Float64
    assert report.unscored == 0


def test_scores_of_a_version_with_other_kinds_of_features_are_kept_beside(released: Shops) -> None:
    """A version that took the weight for a category, and a channel for a number, has scored before."""
    report = score(released, 60, 1)
    table = released.lake.read(report.table).collect()
    old = table.with_columns(weight=pl.lit("heavy"), channel=pl.lit(7.0), prediction=pl.lit("late"))
    released.lake.replace(report.table, old, partition_by=["date"])
    score(released, 61, 1)
    both = released.lake.read(report.table).sort("as_of").collect()
    assert both.height > table.height
    assert both["weight"].drop_nulls().to_list() == ["heavy"] * table.height
    assert both["channel"].drop_nulls().to_list() == [7.0] * table.height
    new = both.filter(pl.col("weight").is_null())
    assert new["weight__as_number"].null_count() < new.height
    assert new["channel__as_text"].null_count() < new.height
    assert new["prediction__as_flag"].null_count() == 0
    score(released, 60, 1)  # and the new version scores the old one's rows anew
    features = Scorer.load(released.store.bundle_path(report.digest)).manifest.features
    rows = of_features(released.lake.read(report.table), features).collect()
    assert rows.filter(pl.col("as_of").dt.date() == table["date"][0])["weight"].sort().to_list() == (
        table["weight"].sort().to_list()
    )


def test_chunks_do_not_show(released: Shops) -> None:
    digest = score(released, 60, 5).digest
    scorer = Scorer.load(released.store.bundle_path(digest))
    rows = released.lake.read("predictions/order_late").collect()
    whole = score_frame(scorer, rows)
    np.testing.assert_array_equal(score_frame(scorer, rows, chunk_rows=64), whole)


@pytest.mark.slow
def test_ray_scores_the_same(released: Shops) -> None:
    digest = score(released, 60, 5).digest
    scorer = Scorer.load(released.store.bundle_path(digest))
    rows = released.lake.read("predictions/order_late").collect()
    whole = score_frame(scorer, rows)
    np.testing.assert_array_equal(score_frame(scorer, rows, executor="ray", chunk_rows=64), whole)
