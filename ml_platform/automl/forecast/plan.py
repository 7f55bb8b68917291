"""From a table to the plan of a forecast: periods, season, series, inputs and origins, each with its reason."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from ml_platform.automl.documents import Decision, Plan, PlanColumn, SplitPlan
from ml_platform.automl.forecast.plain_series import period_starts, read_series
from ml_platform.automl.forecast.spacing import SEASONS, Spacing, find_spacing
from ml_platform.automl.forecast_documents import ForecastFold, ForecastPlan
from ml_platform.automl.frame import instants
from ml_platform.automl.options import AutomlOptions
from ml_platform.automl.plan import TableSource
from ml_platform.new_model.table_columns import check_known
from ml_platform.spec.model import SCORE_COLUMNS

METRICS = ("mae", "rmse")
MOST_TRAINING_ROWS = 50_000
_MOST_ORIGINS, _MOST_VALIDATION, _MOST_FITS = 60, 20, 6
_NAMED = 5  # series in a message
_OWN = frozenset(  # of rows of forecasts
    {
        *("step", "origin", "period", "series", "y", "before", "target_period", "same_period", "target_time"),
        *(
            "season_position",
            "hour",
            "weekday",
            "month",
            "day_of_month",
            "forecast_id",
            "origin_block",
            "label_available_at",
        ),
    }
)
LEVEL = ("last_value", "value_before", "mean_1", "mean_2", "mean_4", "min_1", "max_1", "min_4", "max_4", "mean_all")
SEASONAL = ("same_1", "same_2", "same_mean")
NAIVE_COLUMNS = ("same_1", "same_2", "same_mean", "mean_4", "mean_all")  # the first that is known is the seasonal naive
CALENDAR = {
    "hour": ("hour", "weekday", "month"),
    "day": ("weekday", "month", "day_of_month"),
    "week": ("month",),
    "month": ("month",),
}


def plan_forecast(source: TableSource, options: AutomlOptions) -> Plan:
    """Decide what can be decided of a forecast from a table's rows.

    Parameters
    ----------
    source
        The table.
    options
        What is decided already; `horizon` is.

    Raises
    ------
    LookupError
        When the table has no column of a name that was given.
    ValueError
        When the rows are no series of equal periods, are too few, or options do not go with a forecast.
    """
    table, rows = source.source, source.rows
    groups = [name.strip() for name in (options.group or "").split(",") if name.strip()]
    _check_options(options)
    optional = (*options.known_ahead, *options.drop, *options.allow, *filter(None, [options.time]))
    for name in (options.target, *groups, *optional):
        check_known(name, rows.columns, table)
    time = _time_column(rows, options, table)
    _check_names(rows, options, groups, time, table)
    rows = rows.filter(pl.col(time).is_not_null())
    spacing = find_spacing(instants(rows, time), rows.select(groups), time=time, groups=groups, table=table)
    kinds, dropped = _other_columns(rows, options, groups, time)
    lagged = [name for name in kinds if name not in options.known_ahead]
    series = read_series(rows, time, groups, options.target, kinds, spacing.every, spacing.anchor)
    if series.is_empty():
        raise ValueError(f"{table}: no row has a value of the target, so there is nothing to forecast")
    keys = groups or ["series"]
    horizon = int(options.horizon or 0)
    season, season_why = _season(series, keys, spacing, options, horizon)
    forecast, told = _origins(series, keys, spacing, season, horizon, table)
    forecast = forecast.model_copy(
        update={"groups": tuple(groups), "lagged": tuple(lagged), "known_ahead": tuple(options.known_ahead)}
    )
    columns = _input_columns(forecast, kinds)
    metric = options.metric or "mae"
    decisions = [
        Decision(what="task", value=f"forecast of the next {horizon} {spacing.every}s", why="as --horizon says"),
        Decision(
            what="metric",
            value=metric,
            why="as the option says" if options.metric else "the mean absolute error, in the target's own unit",
            option="--metric mae or rmse",
        ),
        Decision(what="periods", value=f"{spacing.every}s", why=f"{spacing.why}; a time names the start of its period"),
        Decision(what="season", value=f"{season} {spacing.every}s", why=season_why, option="--season"),
        *told,
    ]
    if lagged:
        why = "known at the origin only: the newest value, and the mean of a season"
        decisions.append(Decision(what="lagged", value=", ".join(lagged), why=why, option="--known-ahead"))
    if options.known_ahead:
        value = ", ".join(options.known_ahead)
        decisions.append(Decision(what="known ahead", value=value, why="as the option says", option="--known-ahead"))
    for reason in dict.fromkeys(dropped.values()):
        names = ", ".join(name for name, why in dropped.items() if why == reason)
        decisions.append(Decision(what="no input", value=names, why=reason, option="--drop"))
    return Plan(
        name=source.name,
        source=source.source,
        table=source.table,
        uri=source.uri,
        version=source.version,
        rows=series.get_column("y").count(),
        task="regression",
        metric=metric,
        target=options.target,
        columns=columns,
        sort_by=("origin", *keys, "step"),
        time=time,
        group=",".join(groups) or None,
        split=SplitPlan(kind="time"),
        seed=options.seed,
        dropped=dropped,
        decisions=tuple(decisions),
        forecast=forecast,
    )


def _check_options(options: AutomlOptions) -> None:
    named = {"--split": options.split, "--holdout": options.holdout, "--positive": options.positive, "--id": options.id}
    if options.task not in (None, "regression"):
        named["--task"] = options.task
    if wrong := [name for name, value in named.items() if value is not None]:
        raise ValueError(f"{', '.join(wrong)} do not go with --horizon: a forecast is judged on rolling origins")
    if options.metric not in (None, *METRICS):
        raise ValueError(f"--metric of a forecast is {' or '.join(METRICS)}, found {options.metric}")


def _time_column(rows: pl.DataFrame, options: AutomlOptions, table: str) -> str:
    able = [name for name, dtype in rows.schema.items() if dtype == pl.Date or isinstance(dtype, pl.Datetime)]
    name = options.time or (able[0] if len(able) == 1 else None)
    if name is None:
        raise ValueError(f"{table}: say which column is the time of a row, --time; dates: {', '.join(able) or 'none'}")
    if name not in able:
        raise ValueError(
            f"{table}: '{name}' is of type {rows.schema[name]}, wanted dates or instants; dates of the table are: "
            f"{', '.join(able) or 'none'}"
        )
    return name


def _check_names(rows: pl.DataFrame, options: AutomlOptions, groups: Sequence[str], time: str, table: str) -> None:
    target = options.target
    if not (rows.schema[target].is_numeric() or rows.schema[target] == pl.Boolean):
        raise ValueError(
            f"{table}: '{target}' is of type {rows.schema[target]}; a forecast wants numbers, e.g. cast it in a query"
        )
    if clash := [name for name in (target, time) if name in (*groups, *options.known_ahead)]:
        raise ValueError(f"{table}: {', '.join(clash)} is target or time; it cannot be --group or --known-ahead")
    if own := sorted({*groups, *options.known_ahead} & (_OWN | SCORE_COLUMNS)):
        raise ValueError(
            f"{table}: {', '.join(own)}: forecasts have such columns of their own (the calendar is an input "
            "anyway); leave it out, or rename it in the table"
        )
    for name in groups:
        if (missing := rows.get_column(name).null_count()) > 0:
            raise ValueError(
                f"{table}: {missing:,} rows have no '{name}', so their series is unknown; fill or drop them"
            )


def _other_columns(
    rows: pl.DataFrame, options: AutomlOptions, groups: Sequence[str], time: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Kinds of other columns that are inputs, and why the rest is none."""
    kinds, dropped = dict[str, str](), dict.fromkeys(options.drop, "left out by --drop")
    for name, dtype in rows.schema.items():
        if name in {options.target, time, *groups, *dropped}:
            continue
        if dtype.is_numeric() or dtype == pl.Boolean:
            kinds[name] = "number"
        elif name in options.known_ahead and dtype == pl.String:
            kinds[name] = "category"
        elif name in options.known_ahead:
            raise ValueError(f"--known-ahead {name}: wanted numbers or texts, found {dtype}")
        else:
            dropped[name] = "no number, and not known ahead"
    order = [*(name for name in kinds if name not in options.known_ahead), *options.known_ahead]
    return {name: kinds[name] for name in order if name in kinds}, dropped


def _season(
    series: pl.DataFrame, keys: list[str], spacing: Spacing, options: AutomlOptions, horizon: int
) -> tuple[int, str]:
    usual = SEASONS[spacing.every]
    if options.season is not None:
        return options.season, "as the option says"
    longest = int(series.group_by(keys).len().get_column("len").max())  # type: ignore[arg-type]
    if spacing.every == "week" and longest < 2 * usual + 4 * horizon:
        return 1, f"{longest} weeks are too few for a season of a year, {usual} weeks"
    before = pl.col("y").shift(usual).over(keys)
    likeness = series.select(pl.corr("y", before)).item()
    explanation = (
        "" if likeness is None or not math.isfinite(likeness) else f"; correlation with a season before {likeness:.2f}"
    )
    return usual, f"usual for {spacing.every}s{explanation}"


def _origins(  # noqa: PLR0917 - private
    series: pl.DataFrame, keys: list[str], spacing: Spacing, season: int, horizon: int, table: str
) -> tuple[ForecastPlan, list[Decision]]:
    """Place the origins of validation and backtest, and say what is wrong with single series."""
    spans = series.group_by(keys, maintain_order=True).agg(
        pl.col("period").min().alias("first"),
        pl.col("period").max().alias("last"),
        pl.len().alias("periods"),
        (pl.len() - pl.col("y").count()).alias("missing"),
    )
    spans = spans.with_columns(pl.concat_str(keys, separator=", ").alias("series"))
    last, longest = int(spans.get_column("last").max()), int(spans.get_column("periods").max())  # type: ignore[arg-type]
    fewest = 2 * season + 4 * horizon
    if longest < fewest:
        raise ValueError(
            f"{table}: the longest series has {longest} {spacing.every}s; a forecast of {horizon} with a season of "
            f"{season} wants {fewest} at least (two seasons for the features, and four horizons to train, rank and "
            "backtest). Give more history, a shorter --horizon, or another --season (1 for none)"
        )
    short = spans.filter(pl.col("periods") < 2 * season + horizon)
    kept = spans.filter(pl.col("periods") >= 2 * season + horizon)
    first = int(kept.get_column("first").min())  # type: ignore[arg-type]
    usable = max(3, (last - first + 1 - 2 * season - horizon) // horizon // 2)
    validation_count = min(max(1, usable // 3), _MOST_VALIDATION)
    count = min(usable - validation_count, _MOST_ORIGINS)
    origins = [last - horizon * number for number in range(count, 0, -1)]
    validation = [origins[0] - horizon * number for number in range(validation_count, 0, -1)]
    folds = np.array_split(origins, min(_MOST_FITS, count))
    rows = kept.height * (last - first + 1) * horizon
    stride = _stride(math.ceil(rows / MOST_TRAINING_ROWS), season)
    plan = ForecastPlan(
        every=spacing.every,
        anchor=spacing.anchor,
        season=season,
        horizon=horizon,
        short=tuple(short.get_column("series").to_list()),
        stride=stride,
        last=last,
        validation=tuple(validation),
        folds=tuple(ForecastFold(origins=tuple(int(one) for one in fold)) for fold in folds),
    )
    return plan, [
        *_series_decisions(spans, short, kept, plan),
        Decision(
            what="backtest",
            value=f"{count} origins, {horizon} {spacing.every}s apart, {len(folds)} fits",
            why=f"from {_day(plan, origins[0] + 1)} on; the {validation_count} origins before rank the trials. "
            "Training ends before the origin",
        ),
        *(
            [
                Decision(
                    what="training", value=f"every {stride}th origin", why=f"{rows:,} rows would be slow to search on"
                )
            ]
            if stride > 1
            else []
        ),
    ]


def _series_decisions(
    spans: pl.DataFrame, short: pl.DataFrame, kept: pl.DataFrame, plan: ForecastPlan
) -> list[Decision]:
    decisions = [Decision(what="series", value=str(spans.height), why=f"{len(kept)} are long enough", option="--group")]
    if len(short):
        value = _some(short, lambda row: f"{row['series']} ({row['periods']} {plan.every}s)")
        why = (
            f"fewer than two seasons and the horizon, {2 * plan.season + plan.horizon} {plan.every}s: not judged alone"
        )
        decisions.append(Decision(what="short series", value=value, why=why))
    gaps = spans.filter(pl.col("missing") > 0)
    if len(gaps):
        value = _some(gaps, lambda row: f"{row['series']}: {row['missing']} of {row['periods']}")
        why = "a missing period is a null, no value is moved or made up; where it means 0, add rows with 0"
        decisions.append(Decision(what="missing periods", value=value, why=why))
    ended = kept.filter(pl.col("last") < plan.last)
    if len(ended):
        value = _some(ended, lambda row: f"{row['series']} (last {_day(plan, row['last'])})")
        why = f"no value in the newest periods, up to {_day(plan, plan.last)}: closed, or late? They train, "
        decisions.append(
            Decision(what="ended series", value=value, why=f"{why}but the newest origins cannot judge them")
        )
    return decisions


def _some(spans: pl.DataFrame, word: object) -> str:
    words = [word(row) for row in spans.head(_NAMED).to_dicts()]  # type: ignore[operator]
    return ", ".join(words) + (f" and {len(spans) - _NAMED} more" if len(spans) > _NAMED else "")


def _day(plan: ForecastPlan, period: int) -> str:
    start = pl.select(period_starts(pl.lit(period, pl.Int64), plan.every, plan.anchor)).item()
    return f"{start:%Y-%m-%d %H:%M}" if plan.every == "hour" else f"{start:%Y-%m-%d}"


def _stride(least: int, season: int) -> int:
    """The smallest stride from `least` on that meets all places of a season.

    Examples
    --------
    >>> _stride(1, 7), _stride(7, 7), _stride(3, 24)
    (1, 8, 5)
    """
    return next(stride for stride in range(max(1, least), least + season + 2) if math.gcd(stride, season) == 1)


def _input_columns(plan: ForecastPlan, kinds: dict[str, str]) -> tuple[PlanColumn, ...]:
    """Inputs in the order in which an adopted model has them: the request's, what follows from it, look-ups."""
    level = [*LEVEL, *(f"{name}_{what}" for name in plan.lagged for what in ("last", "mean_1"))]
    texts = {*plan.series_columns, *CALENDAR[plan.every]} - {"day_of_month"}
    texts |= {name for name in plan.known_ahead if kinds[name] == "category"}
    names = [*plan.groups, "step", *plan.known_ahead, "season_position", *CALENDAR[plan.every]]
    names += [*([] if plan.groups else ["series"]), *level, *SEASONAL]
    return tuple(PlanColumn(name=name, kind="category" if name in texts else "number") for name in names)
