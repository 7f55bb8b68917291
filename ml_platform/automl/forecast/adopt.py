"""From a trial of a forecast to a model of the project: two feature views, the spine, a declaration."""

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl
import yaml

from ml_platform.automl.documents import Plan
from ml_platform.automl.forecast.adopted_sql import BLOCK, level_view, season_view, spine_sql
from ml_platform.automl.forecast.plain_series import period_starts
from ml_platform.automl.forecast.plan import CALENDAR, LEVEL, NAIVE_COLUMNS, SEASONAL
from ml_platform.automl.forecast.rows import forecast_of
from ml_platform.automl.forecast.spacing import HOURS
from ml_platform.automl.forecast_documents import ForecastPlan
from ml_platform.new_model.create import declare_file, write_folders
from ml_platform.new_model.draft import Wanted, check_name
from ml_platform.new_model.files import COMPONENT
from ml_platform.project import Project
from ml_platform.spec.model import SCORE_COLUMNS

_VIEWS = "type: ml_platform.orchestration.FeatureViews\n"
_MONTH_HOURS = 24 * 31
_BLOCKS, _LEAST_BLOCKS = 12, 7  # of the gate's holdout, and as many as the gate wants by default
_HOLDOUT_SHARE = 0.6  # of the horizons that ranked and judged trials
_SPINE = frozenset(
    {BLOCK, "forecast_id", "step", "origin", "target_time", "label_available_at", "series", "season_position"}
)


def adopt_forecast(
    project: Project, plan: Plan, name: str, *, family: str, files: Mapping[str, str]
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Write a model's folder and its feature views into a project.

    Parameters
    ----------
    project
        Gets the files.
    plan
        Of the run; a file is declared as the table `raw/<name>_rows` first.
    name
        Of the model; its views are `<name>_level` and `<name>_season`.
    family
        Path of the class of the trial.
    files
        Further files of the folder: name → content.

    Returns
    -------
    tuple
        All files written, and what their owner should know.

    Raises
    ------
    ValueError, OSError
        When a file is there already, or cannot be written. Nothing is left behind then.
    """
    check_name(name)
    own, owner = forecast_of(plan), Wanted("", "", "").owner
    folder, features = project.defs / name, project.defs / "features"
    level, season = f"{name}_level", f"{name}_season"
    views = [features / f"{level}.sql", features / f"{season}.sql"]
    if present := [path for path in (*folder.glob("*"), *views) if path.exists()]:
        raise ValueError(f"{present[0]} is there already: choose another --name, or remove it")
    is_file = plan.table.startswith("automl/")
    table = f"raw/{name}_rows" if is_file else plan.table
    sources = declare_file(project, Path(plan.source), table, folder) if is_file else {}
    label = plan.target if plan.target not in _SPINE | SCORE_COLUMNS | set(CALENDAR[own.every]) else "value"
    time = str(plan.time)
    written = {
        views[0].name: level_view(own, table, time, plan.target, owner=owner),
        views[1].name: season_view(own, table, time, plan.target, owner=owner),
    }
    if not (features / "defs.yaml").exists():
        written["defs.yaml"] = _VIEWS
    made = write_folders(
        {
            **sources,
            features: written,
            folder: {
                "defs.yaml": _declaration(plan, own, name, table, label, owner=owner, family=family),
                "spine.sql": spine_sql(own, table, time, plan.target, label),
                "request_features.py": request_features(own),
                **files,
            },
        }
    )
    request = {**dict.fromkeys(own.groups, "…"), "target_time": "…", "step": 1, **dict.fromkeys(own.known_ahead, "…")}
    if own.every == "month":
        request["origin"] = "…"
    notes = (
        f"A request names a future {own.every} and how many {own.every}s it is after the newest one in {table}: "
        f"{json.dumps(request, ensure_ascii=False)}.",
        f"New rows of {table} count once features/{level}, features/{season} and their online assets are materialised.",
        "The gate compares with the median of the target; to have the first release beat the seasonal naive forecast, "
        f"say promotion.baseline: [{', '.join(_seasonal_naive(name))}].",
    )
    return made, notes


def request_features(own: ForecastPlan) -> str:
    """Write what follows from the request alone: origin, place in the season, calendar of the target."""
    target = 'pl.col("target_time")'
    lines: list[tuple[str, str, str]] = []
    if own.every == "month":
        number = "(target.dt.year().cast(pl.Int64) * 12 + target.dt.month().cast(pl.Int64) - 1)"
    else:
        number = f"((target - ANCHOR).dt.total_hours() // {HOURS[own.every]})"
        back = 'target - (pl.col("step") - 1) * PERIOD'
        lines.append(("origin", back, "End of the newest period that is known."))
    lines.append(("season_position", f"{number} % {own.season}", "Place of the target in the season."))
    parts = {"hour": "hour", "weekday": "weekday", "month": "month", "day_of_month": "day"}
    for name in CALENDAR[own.every]:
        text = "" if name == "day_of_month" else ".cast(pl.String)"
        words = f"{name.replace('_', ' ').capitalize()} of the target (UTC)."
        lines.append((name, f"target.dt.{parts[name]}().cast(pl.Int64){text}", words))
    if not own.groups:
        lines.append(("series", 'pl.lit("all")', "The only series."))
    body = "\n".join(
        f'    "{name}": RequestFeature(\n        {code},\n        {json.dumps(words)},\n    ),'
        for name, code, words in lines
    )
    anchor = ", ".join(str(part) for part in own.anchor.timetuple()[:6])
    imports = "import polars as pl\n\nfrom ml_platform.features import RequestFeature\n\n"
    constants = f"target = {target}\n\n"
    if own.every != "month":
        imports = f"from datetime import UTC, datetime, timedelta\n\n{imports}"
        constants = (
            f"ANCHOR = pl.lit(datetime({anchor}, tzinfo=UTC))  # start of period 0\n"
            f"PERIOD = pl.lit(timedelta(hours={HOURS[own.every]}))\n{constants}"
        )
    return (
        '"""What follows from a request alone: the origin, the place in the season, the calendar of the target."""\n\n'
        f"{imports}{constants}"
        f"REQUEST_FEATURES = {{\n{body}\n}}\n"
    )


def _declaration(plan: Plan, own: ForecastPlan, name: str, table: str, label: str, *, owner: str, family: str) -> str:
    kinds = {column.name: column.kind for column in plan.columns}
    inputs = [{"name": "forecast_id", "type": "string", "feature": False, "required": False}]
    inputs += [{"name": group, "type": "string"} for group in own.groups]
    words = f"Start of the {own.every} that is forecast (UTC)."
    inputs.append({"name": "target_time", "type": "timestamp", "feature": False, "description": words})
    if own.every == "month":
        words = "End of the newest month that is known: the first instant of the month after it (UTC)."
        inputs.append({"name": "origin", "type": "timestamp", "feature": False, "description": words})
    words = "Origins of one horizon, whose targets overlap: one block of the gate. No request has it."
    inputs.append({"name": BLOCK, "type": "integer", "feature": False, "required": False, "description": words})
    words = f"How many {own.every}s the target is after the newest one that is known."
    inputs.append({"name": "step", "type": "integer", "minimum": 1, "maximum": own.horizon, "description": words})
    for column in own.known_ahead:
        kind = "string" if kinds[column] == "category" else "number"
        inputs.append({"name": column, "type": kind, "required": False, "description": "Known in advance."})
    views = {f"{name}_level": LEVEL, f"{name}_season": SEASONAL}
    blocks, least = _holdout_blocks(own)
    hours = (_MONTH_HOURS if own.every == "month" else HOURS[own.every]) * own.horizon
    first = _first_day(own)
    attributes = {
        "name": name,
        "description": f"Forecasts {plan.target} of {table}, 1 to {own.horizon} {own.every}s ahead.",
        "owner": owner,
        "task": "regression",
        "target": label,
        "spine": "spine.sql",
        "id": "forecast_id",
        "timestamp": "origin",
        "label_available_at": "label_available_at",
        "inputs": inputs,
        "request_features": "request_features.py",
        "lookups": [{"view": view} for view in views],
        # the newest values of a slow series nearly are the next ones; they are known at the origin
        "leakage": {"allow": [f"{view}__{column}" for view, columns in views.items() for column in columns]},
        "tuning": {"trials": 1},
        "split": {
            "holdout": f"{blocks * hours} hours",
            "validation": f"{max(1, blocks // 2) * hours} hours",
            "gap": "0 hours",
        },
        "promotion": {
            "metric": plan.metric,
            "block": BLOCK,
            "min_blocks": least,
        },
        "scoring": {"start": first},
    }
    text = yaml.safe_dump(attributes, sort_keys=False, allow_unicode=True, width=110)
    body = "".join(f"  {line}\n" for line in text.splitlines())
    return f"type: {COMPONENT}\nattributes:\n{body}  families: [{family}]\n"


def _seasonal_naive(name: str) -> list[str]:
    """Features that are the seasonal naive forecast, in the order in which the backtest falls back on them."""
    return [f"{name}_{'season' if column in SEASONAL else 'level'}__{column}" for column in NAIVE_COLUMNS]


def _holdout_blocks(own: ForecastPlan) -> tuple[int, int]:
    """Horizons in the gate's holdout, and how many of them the gate wants at least."""
    judged = (own.last - own.validation[0]) // own.horizon  # about half of the history
    blocks = max(2, min(_BLOCKS, int(_HOLDOUT_SHARE * judged)))
    return blocks, max(2, min(_LEAST_BLOCKS, blocks - 1))


def _first_day(own: ForecastPlan) -> str:
    start = pl.select(period_starts(pl.lit(min(own.validation) + 1, pl.Int64), own.every, own.anchor)).item()
    return f"{start:%Y-%m-%d}"
