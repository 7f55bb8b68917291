"""What an adopted forecast looks up and is trained on is what the trials saw, row by row."""

from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform.automl.documents import Plan
from ml_platform.automl.forecast.adopt import request_features
from ml_platform.automl.forecast.adopted_sql import level_view, season_view, spine_sql
from ml_platform.automl.forecast.plain_series import forecast_rows, period_starts
from ml_platform.automl.forecast.plan import LEVEL, SEASONAL
from ml_platform.automl.forecast.rows import plan_series
from ml_platform.automl.forecast_documents import ForecastPlan
from ml_platform.features.expressions.request_features import (
    add_request_features,
    check_request_feature_parity,
    load_request_features,
)
from ml_platform.spec.inputs import InputField
from ml_platform_tests.automl.forecast.tables import planned, sales

CASES: dict[str, dict[str, Any]] = {
    "day": {"group": "store", "horizon": 10, "known_ahead": ("promo",)},
    "hour": {"group": None, "drop": ("store",), "horizon": 5},
    "week": {"group": "store", "horizon": 3, "season": 4},
    "month": {"group": "store", "horizon": 3},
}


def query(text: str, rows: pl.DataFrame) -> pl.DataFrame:
    with duckdb.connect(":memory:") as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("_rows", rows)
        connection.execute("CREATE SCHEMA raw")
        connection.execute("CREATE VIEW raw.sales AS FROM _rows")
        return connection.sql(text).pl()


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Plan, ForecastPlan, pl.DataFrame, pl.DataFrame]:
    """Plan, its own part, the table with gaps, and the rows of forecasts of the trials."""
    every = request.param
    table = sales(130, "a" if every == "hour" else "ab", every)
    table = table.filter(~pl.int_range(pl.len()).is_in([40, 41, 77])).with_columns(
        pl.when(pl.int_range(pl.len()) != 60).then(pl.col("sales"))
    )
    plan = planned(table, tmp_path, **CASES[every])
    own = plan.forecast
    assert own is not None
    series = plan_series(plan)
    first, last = int(series["period"].min()), own.last  # type: ignore[arg-type]
    origins = list(range(first, last + 1))
    rows = forecast_rows(
        series, own.series_columns, own.every, own.anchor, own.season, origins, own.horizon,
        list(own.lagged), list(own.known_ahead),
    )  # fmt: skip
    start = [
        period_starts(pl.col("origin") + 1, own.every, own.anchor).alias("origin_time"),
        period_starts(pl.col("target_period"), own.every, own.anchor).alias("target_time"),
    ]
    return plan, own, table, rows.with_columns(start)


def test_views_and_spine_are_the_rows_of_the_trials(
    case: tuple[Plan, ForecastPlan, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    _, own, table, expected = case
    level = query(level_view(own, "raw/sales", "day", "sales", owner="a@b.c"), table)
    season = query(season_view(own, "raw/sales", "day", "sales", owner="a@b.c"), table)
    spine = query(spine_sql(own, "raw/sales", "day", "sales", "sales"), table)
    assert spine["forecast_id"].is_unique().all()
    labelled = spine.filter(pl.col("sales").is_not_null())
    assert labelled.height == expected.height
    assert spine.filter(pl.col("target_time") > table["day"].max()).height > 0  # what is to be forecast now
    (tmp_path / "request_features.py").write_text(request_features(own))
    features = load_request_features(tmp_path / "request_features.py")
    if own.every != "month":
        labelled = labelled.rename({"origin": "origin_of_the_spine"})
    labelled = add_request_features(labelled.lazy(), features).collect()
    if own.every != "month":
        assert labelled["origin"].to_list() == labelled["origin_of_the_spine"].to_list()
    keys = own.series_columns
    joined = labelled.sort("origin").join_asof(
        level.sort("event_time"), left_on="origin", right_on="event_time", by=keys, check_sortedness=False
    )
    joined = joined.join_asof(
        season.sort("event_time"),
        left_on="origin",
        right_on="event_time",
        by=[*keys, "season_position"],
        check_sortedness=False,
    )
    lagged = [f"{name}_{what}" for name in own.lagged for what in ("last", "mean_1")]
    calendar = [name for name in ("hour", "weekday", "month", "day_of_month") if name in expected.columns]
    columns = [*keys, "step", "target_time", *calendar, "season_position", *LEVEL, *lagged, *SEASONAL]
    columns += list(own.known_ahead)
    order = ["target_time", *keys, "step"]
    found = joined.select(*columns, pl.col("sales").alias("y")).sort(order)
    assert_frame_equal(
        found, expected.select(*columns, "y").sort(order), check_dtypes=False, rel_tol=1e-9, abs_tol=1e-9
    )


def test_request_features_are_the_same_in_serving(
    case: tuple[Plan, ForecastPlan, pl.DataFrame, pl.DataFrame], tmp_path: Path
) -> None:
    _, own, _, expected = case
    (tmp_path / "request_features.py").write_text(request_features(own))
    features = load_request_features(tmp_path / "request_features.py")
    names = {"target_time": "timestamp", "step": "integer"}
    if own.every == "month":
        names["origin"] = "timestamp"
    inputs = tuple(InputField.model_validate({"name": name, "type": kind}) for name, kind in names.items())
    rows = expected.head(300).with_columns(pl.col("origin_time").alias("origin")).select(list(names))
    check_request_feature_parity(rows, inputs, features)
