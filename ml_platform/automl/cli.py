"""`ml-platform automl`: from a table to a leaderboard with a notebook for every trial, in one command."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ml_platform.project import ProjectNotFound, current_project
from ml_platform.promotion.promoters import promoter
from ml_platform.settings import Settings
from ml_platform.terminal import say, stop


class TaskChoice(StrEnum):
    """What is predicted."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


class SplitChoice(StrEnum):
    """How rows are divided."""

    TIME = "time"
    GROUP = "group"
    STRATIFIED = "stratified"
    RANDOM = "random"


def automl(  # noqa: PLR0917 - typer takes options as arguments
    model: Annotated[
        str | None, typer.Argument(help="A model of the project, whose training set is taken; or a run, to --show.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="A CSV or Parquet file with the rows.")] = None,
    table: Annotated[str | None, typer.Option("--from", help="Table of the lake with the rows, raw/bank.")] = None,
    target: Annotated[str, typer.Option(help="Column to predict.")] = "",
    name: Annotated[str | None, typer.Option(help="What the run is called; the file or the table by default.")] = None,
    time: Annotated[str | None, typer.Option(help="Column with the instant of each row; guessed by default.")] = None,
    id: Annotated[str | None, typer.Option(help="Column that identifies a row; guessed by default.")] = None,
    group: Annotated[
        str | None,
        typer.Option(
            help="Column of the entity whose rows stay together; guessed. Of a forecast: columns of series, store,item."
        ),
    ] = None,
    task: Annotated[TaskChoice | None, typer.Option(help="What is predicted; guessed from the column.")] = None,
    positive: Annotated[str | None, typer.Option(help="Binary: the value that stands for true.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="What trials are compared by: roc_auc, log_loss or rmse by task by default.")
    ] = None,
    split: Annotated[
        SplitChoice | None, typer.Option(help="By time, by group, stratified by class, or at random; guessed.")
    ] = None,
    holdout: Annotated[
        str | None, typer.Option(help="Share of the rows that is held out (0.2), or the first day of it (2024-10-01).")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="Column that is no input; may be repeated.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(help="Input that is sound although it gives the label; may be repeated.")
    ] = None,
    family: Annotated[
        list[str] | None, typer.Option(help="Family to try; may be repeated. All that are installed by default.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.05, help="Budget of the run.")] = 10.0,
    top: Annotated[int, typer.Option(min=1, help="Trials on the leaderboard, of each family one at least.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the split and of all trials.")] = 0,
    horizon: Annotated[
        int | None, typer.Option(min=1, help="Forecast the next periods of series, this many of them.")
    ] = None,
    season: Annotated[
        int | None, typer.Option(min=1, help="Forecast: periods of a season, 1 for none; the usual one by default.")
    ] = None,
    known_ahead: Annotated[
        list[str] | None, typer.Option(help="Forecast: column that is known in advance; may be repeated.")
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="Show the newest leaderboard of MODEL and start nothing.")
    ] = False,
    execute: Annotated[
        str | None, typer.Option(help="Run the notebook of a trial of MODEL's newest leaderboard, or `exploration`.")
    ] = None,
    adopt: Annotated[
        str | None, typer.Option(help="Make a model of a trial of MODEL's newest leaderboard; `best` for the first.")
    ] = None,
) -> None:
    """Try all families on a table within minutes; write a leaderboard, and a notebook of plain code for each trial.

    Examples: ml-platform automl --data churn.csv --target Churn --minutes 5; ml-platform automl churn --show;
    ml-platform automl churn --adopt best
    """
    import polars as pl
    from pydantic import ValidationError

    from ml_platform.automl.options import AutomlOptions
    from ml_platform.automl.run import run_automl
    from ml_platform.automl.show import leaderboard_lines
    from ml_platform.distribution import ExtraMissing

    try:
        if show or execute or adopt:
            _on_a_run(model or name, execute=execute, adopt=adopt, adopted_name=name if model else None)
            return
        if model is not None and (data is not None or table is not None):
            stop("say either a model's name, or --from or --data; --name says what a run is called")
        if model is None and not target:
            stop("say which column is predicted: --target <column>")
        options = AutomlOptions(
            target=target,
            id=id,
            time=time,
            group=group,
            task=task.value if task else None,
            metric=metric,
            positive=positive,
            split=split.value if split else None,
            holdout=holdout,
            drop=tuple(drop or ()),
            allow=tuple(allow or ()),
            families=tuple(family or ()),
            minutes=minutes,
            top=top,
            seed=seed,
            horizon=horizon,
            season=season,
            known_ahead=tuple(known_ahead or ()),
        )
        promoter(Settings(), model, "train")
        done = run_automl(
            current_project(), Settings(), options, model=model, name=name, table=table, data=data, tell=say
        )
    except (LookupError, ValueError, OSError, ProjectNotFound, ExtraMissing, ValidationError) as error:
        stop(str(error))
    except pl.exceptions.PolarsError as error:
        stop(f"the rows cannot be read: {error}")
    for line in leaderboard_lines(done.board):
        say(line)
    run = done.board.plan.name
    say(f"Notebooks, plots and leaderboard: {done.folder}")
    say(f"Next: ml-platform automl {run} --adopt best, or open {done.folder / done.board.best.notebook}")


def _on_a_run(run: str | None, *, execute: str | None, adopt: str | None, adopted_name: str | None) -> None:
    """Show the newest run of a name, run one of its notebooks, or adopt one of its trials."""
    from ml_platform.automl.adopt import adopt_trial
    from ml_platform.automl.notebooks import execute_notebook, notebook_metric
    from ml_platform.automl.show import leaderboard_lines
    from ml_platform.automl.store import latest_run

    if run is None:
        stop("say which run: ml-platform automl <name> --show")
    settings = Settings()
    folder, board = latest_run(settings.home, run)
    if adopt is not None:
        project = current_project()
        made = adopt_trial(project, settings, board, adopt, name=adopted_name)
        for path in made.files:
            say(f"wrote {path.relative_to(project.root) if path.is_relative_to(project.root) else path}")
        for note in made.notes:
            say(f"- {note}")
        say(f"Next: ml-platform run {made.name}")
    elif execute == "exploration":
        execute_notebook(folder / board.exploration)
        say(f"ran {folder / board.exploration}")
    elif execute is not None:
        entry = board.entry(execute)
        execute_notebook(folder / entry.notebook)
        value = notebook_metric(folder / entry.notebook)
        same = "the same" if value == entry.holdout else "another"
        say(f"ran {folder / entry.notebook}: {board.plan.metric} {value!r}, {same} as on the leaderboard")
    else:
        for line in leaderboard_lines(board):
            say(line)
        say(f"Notebooks, plots and leaderboard: {folder}")
