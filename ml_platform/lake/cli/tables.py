"""`ml-platform tables`: list the tables, show the history of one, restore an old version."""

from contextlib import suppress
from typing import Annotated

import typer

from ml_platform.lake.access import AccessDenied
from ml_platform.lake.cli.sql import Format, render, write
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

app = typer.Typer(no_args_is_help=True, help="List the lake's tables, show the history of one, restore an old version.")
Table = Annotated[str, typer.Argument(help="A table, e.g. raw/flights.")]
Layout = Annotated[Format, typer.Option(help="How the result is written.")]


@app.command("list")
def list_tables(format: Layout = Format.TABLE) -> None:
    """List all tables with their newest version: when it was made, how, by whom."""
    import polars as pl

    from ml_platform.lake.bound import bound_lake

    try:
        lake = bound_lake(Settings(), "tables")
        newest = []
        for table in lake.tables():
            with suppress(AccessDenied):  # known by name alone
                made = lake.history(table, limit=1)
                newest.append(made.select(pl.lit(table).alias("table"), pl.exclude("parameters")))
    except (ConnectionError, AccessDenied) as error:
        stop(str(error))
    if not newest:
        stop(f"The lake at {lake.uri} has no tables yet; materialise a raw table first.")
    write(render(pl.concat(newest), format), format)


@app.command()
def history(
    table: Table,
    format: Layout = Format.TABLE,
    limit: Annotated[int, typer.Option(min=0, help="Most versions to show, the newest first; 0 for all.")] = 20,
) -> None:
    """List a table's versions: when each was made, how, by whom."""
    from ml_platform.lake.bound import bound_lake

    try:
        write(render(bound_lake(Settings(), "tables").history(table, limit=limit or None), format), format)
    except (LookupError, ValueError, ConnectionError, AccessDenied) as error:
        stop(str(error))


@app.command()
def restore(
    table: Table,
    version: Annotated[int | None, typer.Option(help="The version to put back; `history` lists them.")] = None,
    as_of: Annotated[str | None, typer.Option(help="Or the time to go back to: 2024-06-01T12:00Z.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also a table of governance/, which then cannot be verified.")
    ] = False,
) -> None:
    """Make an old version the newest again; what was written since stays readable under its own versions.

    Example: ml-platform tables restore raw/flights --version 3
    """
    from ml_platform.lake.bound import bound_lake
    from ml_platform.lake.storage.snapshots import instant

    if table.startswith("governance/") and not force:
        stop(
            f"{table} was not restored: audit log and ledger only grow, and cannot be verified without what was "
            "written since. Restore the table from a backup; to go back all the same: --force"
        )
    try:
        made = bound_lake(Settings(), "tables").restore(table, version, as_of=instant(as_of) if as_of else None)
    except (LookupError, ValueError, ConnectionError, AccessDenied) as error:
        stop(f"{table} was not restored: {error}")
    say(f"{table} is restored, as version {made}.")
