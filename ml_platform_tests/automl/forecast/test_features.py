"""Features know nothing after the origin, and stand where they belong, also beside missing periods."""

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform.automl.forecast.plain_backtest import bar_forecasts, known_rows
from ml_platform.automl.forecast.plain_series import forecast_rows, period_numbers, period_starts, read_series
from ml_platform.automl.forecast.plan import NAIVE_COLUMNS
from ml_platform.automl.forecast.rows import make_forecast_rows
from ml_platform_tests.automl.forecast.tables import planned, sales, starts

OTHERS = {"visits": "number", "promo": "number"}


def rows_of(table: pl.DataFrame, origins: list[int], horizon: int = 10) -> tuple[pl.DataFrame, int]:
    own = planned(table).forecast
    assert own is not None
    series = read_series(table, "day", ["store"], "sales", OTHERS, "day", own.anchor)
    first = int(series["period"].min())  # type: ignore[arg-type]
    rows = forecast_rows(
        series, ["store"], "day", own.anchor, 7, [first + one for one in origins], horizon, ["visits"], ["promo"]
    )
    return rows, first


@pytest.mark.parametrize("every", ["hour", "day", "week", "month"])
def test_numbers_of_periods_come_back_as_their_starts(every: str) -> None:
    anchor = starts("hour", 1)[0]
    frame = pl.DataFrame({"at": pl.Series(starts(every, 50), dtype=pl.Datetime("us", "UTC"))})
    numbers = frame.select(period_numbers(pl.col("at"), every, anchor))
    assert numbers.to_series().diff().drop_nulls().unique().to_list() == [1]
    back = numbers.select(period_starts(pl.col("at"), every, anchor)).to_series()
    assert back.to_list() == frame["at"].to_list()


def test_lags_means_and_places_of_the_season_are_those_of_the_origin() -> None:
    table = sales(80, "ab")
    rows, first = rows_of(table, [40])
    y = table.filter(store="b")["sales"].to_list()
    b = rows.filter(store="b").sort("step")
    assert b["y"].to_list() == y[41:51]
    assert b["last_value"].unique().to_list() == [y[40]]
    assert b["value_before"][0] == y[39]
    assert b["mean_1"][0] == pytest.approx(sum(y[34:41]) / 7)
    assert b["min_4"][0] == min(y[13:41])
    assert b["mean_all"][0] == pytest.approx(sum(y[:41]) / 41)
    assert b["same_1"].to_list() == [*y[34:41], *y[34:37]]  # steps 8 to 10 are two seasons after the newest known value
    assert b["same_2"][0] == y[27]
    assert b["same_mean"][0] == pytest.approx((y[34] + y[27] + y[20] + y[13]) / 4)
    assert b["promo"].to_list() == table.filter(store="b")["promo"].to_list()[41:51]
    assert b["visits_last"].unique().to_list() == [table.filter(store="b")["visits"].to_list()[40]]
    assert b["weekday"].to_list()[:2] == ["7", "1"]  # 2024-02-11 is a Sunday
    assert first + 40 == b["origin"][0]
    assert bar_forecasts(b)["seasonal_naive"].tolist() == b["same_1"].to_list()
    gappy = b.with_columns(pl.lit(None, pl.Float64).alias("same_1"), pl.lit(None, pl.Float64).alias("same_2"))
    in_the_gate = gappy.select(pl.coalesce(NAIVE_COLUMNS)).to_series()  # of an adopted forecast
    assert bar_forecasts(gappy)["seasonal_naive"].tolist() == in_the_gate.to_list()


def test_nothing_after_the_origin_moves_a_feature() -> None:
    table = sales(80, "a")
    later = pl.col("day") > table["day"][40]
    changed = table.with_columns(
        pl.when(later).then(pl.col("sales") * 3 + 7).otherwise(pl.col("sales")).alias("sales"),
        pl.when(later).then(-pl.col("visits")).otherwise(pl.col("visits")).alias("visits"),
    )
    before, _ = rows_of(table, [30, 40])
    after, _ = rows_of(changed, [30, 40])
    assert_frame_equal(before.drop("y"), after.drop("y"))
    assert before["y"].to_list() != after["y"].to_list()


def test_a_missing_period_is_a_null_and_no_value_moves() -> None:
    table = sales(80, "a")
    rows, first = rows_of(table.filter(pl.col("day") != table["day"][40]), [40, 41])
    y = table["sales"].to_list()
    at_gap, after = (rows.filter(origin=first + number).sort("step") for number in (40, 41))
    assert at_gap["last_value"][0] is None
    assert after["value_before"][0] is None
    assert after["last_value"][0] == y[41]
    assert at_gap["mean_1"][0] == pytest.approx(sum(y[34:40]) / 6)
    assert at_gap["same_1"].to_list()[6] is None  # step 7 has the place of the missing day
    assert bar_forecasts(at_gap)["seasonal_naive"][6] == y[33]


def test_training_ends_before_the_origin(tmp_path: Path) -> None:
    plan = planned(sales(), tmp_path)
    own = plan.forecast
    assert own is not None
    data = make_forecast_rows(plan)
    for origin in (own.validation[0], *(fold.origins[0] for fold in own.folds)):
        known = data.table[known_rows(data.table, origin, own.stride, own.last)]
        assert known["target_period"].max() == origin
    train, validation, holdout = (data.table[part] for part in data.rows.parts)
    assert train["target_period"].max() <= validation["origin"].min()  # type: ignore[operator]
    assert validation["target_period"].max() <= holdout["origin"].min()  # type: ignore[operator]
    assert holdout.select(pl.struct("store", "target_period")).n_unique() == holdout.height
