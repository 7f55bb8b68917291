"""`ml-platform new model`: a model's folder from a table, in one command."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ml_platform.project import ProjectNotFound, current_project
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop

app = typer.Typer(no_args_is_help=True, help="Make a model's folder from a table.")


class TaskChoice(StrEnum):
    """What is predicted."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


@app.callback()
def new() -> None:
    """Make a model's folder from a table."""


@app.command()
def model(  # noqa: PLR0917 - typer takes options as arguments
    name: Annotated[str, typer.Argument(help="Name of the model: its folder, assets and endpoint.")],
    target: Annotated[str, typer.Option(help="Column to predict.")],
    table: Annotated[
        str | None, typer.Option("--from", help="Table of the lake, raw/bank; with --data, what it is called.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A CSV or Parquet file that is declared as a table first.")] = None,
    id: Annotated[str | None, typer.Option(help="Column that identifies a row; guessed, or made, by default.")] = None,
    time: Annotated[
        str | None, typer.Option(help="Column with the instant of prediction; guessed, or made, by default.")
    ] = None,
    task: Annotated[TaskChoice | None, typer.Option(help="What is predicted; guessed from the column.")] = None,
    owner: Annotated[str, typer.Option(help="Who answers for the model: e-mail address or team:<name>.")] = (
        "team@example.com"
    ),
) -> None:
    """Write the folder of a model that loads, trains and serves, with all that was guessed from the table's rows.

    Example: ml-platform new model bank_calls --from raw/bank --target y
    """
    import polars as pl
    from pydantic import ValidationError

    from ml_platform.new_model.create import create_model, table_name
    from ml_platform.new_model.draft import Wanted

    if table is None and data is None:
        stop("say which table the model is made from: --from raw/<table>, or --data <file>")
    table = table or f"raw/{table_name(data)}" if data is not None else str(table)
    wanted = Wanted(name, table, target, id=id, time=time, task=task.value if task else None, owner=owner)
    say(f"looking at {data or table} ...")
    try:
        project = current_project()
        made = create_model(project, Settings(), wanted, data=data)
    except (LookupError, ValueError, OSError, ProjectNotFound, ValidationError, pl.exceptions.PolarsError) as error:
        stop(f"{name} was not made: {error}")
    for path in made.files:
        say(f"wrote {path.relative_to(project.root) if path.is_relative_to(project.root) else path}")
    for note in made.notes:
        say(f"- {note}")
    say(f"Next: ml-platform run {name}")
