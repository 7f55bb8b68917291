"""Pictures of a forecast as PNG bytes: the newest backtest, and the error by step."""

import numpy as np
import polars as pl

from ml_platform.automl.documents import Plan
from ml_platform.automl.forecast.plain_series import period_starts
from ml_platform.automl.forecast.rows import ForecastRows, forecast_of
from ml_platform.automl.forecast_documents import SEASONAL_NAIVE, ForecastResult
from ml_platform.training.artifacts.figures import BLUE, GREY, RED, new_figure, png_bytes

_MOST_SERIES = 4
_SHOWN_ORIGINS = 3  # the newest; forecasts of each begin anew


def forecast_plots(plan: Plan, data: ForecastRows, result: ForecastResult, forecast: np.ndarray) -> dict[str, bytes]:
    """Draw the newest origins of the backtest, and the errors of each step.

    Parameters
    ----------
    plan, data, result
        Of the run.
    forecast
        Of the best model, for the backtest's rows (rows,).

    Returns
    -------
    dict
        `backtest.png` and `error_by_step.png`.
    """
    return {
        "backtest.png": _backtest(plan, data, result.model, forecast),
        "error_by_step.png": _error_by_step(plan, result),
    }


def _backtest(plan: Plan, data: ForecastRows, model: str, forecast: np.ndarray) -> bytes:
    own = forecast_of(plan)
    keys, origins = own.series_columns, own.origins[-_SHOWN_ORIGINS:]
    rows = data.table[data.rows.parts[2]].with_columns(
        pl.Series("forecast", forecast), pl.Series("naive", data.bars[SEASONAL_NAIVE])
    )
    rows = rows.filter(pl.col("origin").is_in(origins))
    names = rows.select(keys).unique(maintain_order=True).head(_MOST_SERIES)
    figure, _ = new_figure(10, 1.0 + 2.6 * names.height)
    figure.clear()
    panels = figure.subplots(names.height, 1, sharex=True, squeeze=False)[:, 0]
    first = origins[0] - max(own.horizon, 2 * own.season)
    for axes, name in zip(panels, names.to_dicts(), strict=True):
        of_series = [pl.col(key) == value for key, value in name.items()]
        actual = data.series.filter(*of_series, pl.col("period") > first)
        axes.plot(*_line(plan, actual, "period", "y"), color="black", linewidth=1.1, label="actual")
        for number, origin in enumerate(origins):
            own_rows = rows.filter(*of_series, pl.col("origin") == origin)
            naive, best = (_line(plan, own_rows, "target_period", column) for column in ("naive", "forecast"))
            axes.plot(*naive, color=GREY, linestyle="--", label="seasonal naive" if number == 0 else None)
            axes.plot(*best, color=BLUE, linewidth=1.8, label=model if number == 0 else None)
            axes.axvline(_starts(plan, pl.Series([origin + 1]))[0], color=RED, linewidth=0.8, alpha=0.6)
        title = ", ".join(f"{key} {value}" for key, value in name.items()) if own.groups else plan.target
        axes.set(title=title, ylabel=plan.target)
        axes.margins(x=0.01)
    panels[0].legend(loc="upper left", frameon=False, ncols=3, fontsize=9)
    panels[-1].set_xlabel("red: origins, after which nothing was known")
    panels[-1].tick_params(axis="x", rotation=20)
    return png_bytes(figure)


def _error_by_step(plan: Plan, result: ForecastResult) -> bytes:
    from matplotlib.ticker import MaxNLocator

    figure, axes = new_figure(8, 3.6)
    steps = [one.step for one in result.steps]
    axes.plot(
        steps, [one.seasonal_naive for one in result.steps], "s--", color=GREY, label="seasonal naive", markersize=4
    )
    axes.plot(steps, [one.best for one in result.steps], "o-", color=BLUE, label=result.model, markersize=4)
    axes.set(title="Error by step, over the backtest", xlabel="step, periods ahead", ylabel=plan.metric)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return png_bytes(figure)


def _starts(plan: Plan, periods: pl.Series) -> list[object]:
    own = forecast_of(plan)
    frame = pl.DataFrame({"period": periods.cast(pl.Int64)})
    return frame.select(period_starts(pl.col("period"), own.every, own.anchor)).to_series().to_list()


def _line(plan: Plan, rows: pl.DataFrame, period: str, value: str) -> tuple[list[object], np.ndarray]:
    return _starts(plan, rows.get_column(period)), rows.get_column(value).cast(pl.Float64).fill_null(np.nan).to_numpy()
