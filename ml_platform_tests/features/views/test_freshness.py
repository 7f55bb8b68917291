"""Which views are behind which tables, before a model is trained on them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from ml_platform.features.incremental_spec import Incremental
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.freshness import Freshness, check_freshness
from ml_platform.features.views.incremental import STATE
from ml_platform.features.views.view import FeatureColumn, FeatureView
from ml_platform.lake.storage.maintenance import maintain
from ml_platform.lake.storage.tables import Lake

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def view(name: str, source: str, **changes: Any) -> FeatureView:
    columns = {"v": FeatureColumn(type="number", description="Value.")}
    time = "t" if source.startswith("raw") else "event_time"
    query = f"SELECT k, {time} AS event_time, v FROM {source.replace('/', '.')}"
    declared = {"name": name, "description": "d", "owner": "a@b.c", "entity": ("k",), "columns": columns, "sql": query}
    return FeatureView.model_validate({**declared, **changes})


VIEWS = {"low": view("low", "raw/e"), "high": view("high", "features/low"), "other": view("other", "raw/o")}


@pytest.fixture
def lake(lake: Lake) -> Lake:
    for table in ("raw/e", "raw/o"):
        add(lake, table, 0)
    for one in VIEWS.values():
        compute_view(lake, one)
    return lake


def add(lake: Lake, table: str, hours: int) -> None:
    at = pl.Series([NOON + timedelta(hours=hours)]).dt.cast_time_unit("us")
    lake.append(table, pl.DataFrame({"k": ["a"], "t": at, "v": [1.0]}))


def check(lake: Lake, *tables: str, **more: Any) -> Freshness:
    return check_freshness(lake, tables or ("features/high", "raw/o"), VIEWS, **more)


def test_views_of_views_are_followed_to_the_raw_tables(lake: Lake) -> None:
    assert check(lake) == Freshness((), (), ("high", "low"))
    add(lake, "raw/o", 1)
    assert check(lake).behind == (), "no look-up reads it"
    add(lake, "raw/e", 1)
    assert check(lake).reasons == (
        "features/low was computed from version 0 of raw/e, now at 1: materialise features/low",
    )
    compute_view(lake, VIEWS["low"])
    assert check(lake).reasons == (
        "features/high was computed from version 0 of features/low, now at 1: materialise features/high",
    )
    compute_view(lake, VIEWS["high"])
    assert check(lake).behind == ()
    assert [one.view.name for one in check(lake, "features/high", "features/other").behind] == ["other"]


def test_an_incremental_view_is_behind_until_it_is_computed(lake: Lake) -> None:
    declaration = Incremental.model_validate({"look_back": "1 hour", "times": {"raw/e": "t"}})
    views = {"low": view("low", "raw/e", incremental=declaration)}
    assert check_freshness(lake, ["features/low"], views).unknown == ("low",), "it was computed under no declaration"
    compute_view(lake, views["low"])
    assert check_freshness(lake, ["features/low"], views) == Freshness((), (), ("low",))
    add(lake, "raw/e", 5)
    assert len(check_freshness(lake, ["features/low"], views).behind) == 1
    compute_view(lake, views["low"])
    assert check_freshness(lake, ["features/low"], views).behind == ()


def test_what_changes_no_row_makes_nothing_stale(lake: Lake) -> None:
    add(lake, "raw/e", 1)
    compute_view(lake, VIEWS["low"])
    compute_view(lake, VIEWS["high"])
    version = lake.version("raw/e")
    maintain(lake, retention=timedelta(0))
    lake.snapshot("raw/e").optimize.compact()
    assert lake.version("raw/e") > version
    assert check(lake).behind == ()


def test_restored_tables(lake: Lake) -> None:
    add(lake, "raw/e", 1)
    lake.restore("raw/e", 0)
    assert check(lake).behind == (), "the view was computed from just these rows"
    add(lake, "raw/e", 2)
    compute_view(lake, VIEWS["low"])
    compute_view(lake, VIEWS["high"])
    lake.restore("features/high", 0)
    (reason,) = check(lake).reasons
    assert reason == "features/high is at version 2, which was not computed (last: 1): materialise features/high"


def test_a_recent_change_may_wait(lake: Lake) -> None:
    add(lake, "raw/e", 1)
    assert check(lake, max_lag=timedelta(hours=1)).behind == ()
    assert len(check(lake, max_lag=timedelta(0)).behind) == 1


def test_versions_that_a_set_has_read_count_as_the_newest(lake: Lake) -> None:
    read = lake.versions(["features/high", "features/low", "raw/e"])
    add(lake, "raw/e", 1)
    assert check(lake, versions=read).behind == ()
    compute_view(lake, VIEWS["low"])
    assert "features/low was read, 1 was computed meanwhile" in check(lake, versions=read).reasons[0]


def test_a_view_of_which_nothing_was_recorded_is_unknown(lake: Lake) -> None:
    lake.replace(STATE, lake.read(STATE).filter(pl.col("view") != "low").collect())
    assert check(lake) == Freshness((), ("low",), ("high", "low"))
