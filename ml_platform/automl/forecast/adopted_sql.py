"""The SQL of an adopted forecast: two feature views of the series, and the spine with a row for each forecast.

A test holds the views to the features of the trials, row by row.
"""

import json

from ml_platform.automl.forecast.plan import LEVEL, SEASONAL
from ml_platform.automl.forecast.spacing import HOURS
from ml_platform.automl.forecast_documents import ForecastPlan
from ml_platform.lake.names import quoted, sql_name

BLOCK = "origin_block"
_DESCRIPTIONS = {
    "last_value": "Value of the newest period.",
    "value_before": "Value of the period before.",
    "mean_all": "Mean of all periods so far.",
    "same_1": "Newest value at this place of the season.",
    "same_2": "Value a season before that.",
    "same_mean": "Mean of the newest four values at this place of the season.",
}


def table_sql(table: str) -> str:
    """Name a table of the lake in a query."""
    schema, name = table.split("/", 1)
    plainly = schema.isidentifier() and name.isidentifier() and name.islower()
    return f"{schema}.{name}" if plainly else ".".join(sql_name(table))


def level_view(own: ForecastPlan, table: str, time: str, target: str, *, owner: str) -> str:
    """Write the feature view of what is known of a series at the end of each period."""
    columns = {name: _description(name, own) for name in LEVEL}
    selected = ["y AS last_value", "lag(y) OVER ever AS value_before"]
    selected += [f"avg(y) OVER s{seasons} AS mean_{seasons}" for seasons in (1, 2, 4)]
    for seasons in (1, 4):
        selected += [f"min(y) OVER s{seasons} AS min_{seasons}", f"max(y) OVER s{seasons} AS max_{seasons}"]
    selected.append("avg(y) OVER ever AS mean_all")
    for name in own.lagged:
        other = quoted(f"other {name}")
        columns |= {f"{name}_last": f"{name} of the newest period.", f"{name}_mean_1": f"Mean of {name} over a season."}
        selected += [f"{other} AS {quoted(f'{name}_last')}", f"avg({other}) OVER s1 AS {quoted(f'{name}_mean_1')}"]
    head = _head(
        f"What is known of a series of {target} at the end of each period; null where a period is missing.",
        owner, own.series_columns, own.season, own, columns,
    )  # fmt: skip
    over = f"PARTITION BY {_keys(own)} ORDER BY period_start ROWS"
    windows = [f"s{seasons} AS ({over} {seasons * own.season - 1} PRECEDING)" for seasons in (1, 2, 4)]
    windows.append(f"ever AS ({over} UNBOUNDED PRECEDING)")
    return (
        f"{head}WITH {_series(own, table, time, target)}\n"
        f"SELECT\n    {_keys(own)},\n    period_start + {_interval(own)} AS event_time, -- known once it has "
        f"ended\n    " + ",\n    ".join(selected) + "\nFROM series\nWINDOW\n    " + ",\n    ".join(windows) + "\n"
    )


def season_view(own: ForecastPlan, table: str, time: str, target: str, *, owner: str) -> str:
    """Write the feature view of what is known at each place of the season."""
    columns = {name: _description(name, own) for name in SEASONAL}
    entity = [*own.series_columns, "season_position"]
    earlier = ", ".join("y" if number == 0 else f"lag(y, {number * own.season}) OVER ever" for number in range(4))
    head = _head(
        f"Values of a series of {target} at one place of the season: of the target's period, whatever the step.",
        owner, entity, 2 * own.season, own, columns,
    )  # fmt: skip
    return (
        f"{head}WITH {_series(own, table, time, target)}\n"
        f"SELECT\n    {_keys(own)},\n    {_position(own)} AS season_position,\n"
        f"    period_start + {_interval(own)} AS event_time, -- known once the period has ended\n"
        f"    y AS same_1,\n    lag(y, {own.season}) OVER ever AS same_2,\n    list_avg([{earlier}]) AS same_mean\n"
        f"FROM series\nWINDOW ever AS (PARTITION BY {_keys(own)} ORDER BY period_start)\n"
    )


def spine_sql(own: ForecastPlan, table: str, time: str, target: str, label: str) -> str:
    """Write the spine: one row for each series, origin and step; the newest ones have no label yet."""
    first = f"first_start + {2 * own.season - 1} * {_interval(own)}"
    where = f"WHERE period_start >= {first} -- two seasons are known"
    if own.stride > 1:
        last = "max(period_start) OVER ()"
        distance = f"({_number(own, last)} - {_number(own, 'period_start')})"
        where += f"\n    QUALIFY {distance} % {own.stride} = 0 -- every {own.stride}th origin, as in the trials"
    names = [f"origins.{quoted(name)}" for name in own.groups]
    text = " || '/' || ".join([*names, "strftime(origin, '%Y-%m-%dT%H')", "step::VARCHAR"])
    target_time = f"origin + (step - 1) * {_interval(own)}"
    known = "".join(f"    observed.{quoted(name)},\n" for name in own.known_ahead)
    keys = "".join(f"    origins.{quoted(name)},\n" for name in own.groups)
    same = " AND ".join(f"observed.{quoted(name)} = origins.{quoted(name)}" for name in own.series_columns)
    return (
        f"-- One row for each forecast: a series, an origin (the end of the newest period that is known) and a step.\n"
        f"WITH {_series(own, table, time, target, known_ahead=True)},\n"
        "started AS (\n"
        f"    SELECT *, min(period_start) OVER (PARTITION BY {_keys(own)}) AS first_start FROM series\n"
        "),\n"
        "origins AS (\n"
        f"    SELECT {_keys(own)}, period_start + {_interval(own)} AS origin\n    FROM started\n    {where}\n"
        "),\n"
        "forecasts AS (\n"
        f"    SELECT *, {target_time} AS target_time\n"
        f"    FROM origins CROSS JOIN (SELECT unnest(generate_series(1, {own.horizon})) AS step) AS steps\n"
        ")\n"
        f"SELECT\n    {text} AS forecast_id,\n"
        f"{keys}    step,\n    origin,\n    {_number(own, 'origin')} // {own.horizon} AS {BLOCK},\n"
        f"    target_time,\n{known}"
        f"    observed.y AS {quoted(label)},\n    target_time + {_interval(own)} AS label_available_at\n"
        f"FROM forecasts AS origins LEFT JOIN observed ON {same} AND observed.period_start = target_time\n"
    )


def _series(own: ForecastPlan, table: str, time: str, target: str, *, known_ahead: bool = False) -> str:
    """Common table expressions: rows as they are, and one row for each series and period."""
    keys = [f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}" for name in own.groups] or ["'all' AS series"]
    start = f"CAST({quoted(time)} AS TIMESTAMPTZ)"
    if own.every == "month":
        start = f"date_trunc('month', {start})"
    value = f"CAST({quoted(target)} AS DOUBLE)"
    columns = [*keys, f"{start} AS period_start", f"CASE WHEN isfinite({value}) THEN {value} END AS y"]
    if known_ahead:
        columns += [quoted(name) for name in own.known_ahead]
    else:
        columns += [f"CAST({quoted(name)} AS DOUBLE) AS {quoted(f'other {name}')}" for name in own.lagged]
    lines = ",\n        ".join(columns)
    return (
        f"observed AS (\n    SELECT\n        {lines}\n    FROM {table_sql(table)}\n"
        f"    WHERE {quoted(time)} IS NOT NULL\n),\n"
        "periods AS ( -- from the first value of a series to its last, without gaps\n"
        f"    SELECT\n        {_keys(own)},\n"
        f"        unnest(generate_series(min(period_start), max(period_start), {_interval(own)})) AS period_start\n"
        f"    FROM observed\n    WHERE y IS NOT NULL\n    GROUP BY {_keys(own)}\n),\n"
        f"series AS (\n    SELECT * FROM periods LEFT JOIN observed USING ({_keys(own)}, period_start)\n)"
    )


def _head(  # noqa: PLR0917 - private
    description: str, owner: str, entity: list[str], periods: int, own: ForecastPlan, columns: dict[str, str]
) -> str:
    days = 31 * periods if own.every == "month" else max(1, -(-periods * HOURS[own.every] // 24))
    lines = [
        f"  {json.dumps(name)}: {{type: number, description: {json.dumps(text)}}}" for name, text in columns.items()
    ]
    return (
        f"/*\ndescription: {json.dumps(description)}\nowner: {owner}\nentity: {json.dumps(entity)}\nttl: {days} days\n"
        "columns:\n" + "\n".join(lines) + "\n*/\n"
    )


def _description(name: str, own: ForecastPlan) -> str:
    if name in _DESCRIPTIONS:
        return _DESCRIPTIONS[name]
    what, seasons = name.split("_")
    word = {"mean": "Mean", "min": "Smallest value", "max": "Largest value"}[what]
    return f"{word} of the newest {int(seasons) * own.season} {own.every}s."


def _keys(own: ForecastPlan) -> str:
    return ", ".join(quoted(name) for name in own.series_columns)


def _interval(own: ForecastPlan) -> str:
    return "INTERVAL 1 MONTH" if own.every == "month" else f"INTERVAL {HOURS[own.every]} HOURS"


def _number(own: ForecastPlan, start: str) -> str:
    """Number of a period, as the trials count them."""
    if own.every == "month":
        return f"(year({start}) * 12 + month({start}) - 1)"
    return f"((epoch({start})::BIGINT - {int(own.anchor.timestamp())}) // {3600 * HOURS[own.every]})"


def _position(own: ForecastPlan) -> str:
    return f"{_number(own, 'period_start')} % {own.season}"
