"""Notebooks of forecasts as `py:percent` text: plain code from the table's version to the figure of the leaderboard."""

from pprint import pformat

from ml_platform.automl.documents import Entry, Leaderboard, Plan
from ml_platform.automl.forecast import plain_backtest, plain_series
from ml_platform.automl.forecast.rows import forecast_of
from ml_platform.automl.forecast_documents import BARS
from ml_platform.automl.notebook_cells import code_cell, join_cells, markdown_cell, source_of, table_cell
from ml_platform.automl.plain import metrics, rows
from ml_platform.automl.trial_notebook import RESULT_TAG, model_cells


def forecast_notebook(board: Leaderboard, entry: Entry) -> str:
    """Write the notebook of a trial, or of a bar: series, rows of forecasts, backtest, metric, error by step."""
    plan = board.plan
    is_bar = entry.trial in BARS
    cells = [
        markdown_cell(_head(board, entry)),
        code_cell(_imports(), _settings(plan)),
        *_series_cells(),
        markdown_cell(
            "## Rows of forecasts\n\nOne row for each series, origin (the newest period that is known) and step. All "
            "inputs are known at the origin: newest values, trailing means and bounds of 1 to 4 seasons, the newest "
            "values at the target's place in the season; the calendar is the target's. The label is the value "
            "of period origin + step."
        ),
        code_cell(
            source_of(plain_series.level_features, plain_series.season_features, plain_series.forecast_rows), _ROWS
        ),
        markdown_cell(
            "## The backtest\n\nAt each origin only rows whose target's period had ended are known. A fit serves the "
            "origins of its fold: its own, and those after it up to the next fit."
        ),
        code_cell(
            source_of(plain_backtest.bar_forecasts, plain_backtest.known_rows, plain_backtest.rows_of_origins), _FOLDS
        ),
    ]
    if is_bar:
        cells.append(code_cell(f'prediction = bars["{entry.trial}"]'))
    else:
        cells += [
            markdown_cell("## The model"),
            code_cell(
                source_of(rows.input_columns, rows.learn_categories, rows.make_matrix),
                "inputs = input_columns(table, INPUTS)\nCOLUMNS = inputs.columns",
            ),
            *model_cells(plan, entry),
            code_cell(_BACKTEST),
        ]
    cells += [
        markdown_cell(
            f"## The metric\n\nThe leaderboard says **{plan.metric} = {entry.holdout!r}**, over {board.blocks}. "
            f"The bars: " + ", ".join(f"{bar} {board.entry(bar).holdout:.5g}" for bar in BARS) + "."
        ),
        code_cell(source_of(metrics.METRICS[plan.metric])),
        code_cell(f"{plan.metric}(y[judged], prediction)", tags=(RESULT_TAG,)),
        markdown_cell("## Error by step"),
        code_cell(_STEPS.format(metric=plan.metric)),
        markdown_cell("## The newest origin of the backtest"),
        code_cell(_LAST),
    ]
    return join_cells(cells)


def exploration_notebook(plan: Plan) -> str:
    """Write the notebook that looks at the series: decisions, lengths and gaps, values, season."""
    decisions = "\n".join(
        f"| {one.what} | {table_cell(one.value)} | {table_cell(one.why)} | {f'`{one.option}`' if one.option else ''} |"
        for one in plan.decisions
    )
    cells = [
        markdown_cell(
            f"# {plan.name}: the series\n\nTable `{plan.table}`, version {plan.version} (from {plan.source}). What was "
            "decided before the trials, why, and the option of `ml-platform automl` that decides otherwise:\n\n"
            f"| what | decision | why | option |\n|---|---|---|---|\n{decisions}"
        ),
        code_cell(_imports(), _settings(plan)),
        *_series_cells(),
        markdown_cell("## Lengths and gaps"),
        code_cell(_LENGTHS),
        markdown_cell("## Values"),
        code_cell(_VALUES),
        markdown_cell("## The season\n\nThe mean at each place of the season, beside the mean of the series."),
        code_cell(_SEASON),
    ]
    return join_cells(cells)


def _head(board: Leaderboard, entry: Entry) -> str:
    plan, own = board.plan, forecast_of(board.plan)
    place = 1 + [one.trial for one in board.entries].index(entry.trial)
    return (
        f"# {plan.name}: {entry.trial}\n\nPlace {place} of {len(board.entries)} on the leaderboard, by "
        f"{plan.metric} (lower "
        f"is better) at the validation origins. Forecasts `{plan.target}` of `{plan.table}`, version "
        f"{plan.version}, 1 to "
        f"{own.horizon} {own.every}s ahead. Everything that decides the figures stands here, in the code of the "
        f"libraries "
        "themselves: change it and run it again."
    )


def _imports() -> str:
    return "from datetime import datetime\n\nimport matplotlib.pyplot as plt\nimport numpy as np\nimport polars as pl"


def _settings(plan: Plan) -> str:
    own = forecast_of(plan)
    kinds = {column.name: str(column.kind) for column in plan.columns}
    others = {name: kinds.get(name, "number") for name in (*own.lagged, *own.known_ahead)}
    folds = [list(fold.origins) for fold in own.folds]
    return "\n".join(
        [
            f"URI = {plan.uri!r}",
            f"VERSION = {plan.version}",
            f"TIME, TARGET = {plan.time!r}, {plan.target!r}",
            f"GROUPS = {list(own.groups)}  # columns that tell series apart",
            f"KEYS = {own.series_columns}",
            f'EVERY, SEASON, HORIZON = "{own.every}", {own.season}, {own.horizon}',
            f"ANCHOR = datetime.fromisoformat({own.anchor.isoformat()!r})  # start of period 0",
            f"OTHERS = {pformat(others, width=100, sort_dicts=False)}",
            f"LAGGED, KNOWN_AHEAD = {list(own.lagged)}, {list(own.known_ahead)}",
            f"VALIDATION = {list(own.validation)}  # origins, as numbers of periods",
            f"FOLDS = {pformat(folds, width=100, compact=True)}",
            f"LAST, STRIDE = {own.last}, {own.stride}  # newest period; training takes every such origin",
            f"SEED = {plan.seed}",
            f"INPUTS = {pformat(kinds, width=100, sort_dicts=False)}",
        ]
    )


def _series_cells() -> list[str]:
    return [
        markdown_cell(
            "## The series\n\nThe version of the table that the leaderboard was made from, as series of equal "
            "periods: a "
            "missing period is a null, no value is moved."
        ),
        code_cell(
            source_of(plain_series.period_numbers, plain_series.period_starts, plain_series.read_series),
            "rows = pl.read_delta(URI, version=VERSION)\n"
            "series = read_series(rows, TIME, GROUPS, TARGET, OTHERS, EVERY, ANCHOR)\nseries.tail()",
        ),
    ]


_ROWS = """origins = [origin for fold in FOLDS for origin in fold]
wanted = sorted({*range(LAST, series["period"].min() - 1, -STRIDE), *VALIDATION, *origins})
table = forecast_rows(series, KEYS, EVERY, ANCHOR, SEASON, wanted, HORIZON, LAGGED, KNOWN_AHEAD)
y = table["y"].to_numpy()
table.tail()"""
_FOLDS = """judged = rows_of_origins(table, origins)
bars = bar_forecasts(table[judged])
print(f"{len(judged):,} forecasts from {len(origins)} origins")"""
_BACKTEST = """parts = []
for fold in FOLDS:
    known, ahead = known_rows(table, fold[0], STRIDE, LAST), rows_of_origins(table, fold)
    if len(ahead) == 0:
        continue
    texts = [name for name, kind in INPUTS.items() if kind == "category"]
    CATEGORIES = {name: learn_categories(inputs[name][known], y[known]) for name in texts}
    X = make_matrix(inputs, CATEGORIES)
    parts.append(predict(fit(X[known], y[known]), X[ahead]))
prediction = np.concatenate(parts)"""
_STEPS = """step = table["step"].to_numpy()[judged]
numbers = np.unique(step)
by_step = {{
    name: [{metric}(y[judged][step == number], forecast[step == number]) for number in numbers]
    for name, forecast in {{"this": prediction, **bars}}.items()
}}
for name, values in by_step.items():
    plt.plot(numbers, values, marker="o", label=name)
plt.xlabel("step, periods ahead")
plt.ylabel("{metric}")
plt.ylim(bottom=0)
plt.legend()
plt.show()
pl.DataFrame({{"step": numbers, **by_step}})"""
_LAST = """newest = table[judged].with_columns(
    pl.Series("prediction", prediction), pl.Series("naive", bars["seasonal_naive"])
)
newest = newest.filter(pl.col("origin") == origins[-1])
for name in newest.select(KEYS).unique(maintain_order=True).head(4).to_dicts():
    of_series = [pl.col(key) == value for key, value in name.items()]
    ahead = newest.filter(*of_series)
    recent = series.filter(*of_series, pl.col("period") > origins[-1] - 3 * max(SEASON, HORIZON))
    at = recent.select(period_starts(pl.col("period"), EVERY, ANCHOR)).to_series()
    target_at = ahead.select(period_starts(pl.col("target_period"), EVERY, ANCHOR)).to_series()
    plt.figure(figsize=(11, 3))
    plt.plot(at, recent["y"], color="black", label="actual")
    plt.plot(target_at, ahead["naive"], color="grey", linestyle="--", label="seasonal naive")
    plt.plot(target_at, ahead["prediction"], label="forecast")
    plt.title(str(name))
    plt.legend()
    plt.show()"""
_LENGTHS = """series.group_by(KEYS, maintain_order=True).agg(
    first=period_starts(pl.col("period").min(), EVERY, ANCHOR),
    last=period_starts(pl.col("period").max(), EVERY, ANCHOR),
    periods=pl.len(),
    missing=pl.col("y").null_count(),
    mean=pl.col("y").mean(),
)"""
_VALUES = """for name, own in list(series.group_by(KEYS, maintain_order=True))[:6]:
    plt.figure(figsize=(11, 2.5))
    plt.plot(own.select(period_starts(pl.col("period"), EVERY, ANCHOR)).to_series(), own["y"], linewidth=0.8)
    plt.title(str(name))
    plt.show()"""
_SEASON = """places = series.group_by(KEYS, place=pl.col("period") % SEASON).agg(pl.col("y").mean()).sort("place")
for name, own in list(places.group_by(KEYS, maintain_order=True))[:6]:
    plt.plot(own["place"], own["y"] / own["y"].mean(), marker="o", label=str(name))
plt.xlabel("place in the season")
plt.legend()
plt.show()"""
