"""Rows of tables, files and queries become scored rows, each once; those that serving would refuse are kept apart."""

import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform.features.online.publish import latest_rows
from ml_platform.features.views.recorded_definitions import ViewChanged
from ml_platform.inference.batch import score_window
from ml_platform.inference.intervals import set_cutoff
from ml_platform.inference.scorer import Scorer
from ml_platform.scoring import sources
from ml_platform.scoring.cli import report_lines
from ml_platform.scoring.duplicates import RepeatedIds
from ml_platform.scoring.outputs import OutputExists
from ml_platform_tests.scoring.conftest import World
from ml_platform_tests.toy_world import START


def test_a_table_is_scored_as_the_asset_scores_it_and_once_however_often(world, monkeypatch):
    monkeypatch.setattr(sources, "PART_ROWS", 1000)
    shops = world.shops
    report = world.score("raw/orders", "scores/orders", keep=("shop",))
    assert (report.read, report.scored, report.refused, report.lookups) == (6000, 6000, 0, "point-in-time")
    scored = world.scored()
    assert scored["source_row"].to_list() == list(range(6000))
    assert scored["shop"].to_list() == world.orders["shop"].to_list()
    assert scored["source"].unique().to_list() == ["raw/orders"]
    score_window(
        shops.lake, shops.spec, shops.folder, shops.views, shops.store, START + timedelta(60), START + timedelta(63)
    )
    asset = shops.lake.read("predictions/order_late").select("id", "score", "prediction", "as_of").collect()
    both = asset.join(scored, on=["id", "score", "prediction", "as_of"])
    assert both.height == asset.height > 100
    version = shops.lake.version("scores/orders")
    again = world.score("raw/orders", "scores/orders", keep=("shop",))
    assert (again.repeated, again.scored, shops.lake.version("scores/orders")) == (True, 6000, version)
    assert not (shops.settings.scoring_dir / report.run / "results").exists()


def test_a_later_version_of_a_source_replaces_its_rows_and_leaves_those_of_others(world):
    first = world.score("raw/orders", "scores/orders", name="orders")
    world.score("SELECT * FROM raw.orders WHERE shop = 'shop-1'", "scores/orders", name="one shop")
    of_one = (world.orders["shop"] == "shop-1").sum()
    world.shops.lake.replace("raw/orders", world.orders.head(100))
    assert world.score("raw/orders", "scores/orders", name="orders").scored == 100
    counts = dict(world.scored()["source"].value_counts().iter_rows())
    assert counts == {"orders": 100, "one shop": of_one}
    back = world.score("raw/orders@0", "scores/orders", name="orders")
    assert (back.run, back.repeated) == (first.run, False), "what replaced it since is replaced again"
    assert world.shops.lake.read("scores/orders", version=0).collect().height == 6000, "old versions stay readable"
    world.shops.lake.replace("raw/orders", world.orders.head(50))
    world.score("raw/orders", "scores/orders", name="orders", mode="append")
    world.score("raw/orders", "scores/orders", name="orders", mode="append")
    counts = dict(world.scored()["source"].value_counts().iter_rows())
    assert counts == {"orders": 6050, "one shop": of_one}


def test_rows_that_break_the_contract_are_kept_with_reasons_and_none_is_lost(world):
    rows = world.orders.head(50).with_columns(
        weight=pl.when(pl.int_range(pl.len()) == 3).then(-1.0).otherwise("weight"),
        shop=pl.when(pl.int_range(pl.len()).is_in([3, 7])).then(None).otherwise("shop"),
    )
    world.shops.lake.replace("raw/odd", rows)
    report = world.score("raw/odd", "scores/odd")
    assert (report.read, report.scored, report.refused) == (50, 48, 2)
    assert report.refusals == {"weight: range": 1, "shop: null": 2}
    kept = world.shops.lake.read("quarantine/scores/odd").sort("source_row").collect()
    assert kept["source_row"].to_list() == [3, 7]
    assert len(kept["reasons"][0]) == 2
    assert json.loads(kept["row"][0])["weight"] == -1.0
    assert set(world.scored("scores/odd")["source_row"]) | {3, 7} == set(range(50))
    world.shops.lake.replace("raw/odd", world.orders.head(50))
    assert world.score("raw/odd", "scores/odd").refused == 0
    assert world.shops.lake.read("quarantine/scores/odd").collect().is_empty()


@pytest.fixture
def folder(tmp_path: Path, world: World) -> Path:
    """The first 300 orders in all kinds of files."""
    rows = world.orders.head(300).drop("known_at", "minutes", "late", "outcome")
    texts = rows.with_columns(pl.col("ordered_at").dt.to_string("iso"))
    rows.write_parquet(tmp_path / "rows.parquet", row_group_size=70)
    texts.write_csv(tmp_path / "rows.csv", separator=";")
    texts.write_csv(tmp_path / "quoted.csv", quote_style="always", include_bom=True, line_terminator="\r\n")
    texts.write_parquet(tmp_path / "texts.parquet")
    texts.write_ndjson(tmp_path / "rows.jsonl")
    (tmp_path / "many").mkdir()
    rows.head(100).write_parquet(tmp_path / "many" / "a.parquet")
    rows.tail(200).with_columns(more=pl.lit(1)).write_parquet(tmp_path / "many" / "b.parquet")
    world.shops.lake.replace("raw/parted", rows, partition_by=["shop"])
    return tmp_path


def test_every_kind_of_source_gives_the_same_scores(world, folder, monkeypatch):
    monkeypatch.setattr(sources, "PART_ROWS", 100)
    wanted = None
    own = "order_id, shop, channel, weight, ordered_at AT TIME ZONE 'UTC' AT TIME ZONE 'UTC' AS ordered_at"
    query = f"-- what is asked\nSELECT {own} FROM raw.parted"
    for source in (
        "rows.parquet",
        "texts.parquet",
        "rows.csv",
        "quoted.csv",
        "rows.jsonl",
        "many",
        query,
        "raw/parted",
    ):
        is_file = (folder / source).exists() if "\n" not in source else False
        target = folder / "out.parquet"
        report = world.score(str(folder / source) if is_file else source, str(target), overwrite=True)
        assert (report.scored, report.refused) == (300, 0), source
        scores = pl.read_parquet(target).select("id", "as_of", "score").sort("id")
        wanted = scores if wanted is None else wanted
        assert_frame_equal(scores, wanted, abs_tol=1e-12)


def test_a_file_is_there_once_and_whole(world, folder):
    target = folder / "scored.csv"
    report = world.score(str(folder / "rows.csv"), str(target), explain=2)
    written = target.read_bytes()
    assert world.score(str(folder / "rows.csv"), str(target), explain=2).repeated
    with pytest.raises(OutputExists, match="--overwrite"):
        world.score(str(folder / "rows.csv"), str(target))
    assert target.read_bytes() == written
    target.unlink()
    assert world.score(str(folder / "rows.csv"), str(target), explain=2).scored == report.scored
    explained = json.loads(pl.read_csv(target)["explanation"][0])
    assert [set(one) for one in explained] == [{"feature", "contribution"}] * 2
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith((".", "scored"))) == ["scored.csv"]


def test_texts_that_are_no_values_are_refused_with_what_they_are(world, folder):
    rows = pl.read_csv(folder / "rows.csv", separator=";", infer_schema=False)
    rows[4, "weight"], rows[9, "ordered_at"], rows[12, "ordered_at"] = "heavy", "yesterday", "2024-02-01 00:21"
    rows.write_csv(folder / "odd.csv")
    report = world.score(str(folder / "odd.csv"), str(folder / "out.csv"))
    assert (report.read, report.scored, report.refused) == (300, 297, 3)
    refused = pl.read_csv(folder / "out.refused.csv")
    reasons = [json.loads(one) for one in refused["reasons"]]
    assert (
        reasons[0] == ["weight: wanted a finite number of at least 0, found 'heavy'"]
        or "found 'heavy'" in reasons[0][0]
    )
    assert "found 'yesterday'" in reasons[1][0]
    assert reasons[2] == [
        "ordered_at: wanted a timestamp with UTC offset such as 2013-07-01T12:00:00Z, found '2024-02-01 00:21'"
    ]
    rows.with_columns(pl.col("weight").cast(pl.Float64, strict=False)).write_parquet(folder / "odd.parquet")
    report = world.score(str(folder / "odd.parquet"), str(folder / "other.csv"))
    assert (report.read, report.scored, report.refusals) == (300, 298, {"ordered_at: type": 2})
    naive = pl.read_parquet(folder / "rows.parquet").with_columns(pl.col("ordered_at").dt.replace_time_zone(None))
    naive.write_parquet(folder / "naive.parquet")
    with pytest.raises(ValueError, match="AT TIME ZONE 'UTC'"):
        world.score(str(folder / "naive.parquet"), str(folder / "naive.csv"))
    assert json.loads(refused["row"][0])["weight"] == "heavy"


@pytest.fixture
def odd(folder: Path) -> Path:
    """Three rows, of which one is refused."""
    rows = pl.read_csv(folder / "rows.csv", separator=";", infer_schema=False).head(3)
    rows[1, "weight"] = "heavy"
    rows.write_csv(folder / "odd.csv")
    return folder / "odd.csv"


def test_a_lost_file_of_the_two_is_made_again_and_a_foreign_one_stays(world, odd):
    target, refused = odd.parent / "out.csv", odd.parent / "out.refused.csv"
    refused.write_text("mine")
    with pytest.raises(OutputExists, match=r"out\.refused\.csv, where refused rows go, is there already"):
        world.score(str(odd), str(target))
    assert (refused.read_text(), target.exists()) == ("mine", False)
    assert world.score(str(odd), str(target), overwrite=True).refused == 1
    for lost in (refused, target):
        lost.unlink()
        assert not world.score(str(odd), str(target)).repeated
        assert lost.exists()
    again = world.score(str(odd), str(target))
    assert f"(1 more were refused, in {refused})" in "".join(report_lines(again))
    refused.write_text("mine")
    with pytest.raises(OutputExists, match="refused"):
        world.score(str(odd), str(target))
    assert (again.repeated, refused.read_text()) == (True, "mine")


def test_a_source_is_never_written_over(world, odd, monkeypatch):
    here, content = odd.parent, odd.read_bytes()
    (here / "link.csv").symlink_to(odd)
    (here / "u.refused.csv").write_bytes(content)
    (here / "linked").mkdir()
    (here / "linked" / "a.csv").symlink_to(odd)
    monkeypatch.chdir(here)
    world.score("raw/orders", "scores/orders")
    for source, target in (
        (str(odd), "odd.csv"), (str(odd), "link.csv"), ("link.csv", str(odd)), ("u.refused.csv", "u.csv"),
        ("linked", "odd.csv"), ("many", "many/a.parquet"), ("many", "many/new.csv"), ("scores/orders", "scores/orders"),
        (str(odd), f"{world.shops.lake.uri}/raw/orders/x.parquet"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"source itself|the lake's own"):
            world.score(source, target, overwrite=True)
    assert odd.read_bytes() == (here / "u.refused.csv").read_bytes() == content


def test_what_is_appended_leaves_refused_rows_of_earlier_runs(world, odd):
    world.score(str(odd), "scores/odd", mode="append", name="odd")
    rows = pl.read_csv(odd, infer_schema=False)
    rows.filter(pl.col("weight") == "heavy").write_csv(odd)  # a run of which all is refused
    for is_repeated in (False, True):
        assert world.score(str(odd), "scores/odd", mode="append", name="odd").repeated == is_repeated
    lake = world.shops.lake
    assert (world.scored("scores/odd").height, lake.read("quarantine/scores/odd").collect().height) == (2, 2)
    rows.write_csv(odd)
    world.score(str(odd), "scores/odd", name="odd")
    assert (world.scored("scores/odd").height, lake.read("quarantine/scores/odd").collect().height) == (2, 1)


def test_the_newest_rows_of_views_are_looked_up_as_serving_does(world):
    world.score("raw/orders", "scores/orders", lookups="latest", features=True)
    rows = world.scored().head(500)
    newest = {row["shop"]: row for row in latest_rows(world.shops.lake, world.shops.views["shop_load"]).to_dicts()}
    scorer = Scorer.load(world.shops.store.bundle_path(world.shops.store.versions("order_late")[4]))
    names = [feature.name for feature in scorer.manifest.features]
    for row in rows.head(30).iter_rows(named=True):
        assert row["shop_load__load"] == newest[row["shop"]]["load"]
        assert scorer.score_row({name: row[name] for name in names}) == pytest.approx(row["score"], abs=1e-6)


def test_explanations_say_what_adds_most(world):
    world.shops.lake.replace("raw/few", world.orders.head(20))
    world.score("raw/few", "scores/few", explain=100)
    rows = world.scored("scores/few")
    for base, explanation, score in rows.select("base", "explanation", "score").iter_rows():
        added = [one["contribution"] for one in explanation]
        assert [abs(one) for one in added] == sorted(map(abs, added), reverse=True)
        assert 1 / (1 + np.exp(-(base + sum(added)))) == pytest.approx(score, abs=1e-6)


def test_sets_of_a_level_are_those_of_the_manifest(world):
    store = world.shops.store
    conformal = store.load_manifest(store.versions("order_late")[4]).conformal
    assert conformal is not None
    report = world.score("raw/orders", "scores/sets", interval=0.9)
    assert report.scored == 6000
    cutoff = set_cutoff(conformal, 0.9)
    for score, found in world.scored("scores/sets").select("score", "prediction_set").head(200).iter_rows():
        kept = [value for value in (False, True) if (score if value else 1 - score) >= cutoff]
        assert found == (kept or [score > 0.5])
    with pytest.raises(ValueError, match=r"interval: wanted a level from 0.5 to 0.99, found 1"):
        world.score("raw/orders", "scores/sets", interval=1.0)


def test_ids_of_more_than_one_row_are_refused_unless_kept(world):
    world.shops.lake.replace("raw/twice", pl.concat([world.orders.head(30), world.orders.head(2)]))
    with pytest.raises(RepeatedIds, match=r"raw/twice gives 2 ids to more than one row, e.g. 'order-0', 'order-1'"):
        world.score("raw/twice", "scores/twice")
    assert not world.shops.lake.exists("scores/twice")
    assert world.score("raw/twice", "scores/twice", duplicates="keep").scored == 32


def test_what_cannot_be_scored_is_said_before_anything_is(world, folder, tmp_path):
    lake, rows = world.shops.lake, world.orders.head(10)
    lake.replace("raw/lacks", rows.drop("ordered_at").rename({"shop": "shops"}))
    lake.replace("raw/other", rows.rename({"ordered_at": "at_hour"}).rename({"shop": "cat"}).with_columns(shop="cat"))
    lake.replace("raw/types", rows.with_columns(pl.col("weight").cast(pl.String)))
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("order_id,shop,channel,weight,ordered_at\n")
    for source, options, error, message in (
        ("raw/lacks", {}, ValueError, r"lacks inputs of order_late: 'shop', did you mean 'shops', 'ordered_at'"),
        ("raw/other", {}, ValueError, "'ordered_at'. It has"),
        (
            "SELECT *, predict_score('order_late', o) AS s FROM raw.orders AS o",
            {},
            ValueError,
            r"predict_score\(…\) works",
        ),
        ("raw/types", {}, ValueError, "'weight' is declared as number, its values are String; cast it in the query"),
        ("raw/order", {}, LookupError, "raw/orders"),
        (str(tmp_path / "empty.csv"), {}, ValueError, "is empty: it has neither columns nor rows"),
        (str(tmp_path / "none.csv"), {}, FileNotFoundError, "no such table of the lake, file or folder"),
        ("raw/orders", {"model": "order_late@v9"}, LookupError, "has no version 9; it has v4"),
        ("raw/orders", {"model": "order_lat"}, LookupError, "did you mean 'order_late'"),
        ("raw/orders", {"model": "order_late@best"}, ValueError, "order_late@best"),
        ("raw/orders", {"keep": ("colour",)}, ValueError, "has no column 'colour'"),
        ("raw/orders", {"id_column": "nr"}, ValueError, "has no column 'nr'"),
        ("raw/orders", {"time": "known_at"}, ValueError, "from its own 'ordered_at'"),
        ("raw/orders", {"target": "predictions/order_late"}, ValueError, "the platform's own"),
        (
            "raw/orders",
            {"target": "scores"},
            ValueError,
            "scored rows go to a table, as in scores/orders, or to a file",
        ),
        ("raw/orders", {"target": str(tmp_path / "no" / "x.csv")}, OutputExists, "make it first"),
    ):
        with pytest.raises(error, match=message):
            world.score(source, **{"target": "scores/orders", **options})
    lake.append("scores/mine", rows.select("shop"))
    with pytest.raises(OutputExists, match="was not made by `ml-platform score`"):
        world.score("raw/orders", "scores/mine")
    world.shops.views = {}
    with pytest.raises(ViewChanged, match=r"'shop_load' \(which is gone\)"):
        world.score("raw/orders", "scores/orders")
    assert not lake.exists("scores/orders")


def test_a_source_without_rows_and_an_absent_optional_input(world, tmp_path):
    (tmp_path / "header.csv").write_text("order_id,shop,ordered_at\n")
    report = world.score(str(tmp_path / "header.csv"), str(tmp_path / "out.csv"))
    assert (report.read, report.scored, report.absent) == (0, 0, ("channel", "weight"))
    assert (tmp_path / "out.csv").read_text().startswith("id,as_of,scored_at,model_version,score,prediction")
