"""What a forecast's plan and result add to the leaderboard."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from ml_platform.spec.types import Strict

Frequency = Literal["hour", "day", "week", "month"]
SEASONAL_NAIVE, SERIES_MEAN = "seasonal_naive", "series_mean"
BARS = (SEASONAL_NAIVE, SERIES_MEAN)


class ForecastFold(Strict):
    """Origins of the backtest that one fit forecasts: those from the fit on to the next one."""

    origins: tuple[int, ...] = Field(min_length=1, description="Periods after whose end forecasts are made, ascending.")


class ForecastPlan(Strict):
    """How series are read, and from which origins they are forecast. Periods are numbered, so that steps are sums."""

    every: Frequency = Field(description="Length of a period.")
    anchor: datetime = Field(description="Start of period 0 (UTC), for hours, days and weeks.")
    season: int = Field(ge=1, description="Periods of a season.")
    horizon: int = Field(ge=1, description="Steps ahead: 1 is the first period after the origin.")
    groups: tuple[str, ...] = Field((), description="Columns that tell the series of a table apart; none for one.")
    lagged: tuple[str, ...] = Field(
        (), description="Other numbers, of which only what was known at the origin is used."
    )
    known_ahead: tuple[str, ...] = Field((), description="Columns whose value of the target's period is an input.")
    short: tuple[str, ...] = Field((), description="Series with too few periods, which are left out.")
    stride: int = Field(1, ge=1, description="Training takes every such origin.")
    last: int = Field(description="Newest period with a value.")
    validation: tuple[int, ...] = Field(min_length=1, description="Origins that rank the trials, ascending.")
    folds: tuple[ForecastFold, ...] = Field(min_length=1, description="The backtest, oldest first.")

    @property
    def series_columns(self) -> list[str]:
        """Columns that name a series, in rows of forecasts."""
        return list(self.groups) or ["series"]

    @property
    def origins(self) -> list[int]:
        """Origins of the backtest, ascending."""
        return [origin for fold in self.folds for origin in fold.origins]


class StepError(Strict):
    """Errors of one step of the horizon, over the backtest."""

    step: int = Field(ge=1, description="Periods ahead.")
    rows: int = Field(ge=1, description="Forecasts with a known value.")
    best: float = Field(description="Metric of the best model.")
    seasonal_naive: float = Field(description="Metric of the seasonal naive forecast.")


class ForecastResult(Strict):
    """What a backtest says beside the leaderboard."""

    verdict: str = Field(description="Whether the best model beats the seasonal naive forecast beyond the interval.")
    beats_naive: bool = Field(description="Whether the interval of its gain is above 0.")
    beats_mean: bool = Field(description="Whether it also beats the mean of the series so far.")
    model: str = Field(description="The trial that is compared: the best by validation that is not a bar.")
    steps: tuple[StepError, ...] = Field(description="Errors by step.")
