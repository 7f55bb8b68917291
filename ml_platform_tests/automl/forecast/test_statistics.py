"""The verdict's error rate, by simulation: where nothing beats a bar, few runs say so; where one can, it does."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from ml_platform.automl.documents import Plan
from ml_platform.automl.forecast.plain_series import read_series
from ml_platform.automl.forecast.rows import forecast_of, rows_of_series
from ml_platform.automl.forecast.trials import backtest_trials, judge, measure_trials
from ml_platform.automl.forecast_documents import ForecastResult
from ml_platform.automl.trials import trials_spec
from ml_platform.training.documents import Trial
from ml_platform_tests.automl.forecast.tables import START, WEEK, decided, planned
from ml_platform_tests.public_tables import public_table

REPETITIONS = 30
MEASURED = {"number": 0, "score": 0.0, "metrics": {"mae": 0.0}, "seconds": 0.0}
RIDGE = Trial.model_validate({"family": "ridge", "params": {"alpha": 1.0}, **MEASURED})
TREES = Trial.model_validate({"family": "lightgbm", "params": {"n_estimators": 150, "num_leaves": 31}, **MEASURED})


def verdict(y: np.ndarray) -> ForecastResult:
    """Judge a ridge regression on one series of days."""
    days = [START + timedelta(days=number) for number in range(len(y))]
    return judged(pl.DataFrame({"day": days, "sales": y}), horizon=7)[1]


def judged(table: pl.DataFrame, horizon: int, trial: Trial = RIDGE) -> tuple[Plan, ForecastResult]:
    """Judge one trial on a table of one series, without other columns."""
    plan = planned(table, group=None, horizon=horizon)
    own = forecast_of(plan)
    data = rows_of_series(plan, read_series(table, "day", [], "sales", {}, own.every, own.anchor))
    spec = trials_spec(plan, [trial.family], minutes=1)
    measured, _ = measure_trials(plan, data, backtest_trials(plan, data, spec, [trial], until=np.inf))
    return plan, judge(plan, data, measured)


def wins(series: list[np.ndarray]) -> tuple[int, int]:
    """Count the runs that claim to beat the seasonal naive forecast, and the mean of the series."""
    results = [verdict(y) for y in series]
    return sum(one.beats_naive for one in results), sum(one.beats_mean for one in results)


@pytest.mark.slow
def test_no_model_beats_what_cannot_be_beaten() -> None:
    rng = np.random.default_rng(11)
    walks = [rng.normal(size=(40, 7)).cumsum(axis=0).ravel() for _ in range(REPETITIONS)]
    noise = [rng.normal(size=280) for _ in range(REPETITIONS)]
    of_walks, of_noise = wins(walks), wins(noise)
    # 2.5 % are expected of each; of 30 runs four or more have a chance of less than 1 %
    assert of_walks[0] <= 3, "a seasonal random walk is best forecast by its value a season before"
    assert of_noise[1] <= 3, "noise is best forecast by its mean"
    assert of_noise[0] > REPETITIONS / 2, "which beats the seasonal naive forecast, as it should"


@pytest.mark.slow
def test_structure_wins_over_both_bars() -> None:
    rng = np.random.default_rng(12)
    days = np.arange(700)
    seasons = [(20 + 0.02 * days) * np.resize(WEEK, 700) + 3 * rng.normal(size=700) for _ in range(6)]
    assert wins(seasons) == (6, 6)


@pytest.mark.slow
def test_rentals_by_hour_have_gaps_and_a_season_that_is_beaten() -> None:
    table = pl.read_csv(public_table("bike_hourly"), try_parse_dates=True).select(
        (pl.col("dteday").cast(pl.Datetime("us", "UTC")) + pl.duration(hours="hr")).alias("day"),
        pl.col("cnt").alias("sales"),
    )
    plan, result = judged(table, 24, TREES)
    own, said = forecast_of(plan), decided(plan)
    assert (own.every, own.season) == ("hour", 24)
    assert own.stride > 1
    assert said["missing periods"].startswith("all: 165 of 17544")
    assert result.beats_naive
    assert result.beats_mean
