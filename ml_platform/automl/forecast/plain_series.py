"""Series of equal periods, and rows of forecasts: code that runs here and is copied into notebooks as it is.

A period has a number, so that lags and steps are sums. A row of forecasts is a series, an origin (the newest period
that is known) and a step; its inputs are known at the origin, its label is the value of period origin + step.
"""

from datetime import datetime

import polars as pl


def period_numbers(times: pl.Expr, every: str, anchor: datetime) -> pl.Expr:
    """Number the periods of instants; months count from the year 0, others from the anchor."""
    if every == "month":
        return times.dt.year().cast(pl.Int64) * 12 + times.dt.month().cast(pl.Int64) - 1
    return (times - pl.lit(anchor)).dt.total_hours() // {"hour": 1, "day": 24, "week": 168}[every]


def period_starts(periods: pl.Expr, every: str, anchor: datetime) -> pl.Expr:
    """Give the first instant of periods (UTC)."""
    if every == "month":
        return pl.datetime(periods // 12, periods % 12 + 1, 1, time_unit="us", time_zone="UTC")
    hours = periods * {"hour": 1, "day": 24, "week": 168}[every]
    return (pl.lit(anchor) + pl.duration(hours=hours)).cast(pl.Datetime("us", "UTC"))


def read_series(  # noqa: PLR0917 - called in one line of a notebook
    rows: pl.DataFrame, time: str, groups: list[str], target: str, others: dict[str, str], every: str, anchor: datetime
) -> pl.DataFrame:
    """Give each series a row for each of its periods, with nulls where the table has no row for it.

    A series begins and ends with its first and last value of the target, here called `y`. `others` are further columns
    and their kinds, `number` or `category`.
    """
    as_kind = {"number": pl.Float64, "category": pl.String}
    names = [pl.col(name).cast(pl.String) for name in groups] or [pl.lit("all").alias("series")]
    keys = groups or ["series"]
    y = pl.col(target).cast(pl.Float64)
    at = pl.col(time).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    values = rows.filter(pl.col(time).is_not_null()).select(
        *names,
        period_numbers(at, every, anchor).alias("period"),
        pl.when(y.is_finite()).then(y).alias("y"),
        *(pl.col(name).cast(as_kind[kind]).alias(f"other {name}") for name, kind in others.items()),
    )
    span = pl.int_ranges(pl.col("period").min(), pl.col("period").max() + 1).alias("period")
    grid = values.drop_nulls([*keys, "y"]).group_by(keys).agg(span).explode("period")
    return grid.join(values, on=[*keys, "period"], how="left").sort([*keys, "period"])


def level_features(series: pl.DataFrame, keys: list[str], season: int, lagged: list[str]) -> pl.DataFrame:
    """What is known of a series at the end of each period: newest values, means and bounds of 1 to 4 seasons."""
    y, before = pl.col("y"), pl.col("period") - pl.col("period").min().over(keys)
    columns = {"last_value": y, "value_before": y.shift(1).over(keys)}
    for seasons in (1, 2, 4):
        columns[f"mean_{seasons}"] = y.rolling_mean(seasons * season, min_samples=1).over(keys)
    for seasons in (1, 4):
        columns[f"min_{seasons}"] = y.rolling_min(seasons * season, min_samples=1).over(keys)
        columns[f"max_{seasons}"] = y.rolling_max(seasons * season, min_samples=1).over(keys)
    columns["mean_all"] = (y.fill_null(0.0).cum_sum() / y.cum_count()).over(keys)
    for name in lagged:
        other = pl.col(f"other {name}")
        columns[f"{name}_last"] = other
        columns[f"{name}_mean_1"] = other.rolling_mean(season, min_samples=1).over(keys)
    named = [column.alias(name) for name, column in columns.items()]
    return series.select(*keys, pl.col("period").alias("origin"), before.alias("before"), *named)


def season_features(series: pl.DataFrame, keys: list[str], season: int) -> pl.DataFrame:
    """What is known at a place of the season: its newest value, the one a season before, and the mean of four."""
    earlier = [pl.col("y").shift(number * season).over(keys) for number in range(4)]
    return series.select(
        *keys,
        pl.col("period").alias("same_period"),
        pl.col("y").alias("same_1"),
        earlier[1].alias("same_2"),
        pl.mean_horizontal(*earlier).alias("same_mean"),
    )


def forecast_rows(  # noqa: PLR0917 - called in one line of a notebook
    series: pl.DataFrame,
    keys: list[str],
    every: str,
    anchor: datetime,
    season: int,
    origins: list[int],
    horizon: int,
    lagged: list[str],
    known_ahead: list[str],
) -> pl.DataFrame:
    """Make a row for each series, origin and step with a known value, sorted by origin, series and step.

    The newest value at the target's place in the season is 1, 2 … seasons before the target: the first that is not
    after the origin. Series join once they have two seasons.
    """
    level = level_features(series, keys, season, lagged).filter(
        pl.col("origin").is_in(origins), pl.col("before") >= 2 * season - 1
    )
    ahead = [pl.col(f"other {name}").alias(name) for name in known_ahead]
    labels = series.select(*keys, pl.col("period").alias("target_period"), "y", *ahead)
    step, target_period = pl.col("step"), pl.col("target_period")
    start = period_starts(target_period, every, anchor)
    calendar = {
        "hour": {"hour": start.dt.hour(), "weekday": start.dt.weekday(), "month": start.dt.month()},
        "day": {"weekday": start.dt.weekday(), "month": start.dt.month(), "day_of_month": start.dt.day()},
        "week": {"month": start.dt.month()},
        "month": {"month": start.dt.month()},
    }[every]
    steps = pl.DataFrame({"step": range(1, horizon + 1)}, schema={"step": pl.Int64})
    rows = level.join(steps, how="cross").with_columns((pl.col("origin") + step).alias("target_period"))
    rows = rows.join(labels, on=[*keys, "target_period"], how="inner").filter(pl.col("y").is_not_null())
    rows = rows.with_columns((target_period - ((step - 1) // season + 1) * season).alias("same_period"))
    rows = rows.join(season_features(series, keys, season), on=[*keys, "same_period"], how="left")
    named = [
        value.cast(pl.Int64) if name == "day_of_month" else value.cast(pl.Int64).cast(pl.String)
        for name, value in calendar.items()
    ]
    rows = rows.with_columns(
        (target_period % season).alias("season_position"),
        *(value.alias(name) for name, value in zip(calendar, named, strict=True)),
    )
    return rows.sort(["origin", *keys, "step"])
