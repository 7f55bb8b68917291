"""The rows of a forecast as the search and the fits take them."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from ml_platform.automl.documents import Plan
from ml_platform.automl.forecast.plain_backtest import bar_forecasts, known_rows, rows_of_origins
from ml_platform.automl.forecast.plain_series import forecast_rows, period_starts, read_series
from ml_platform.automl.forecast_documents import ForecastPlan
from ml_platform.automl.frame import ID, KNOWN, LABEL, TIMESTAMP, AutomlRows
from ml_platform.automl.plain.rows import input_columns


@dataclass(frozen=True)
class ForecastRows:
    """All rows of a forecast's run.

    Attributes
    ----------
    series
        One row for each series and period.
    table
        One row for each series, origin and step, with labels and everything inputs are taken from.
    rows
        The same rows as the search takes them; its holdout is the backtest.
    bars
        Forecasts of the backtest's rows that need no model: name → (rows,).
    """

    series: pl.DataFrame
    table: pl.DataFrame
    rows: AutomlRows
    bars: dict[str, np.ndarray]


def forecast_of(plan: Plan) -> ForecastPlan:
    """The forecast's own part of a plan (raises ValueError for a plan of something else)."""
    if plan.forecast is None:
        raise ValueError(f"{plan.name} is no forecast")
    return plan.forecast


def plan_series(plan: Plan) -> pl.DataFrame:
    """Read the series of a plan, as its notebooks do."""
    own = forecast_of(plan)
    kinds = {column.name: column.kind for column in plan.columns}
    others = {name: str(kinds.get(name, "number")) for name in (*own.lagged, *own.known_ahead)}
    rows = pl.read_delta(plan.uri, version=plan.version)
    return read_series(rows, str(plan.time), list(own.groups), plan.target, others, own.every, own.anchor)


def wanted_origins(own: ForecastPlan, first: int) -> list[int]:
    """Origins of training, validation and backtest, ascending."""
    return sorted({*range(own.last, first - 1, -own.stride), *own.validation, *own.origins})


def make_forecast_rows(plan: Plan) -> ForecastRows:
    """Read a plan's table and make its rows (raises ValueError when a part of them is empty)."""
    return rows_of_series(plan, plan_series(plan))


def rows_of_series(plan: Plan, series: pl.DataFrame) -> ForecastRows:
    """Make the rows of forecasts of a plan's series (raises ValueError when a part of them is empty)."""
    own = forecast_of(plan)
    origins = wanted_origins(own, int(series.get_column("period").min()))  # type: ignore[arg-type]
    table = forecast_rows(
        series, own.series_columns, own.every, own.anchor, own.season, origins, own.horizon,
        list(own.lagged), list(own.known_ahead),
    )  # fmt: skip
    parts = (
        known_rows(table, own.validation[0], own.stride, own.last),
        rows_of_origins(table, list(own.validation)),
        rows_of_origins(table, own.origins),
    )
    for name, part in zip(("training", "validation", "backtest"), parts, strict=True):
        if not len(part):
            raise ValueError(
                f"{plan.name}: no row is left for the {name} part: too many periods have no value; give a "
                f"longer history"
            )
    frame = input_columns(table, {column.name: column.kind for column in plan.columns}).with_columns(
        pl.int_range(table.height, eager=True).alias(ID),
        table.select(period_starts(pl.col("origin") + 1, own.every, own.anchor)).to_series().alias(TIMESTAMP),
        table.select(period_starts(pl.col("target_period") + 1, own.every, own.anchor)).to_series().alias(KNOWN),
        table.get_column("y").alias(LABEL),
    )
    rows = AutomlRows(table, frame, table.get_column("y").to_numpy(), parts)
    return ForecastRows(series, table, rows, bar_forecasts(table[parts[2]]))
