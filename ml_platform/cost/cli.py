"""`ml-platform cost`: what was used and what it cost, what is stored, what is wasted, how the budgets stand."""

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_platform.lake.cli.sql import Format, render, write
from ml_platform.settings import Settings
from ml_platform.terminal import group_with_default, say, stop
from ml_platform.yaml_documents import SpecError

if TYPE_CHECKING:
    from ml_platform.cost.config import CostConfig

app = typer.Typer(
    cls=group_with_default("show"),
    help="Show what runs, models, callers and tables cost, what is wasted, and how the budgets stand.",
)
Layout = Annotated[Format, typer.Option(help="How the result is written.")]
_SPAN = re.compile(r"(\d{1,5})([hdw])")
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class By(StrEnum):
    """What costs are summed by."""

    MODEL = "model"
    ASSET = "asset"
    RUN = "run"
    TEAM = "team"
    KEY = "key"
    JOB = "job"
    DAY = "day"
    KIND = "kind"


@app.command()
def show(
    by: Annotated[By, typer.Option(help="What to sum by.")] = By.MODEL,
    since: Annotated[str, typer.Option(help="12h, 7d, 4w, or a day (UTC): 2026-01-31.")] = "7d",
    format: Layout = Format.TABLE,
) -> None:
    """Sum what was used, the dearest first.

    Example: ml-platform cost --by team --since 4w
    """
    from ml_platform.cost.report import cost_report, text_table
    from ml_platform.cost.use_table import read_costs
    from ml_platform.lake.storage.tables import Lake

    settings, config = Settings(), _config()
    start = instant_of(since)
    uses = read_costs(Lake(settings.lake_uri), settings, start)
    report = cost_report(uses, config, by.value)
    if format is not Format.TABLE:
        write(render(report, format), format)
        return
    if report.is_empty():
        stop(f"Nothing was measured since {start:%Y-%m-%d %H:%M} UTC: runs of Dagster, serving and commands are.")
    for line in text_table(report, config.currency):
        say(line)
    say(f"{report['price'].sum():,.4f} {config.currency} since {start:%Y-%m-%d %H:%M} UTC")


@app.command()
def storage(format: Layout = Format.TABLE) -> None:
    """Show what tables store: now, in older versions alone, and what a vacuum would free; and the release store.

    Example: ml-platform cost storage --format csv
    """
    import polars as pl

    from ml_platform.cost.report import aligned
    from ml_platform.cost.storage import stored_tables
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.registry.pins import pinned_versions
    from ml_platform.registry.releases import ReleaseStore

    settings, config = Settings(), _config()
    pinned = pinned_versions(ReleaseStore(settings.releases_dir))
    tables = stored_tables(Lake(settings.lake_uri), config, settings.lake_retention_days, pinned)
    if format is not Format.TABLE:
        write(render(pl.DataFrame([one.row() for one in tables]), format), format)
        return
    if not tables:
        stop(f"The lake at {settings.lake_uri} has no tables yet; materialise a raw table first.")
    head = ["table", "versions", "MiB", "now", "older only", "vacuumable", f"{config.currency} a month"]
    rows = [
        [
            one.table,
            str(len(one.versions)),
            *(f"{size / 2**20:,.2f}" for size in (one.bytes, one.current_bytes, one.older_bytes, one.vacuumable_bytes)),
            f"{one.price_month:,.4f}",
        ]
        for one in tables
    ]
    for line in aligned([head, *rows]):
        say(line)


@app.command()
def waste(
    since: Annotated[str, typer.Option(help="How long nobody may have used it: 30d, or a day (UTC).")] = "30d",
    format: Layout = Format.TABLE,
) -> None:
    """List what nobody uses: tables, models, versions, schedules; what it costs, and the command that ends it.

    Example: ml-platform cost waste --since 12w
    """
    import polars as pl

    from ml_platform.cost.report import aligned
    from ml_platform.cost.waste import find_waste

    settings, config = Settings(), _config()
    findings = find_waste(settings, config, instant_of(since))
    if format is not Format.TABLE:
        write(render(pl.DataFrame([one.row() for one in findings]), format), format)
        return
    if not findings:
        say("Nothing is wasted that can be told from here.")
        return
    head = ["what", "name", "MiB", f"{config.currency} a month"]
    table = [[one.kind, one.name, f"{one.bytes / 2**20:,.2f}", f"{one.price_month:,.4f}"] for one in findings]
    for line, one in zip(aligned([head, *table]), [None, *findings], strict=True):
        say(line)
        if one is not None:
            say(f"    {one.reason}")
            say(f"    → {one.remedy}")


@app.command()
def budgets(format: Layout = Format.TABLE) -> None:
    """Show how the budgets stand in their present periods.

    Example: ml-platform cost budgets
    """
    import polars as pl

    from ml_platform.cost.budgets import budget_states, project_budgets
    from ml_platform.cost.use_table import read_costs
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.project import ProjectNotFound

    settings, config = Settings(), _config()
    try:
        declared = project_budgets(config)
    except (SpecError, ProjectNotFound) as error:
        stop(str(error))
    now = datetime.now(UTC)
    begin = min((one.begins(now) for one in declared), default=now)
    states = budget_states(declared, read_costs(Lake(settings.lake_uri), settings, begin), config, now)
    if format is not Format.TABLE:
        write(render(pl.DataFrame([one.row() for one in states]), format), format)
        return
    if not states:
        say("There are no budgets: write `budgets:` into cost.yaml, or `budget:` into a model's defs.yaml.")
    for state in states:
        say(state.text())


def instant_of(text: str, now: datetime | None = None) -> datetime:
    """Read `7d`, `12h`, `4w` or a day; ends the command for anything else."""
    now = now or datetime.now(UTC)
    if match := _SPAN.fullmatch(text.strip()):
        span: Any = {_UNITS[match[2]]: int(match[1])}
        return now - timedelta(**span)
    try:
        day = datetime.fromisoformat(text)
    except ValueError:
        stop(f"--since: wanted 12h, 7d, 4w or a day such as {now:%Y-%m-%d}, found '{text}'")
    return day if day.tzinfo else day.replace(tzinfo=UTC)


def _config() -> "CostConfig":
    from ml_platform.cost.config import cost_config

    try:
        return cost_config()
    except SpecError as error:
        stop(str(error))
