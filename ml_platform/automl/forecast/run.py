"""A run of forecasts from rows to files: plan, search, rolling backtest, verdict, notebooks, pictures."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ml_platform.automl.documents import Entry, Leaderboard, Plan
from ml_platform.automl.forecast.notebook import exploration_notebook, forecast_notebook
from ml_platform.automl.forecast.pictures import forecast_plots
from ml_platform.automl.forecast.plan import plan_forecast
from ml_platform.automl.forecast.rows import forecast_of, make_forecast_rows
from ml_platform.automl.forecast.trials import backtest_trials, judge, measure_trials
from ml_platform.automl.forecast_documents import BARS, ForecastResult
from ml_platform.automl.notebooks import write_notebook
from ml_platform.automl.options import AutomlOptions
from ml_platform.automl.plan import TableSource
from ml_platform.automl.show import leaderboard_markdown, leaderboard_plot
from ml_platform.automl.store import EXPLORATION, store_run, write_leaderboard
from ml_platform.automl.trials import (
    CONFIDENCE,
    SEARCH_SHARE,
    automl_families,
    leading_trials,
    run_search,
    trials_spec,
)
from ml_platform.registry.tracking import PLOTS, Tracker
from ml_platform.settings import Settings

_FITS_SHARE = 0.9  # of the budget by which the backtests of leading trials should be done


def run_forecast(
    settings: Settings,
    source: TableSource,
    options: AutomlOptions,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Path, Leaderboard]:
    """Search on a table's series, backtest the best trials on rolling origins, and write what came of it.

    Parameters
    ----------
    settings
        Where MLflow and the runs' folders are.
    source
        The table.
    options
        What is decided already; `horizon` is.
    tell
        Gets one line for each step.

    Returns
    -------
    tuple
        Folder of the run, and its leaderboard.

    Raises
    ------
    LookupError
        When there is no such column.
    ValueError
        When the rows are no series that can be forecast, with what to do.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    tracker = Tracker(settings)
    plan = plan_forecast(source, options)
    families = automl_families(plan.task, options.families)
    for one in plan.decisions:
        tell(f"{one.what}: {one.value} ({one.why})" + (f"  [{one.option}]" if one.option else ""))
    data = make_forecast_rows(plan)
    spec = trials_spec(plan, families, minutes=SEARCH_SHARE * options.minutes)
    tell(f"searching {', '.join(families)} for {SEARCH_SHARE * options.minutes:.1f} minutes ...")
    with tracker.run(plan.name, "automl", tags={"stage": "automl"}) as run_id:
        result = run_search(plan, data.rows, spec, tracker, tell)
        until = clock + 60 * _FITS_SHARE * options.minutes
        trials = backtest_trials(plan, data, spec, leading_trials(result, options.top), until=until, tell=tell)
        measured, note = measure_trials(plan, data, trials)
        verdict = judge(plan, data, measured)
        train, validation, holdout = (len(part) for part in data.rows.parts)
        board = Leaderboard(
            plan=plan,
            started=started,
            minutes=options.minutes,
            seconds=time.perf_counter() - clock,
            trials=len(result.candidates),
            families=families,
            higher_is_better=False,
            train_rows=train,
            validation_rows=validation,
            holdout_rows=holdout,
            confidence=CONFIDENCE,
            blocks=f"{len(forecast_of(plan).origins)} origins",
            entries=Leaderboard.ranked([one.entry for one in measured], higher_is_better=False),
            notes=(verdict.verdict, _step_note(plan, verdict), note),
            exploration=EXPLORATION,
            forecast=verdict,
        ).with_run(run_id, tracker.run_url(run_id))
        best = next(one for one in measured if one.entry.trial == verdict.model)
        plots = {"leaderboard.png": leaderboard_plot(board), **forecast_plots(plan, data, verdict, best.forecast)}
        folder = store_run(settings.home, plan.name, started, lambda empty: _write_files(empty, board, plots))
        _track(tracker, board, best.entry, folder)
    return folder, board


def _step_note(plan: Plan, result: ForecastResult) -> str:
    """Errors of the first, the middle and the last step, in one line."""
    steps = result.steps
    shown = sorted({0, len(steps) // 2, len(steps) - 1})
    summary = ", ".join(
        f"step {steps[place].step}: {steps[place].best:.4g} (seasonal naive {steps[place].seasonal_naive:.4g})"
        for place in shown
    )
    return f"{plan.metric} of {result.model} by step: {summary}."


def _steps_markdown(board: Leaderboard, result: ForecastResult) -> str:
    lines = [f"| step | forecasts | {board.plan.metric}, {result.model} | seasonal naive |", "|---|---|---|---|"]
    lines += [f"| {one.step} | {one.rows} | {one.best:.5g} | {one.seasonal_naive:.5g} |" for one in result.steps]
    return f"\n{result.verdict}\n\n" + "\n".join(lines) + "\n"


def _write_files(folder: Path, board: Leaderboard, plots: dict[str, bytes]) -> None:
    assert board.forecast is not None
    (folder / PLOTS).mkdir()
    for name, image in plots.items():
        (folder / PLOTS / name).write_bytes(image)
    write_notebook(exploration_notebook(board.plan), folder / board.exploration)
    for entry in board.entries:
        write_notebook(forecast_notebook(board, entry), folder / entry.notebook)
    text = leaderboard_markdown(board) + _steps_markdown(board, board.forecast)
    (folder / "leaderboard.md").write_text(text, encoding="utf-8")
    write_leaderboard(folder, board)


def _track(tracker: Tracker, board: Leaderboard, best: Entry, folder: Path) -> None:
    """Log the leaderboard, its figures and all files of the run's folder."""
    plan, own = board.plan, forecast_of(board.plan)
    params = {"table": plan.table, "table_version": plan.version, "metric": plan.metric, "split": "rolling origins"}
    params |= {"horizon": own.horizon, "season": own.season, "best": best.trial, "trials": board.trials}
    figures = {"validation": best.validation, "holdout": best.holdout}
    figures |= {bar: board.entry(bar).holdout for bar in BARS}
    tracker.log(board.run_id, params={**params, "minutes": board.minutes, "seed": plan.seed}, metrics=figures)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
    tracker.log_files(board.run_id, files)
