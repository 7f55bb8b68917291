"""`ml-platform quarantine`: show rejected rows, re-admit corrected ones, list re-admissions."""

import getpass
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.lake.access import AccessDenied
from ml_platform.lake.cli.sql import Format, render, write
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

if TYPE_CHECKING:
    import polars as pl

app = typer.Typer(no_args_is_help=True, help="Show, correct and re-admit rows that broke a contract.")
Table = Annotated[str, typer.Argument(help="The table that rejected the rows, e.g. raw/flights.")]
Layout = Annotated[Format, typer.Option(help="How the rows are written.")]


@app.command()
def show(
    table: Table,
    format: Layout = Format.TABLE,
    limit: Annotated[int, typer.Option(min=0, help="Most rows to show; 0 for all.")] = 100,
) -> None:
    """Show a table's rejected rows with their reasons and the source's own values.

    Example: ml-platform quarantine show raw/planes --format csv --limit 0 > rows.csv
    """
    from ml_platform.lake.bound import bound_lake
    from ml_platform.lake.ingestion.quarantine import look

    try:
        rows = look(bound_lake(Settings(), "quarantine"), table)
    except (LookupError, ValueError, ConnectionError, AccessDenied) as error:
        stop(str(error))
    if rows.is_empty() and format is Format.TABLE:
        say(f"The quarantine holds no rows of {table}.")
        return
    write(render(rows.head(limit) if limit else rows, format), format)
    if limit and rows.height > limit:
        say(f"The first {limit} of {rows.height} rows. --limit 0 shows all.", err=True)


@app.command()
def readmit(
    table: Table,
    note: Annotated[str, typer.Option(help="Why the new values are right; it is recorded.")],
    file: Annotated[Path | None, typer.Option(help="CSV of corrected rows, in the columns that `show` gives.")] = None,
    function: Annotated[
        str | None,
        typer.Option(help="module:function that is given the rows (a Polars frame) and returns corrected ones."),
    ] = None,
) -> None:
    """Check corrected rows against the contract again and move those that pass into the table; ends with 1 if any stay.

    Example: ml-platform quarantine readmit raw/planes --file rows.csv --note "asked the registry"
    """
    import polars as pl

    from ml_platform.lake.bound import bound_lake
    from ml_platform.lake.ingestion.quarantine import look
    from ml_platform.lake.ingestion.quarantine import readmit as move
    from ml_platform.lake.sources.file_readers import read_file
    from ml_platform.lake.sources.file_spec import Files
    from ml_platform.lake.sources.registry import declared_table

    if (file is None) == (function is None):  # neither, or both
        stop("Give either corrected rows with --file, or a function that corrects them with --function.")
    try:
        lake = bound_lake(Settings(), "quarantine")
        raw = declared_table(table)
        rows = (
            _function(function)(look(lake, table))
            if function
            else read_file(file or Path(), Files(format="csv", null_values=()))
        )
        report = move(lake, raw, rows, by=getpass.getuser(), note=note)
    except (LookupError, ValueError, OSError, ImportError, pl.exceptions.PolarsError) as error:
        stop(f"Nothing was re-admitted to {table}: {error}")
    say(f"{report.admitted} rows re-admitted to {table}, now at version {report.version}.")
    if report.gone:
        say(f"{report.gone} rows are not in the quarantine (any more).")
    for name, reasons in report.refused.items():
        say(f"  {name} stays: {'; '.join(reasons)}")
    if report.refused:
        raise typer.Exit(1)


@app.command()
def history(table: Table, format: Layout = Format.TABLE) -> None:
    """List what was re-admitted to a table: who, when, why, the row before and after."""
    from ml_platform.lake.bound import bound_lake
    from ml_platform.lake.ingestion.quarantine import readmissions

    try:
        rows = readmissions(bound_lake(Settings(), "quarantine"), table)
    except (LookupError, ValueError, ConnectionError, AccessDenied) as error:
        stop(str(error))
    write(render(rows.select("readmitted_at", "by", "note", "id", "reasons", "before", "after"), format), format)


def _function(name: str) -> "Callable[[pl.DataFrame], pl.DataFrame]":
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute, None) if attribute else None
    if not callable(function):
        raise ValueError(f"--function wants module:function, like my_fixes:add_year; found no function '{name}'.")
    return function
