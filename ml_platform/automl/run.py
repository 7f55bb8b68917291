"""A run of AutoML from rows to files: plan, leak check, search, leaderboard, notebooks, and what MLflow keeps."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ml_platform.automl.documents import ENSEMBLE, Leaderboard
from ml_platform.automl.exploration_notebook import exploration_notebook
from ml_platform.automl.forecast.run import run_forecast
from ml_platform.automl.frame import AutomlRows, read_plan_rows
from ml_platform.automl.leaks import check_leaks
from ml_platform.automl.notebooks import require_notebooks, write_notebook
from ml_platform.automl.options import AutomlOptions
from ml_platform.automl.plan import PlannedTable, higher_is_better
from ml_platform.automl.show import leaderboard_markdown, leaderboard_plot
from ml_platform.automl.sources import plan_data, plan_model, table_source
from ml_platform.automl.store import EXPLORATION, store_run, write_leaderboard
from ml_platform.automl.trial_notebook import trial_notebook
from ml_platform.automl.trials import (
    CONFIDENCE,
    SEARCH_SHARE,
    FittedTrial,
    automl_families,
    fit_trials,
    leading_trials,
    make_entries,
    run_search,
    trials_spec,
    values_of,
)
from ml_platform.lake.storage.tables import Lake
from ml_platform.project import Project
from ml_platform.registry.tracking import PLOTS, Tracker
from ml_platform.settings import Settings
from ml_platform.training.artifacts.plots import model_plots

_FITS_SHARE = 0.8  # of the budget by which the fits of leading trials should be done


@dataclass(frozen=True)
class AutomlRun:
    """A run that is done.

    Attributes
    ----------
    folder
        With `leaderboard.json`, the notebooks and the plots.
    board
        The leaderboard.
    """

    folder: Path
    board: Leaderboard


def run_automl(
    project: Project,
    settings: Settings,
    options: AutomlOptions,
    *,
    model: str | None = None,
    name: str | None = None,
    table: str | None = None,
    data: Path | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> AutomlRun:
    """Try all families on a table, a file or a model's training set, and write what was found.

    Parameters
    ----------
    project
        Whose lake and models these are.
    settings
        Where lake, MLflow and the runs' folders are.
    options
        What is decided already.
    model
        A model of the project, whose training set is taken.
    name
        What the run is called; the table or the file names it when None.
    table, data
        A table of the lake, or a file.
    tell
        Gets one line for each step.

    Raises
    ------
    LookupError
        When there is no such model, table or column.
    LeakFound
        When an input gives the label away; nothing is tried then.
    ValueError
        When nothing can be learned from the rows, or options contradict them.
    ExtraMissing
        When the extra `notebooks` is not installed.
    """
    require_notebooks()
    started, clock = datetime.now(UTC), time.perf_counter()
    lake, tracker = Lake(settings.lake_uri), Tracker(settings)
    if options.horizon is not None:
        if model is not None:
            raise ValueError("--horizon wants a table, --from or --data: a model's training set is no series")
        source = table_source(lake, name=name, table=table, data=data)
        return AutomlRun(*run_forecast(settings, source, options, tell=tell))
    if model is not None:
        planned = PlannedTable(plan_model(project, lake, model, options), ())
    else:
        planned = plan_data(lake, options, name=name, table=table, data=data)
    plan = planned.plan
    families = automl_families(plan.task, options.families)
    for one in plan.decisions:
        tell(f"{one.what}: {one.value} ({one.why})" + (f"  [{one.option}]" if one.option else ""))
    rows = read_plan_rows(plan)
    notes: list[str] = []
    if model is None:  # a model's training set was checked when it was made
        notes += check_leaks(plan, rows, planned.inputs, options.allow)
    for note in notes:
        tell(note)
    spec = trials_spec(plan, families, minutes=SEARCH_SHARE * options.minutes)
    tell(f"searching {', '.join(families)} for {SEARCH_SHARE * options.minutes:.1f} minutes ...")
    with tracker.run(plan.name, "automl", tags={"stage": "automl"}) as run_id:
        result = run_search(plan, rows, spec, tracker, tell)
        trials = fit_trials(
            plan, rows, spec, leading_trials(result, options.top),
            until=clock + 60 * _FITS_SHARE * options.minutes, tell=tell,
        )  # fmt: skip
        entries, note, blocks = make_entries(plan, rows, trials)
        better = higher_is_better(plan.metric)
        board = Leaderboard(
            plan=plan,
            started=started,
            minutes=options.minutes,
            seconds=time.perf_counter() - clock,
            trials=len(result.candidates),
            families=families,
            higher_is_better=better,
            train_rows=len(rows.parts[0]),
            validation_rows=len(rows.parts[1]),
            holdout_rows=len(rows.parts[2]),
            confidence=CONFIDENCE,
            blocks=blocks,
            entries=Leaderboard.ranked(entries, higher_is_better=better),
            notes=(note, *notes),
            exploration=EXPLORATION,
        ).with_run(run_id, tracker.run_url(run_id))
        plots = _plots(board, rows, trials)
        folder = store_run(settings.home, plan.name, started, lambda empty: _write_files(empty, board, plots))
        _track(tracker, board, folder)
    return AutomlRun(folder, board)


def _plots(board: Leaderboard, rows: AutomlRows, trials: list[FittedTrial]) -> dict[str, bytes]:
    """Pictures of the leaderboard, and of the best trial that is not the ensemble."""
    best = next(entry for entry in board.entries if entry.trial != ENSEMBLE)
    one = next(trial for trial in trials if trial.name == best.trial)
    y, score = rows.y[rows.parts[2]], values_of(board.plan, one.holdout, rows.y[rows.before_holdout])
    images = model_plots(board.plan.task, y, score, one.fitted.importance(), classes=board.plan.classes)
    return {
        "leaderboard.png": leaderboard_plot(board),
        **{f"{best.trial}-{name}": image for name, image in images.items()},
    }


def _write_files(folder: Path, board: Leaderboard, plots: dict[str, bytes]) -> None:
    (folder / PLOTS).mkdir()
    for name, image in plots.items():
        (folder / PLOTS / name).write_bytes(image)
    write_notebook(exploration_notebook(board.plan), folder / board.exploration)
    for entry in board.entries:
        write_notebook(trial_notebook(board, entry), folder / entry.notebook)
    (folder / "leaderboard.md").write_text(leaderboard_markdown(board), encoding="utf-8")
    write_leaderboard(folder, board)


def _track(tracker: Tracker, board: Leaderboard, folder: Path) -> None:
    """Log the leaderboard, its figures and all files of the run's folder."""
    best, plan = board.best, board.plan
    params = {"table": plan.table, "table_version": plan.version, "metric": plan.metric, "split": plan.split.kind}
    figures = {"validation": best.validation, "holdout": best.holdout}
    bounds = {"holdout_lower": best.lower, "holdout_upper": best.upper}
    figures |= {name: value for name, value in bounds.items() if value is not None}
    tracker.log(
        board.run_id,
        params={**params, "best": best.trial, "trials": board.trials, "minutes": board.minutes, "seed": plan.seed},
        metrics=figures,
    )
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
    tracker.log_files(board.run_id, files)
