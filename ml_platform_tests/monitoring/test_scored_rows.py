"""Batch scores and the inference log as one table."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.scored_rows import newest_score, scored_rows
from ml_platform_tests.monitoring.conftest import MODEL, SPEC, START, World, draw


def rows_of(world: World, **bounds):
    return scored_rows(world.lake, MODEL, id_column=SPEC.id, **bounds).collect()


def test_a_row_scored_twice_by_a_version_counts_once_as_last_scored(world: World) -> None:
    day = draw(60, 1)
    world.score(day, scores=[0.1] * 100)
    world.score(day.head(10), online=True, scores=[0.9] * 10, delay=timedelta(minutes=1))
    rows = rows_of(world)
    assert rows.height == 100
    assert rows["source"].value_counts().sort("source").rows() == [("batch", 90), ("online", 10)]
    assert rows.filter(rows["source"] == "online")["score"].to_list() == [0.9] * 10


def test_versions_are_kept_apart(world: World) -> None:
    day = draw(60, 1)
    world.score(day)
    world.score(day, version=2)
    assert rows_of(world)["model_version"].value_counts().sort("model_version").rows() == [(1, 100), (2, 100)]


def test_online_rows_without_id_each_count(world: World) -> None:
    day = draw(60, 1).head(3)
    world.score(day.with_columns(row_id=pl.lit(None, pl.String)), online=True)
    rows = rows_of(world)
    assert rows["id"].null_count() == 3
    assert sorted(rows["row_key"]) == ["request:0:0", "request:1:0", "request:2:0"]


def test_window_excludes_its_start_and_includes_its_end(world: World) -> None:
    world.score(draw(60, 3))
    start, until = START + timedelta(days=61), START + timedelta(days=62)
    rows = rows_of(world, start=start, until=until)
    assert rows.height == 100
    assert start not in rows["as_of"].to_list()
    assert until in rows["as_of"].to_list()


def test_feature_columns_follow_the_core(world: World) -> None:
    world.score(draw(60, 1))
    world.score(draw(61, 1), online=True)
    columns = rows_of(world).columns
    assert columns == [
        "row_key",
        "id",
        "as_of",
        "scored_at",
        "model_version",
        "source",
        "score",
        "sample_weight",
        "vibration",
        "wind",
        "maker",
    ]


def test_newest_score_is_the_clock(world: World) -> None:
    assert newest_score(world.lake, MODEL) is None
    world.score(draw(60, 1))
    world.score(draw(63, 1), online=True)
    assert newest_score(world.lake, MODEL) == draw(63, 1)["at"].max()


def test_nothing_scored_says_what_to_do(world: World) -> None:
    with pytest.raises(LookupError, match=r"neither 'predictions/turbine_fault' nor 'inference_log/turbine_fault'"):
        rows_of(world)


def test_numbers_and_texts_of_one_name_stay_apart_between_the_tables(tmp_path) -> None:
    lake, at = Lake(str(tmp_path)), datetime(2024, 1, 1, tzinfo=UTC)
    common = {"id": ["a"], "as_of": [at], "scored_at": [at], "score": [0.5], "model_version": [1]}
    lake.append("predictions/m", pl.DataFrame({**common, "zip": ["01234"], "zip__as_number": [7.0]}))
    online = {**common, "id": ["b"], "request_id": ["r"], "row": [0], "zip": [12345.0]}
    lake.append("inference_log/m", pl.DataFrame(online))
    rows = scored_rows(lake, "m", id_column="id").sort("id").select("zip", "zip__as_text").collect()
    assert rows.rows() == [(7.0, "01234"), (12345.0, None)]
