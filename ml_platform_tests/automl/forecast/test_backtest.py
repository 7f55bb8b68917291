"""Fits on rolling origins: bars, entries, verdict, pictures; and notebooks, which compute the same to the last bit."""

import ast
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest

from ml_platform.automl.documents import Leaderboard, Plan
from ml_platform.automl.forecast.notebook import exploration_notebook, forecast_notebook
from ml_platform.automl.forecast.pictures import forecast_plots
from ml_platform.automl.forecast.rows import ForecastRows, make_forecast_rows
from ml_platform.automl.forecast.trials import Measured, backtest_trials, judge, measure_trials
from ml_platform.automl.forecast_documents import BARS, ForecastResult
from ml_platform.automl.show import leaderboard_lines
from ml_platform.automl.trial_notebook import RESULT_TAG
from ml_platform.automl.trials import trials_spec
from ml_platform.training.documents import Trial
from ml_platform_tests.automl.forecast.tables import planned, sales

TRIALS = [
    Trial.model_validate(
        {"number": number, "family": family, "params": params, "score": 0.0, "metrics": {"mae": 0.0}, "seconds": 0.0}
    )
    for number, (family, params) in enumerate(
        [("ridge", {"alpha": 1.0}), ("extra_trees", {"n_estimators": 10, "min_samples_leaf": 3})]
    )
]


@pytest.fixture(scope="module")
def judged(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Plan, ForecastRows, list[Measured], ForecastResult, Leaderboard]:
    """A backtest of two trials, with a gap, a short series and one that ended."""
    table = pl.concat([sales(120), sales(20, "c"), sales(90, "d")])
    table = table.filter(pl.int_range(pl.len()) != 100)
    plan = planned(table, tmp_path_factory.mktemp("lake"), known_ahead=("promo",), horizon=7)
    data = make_forecast_rows(plan)
    spec = trials_spec(plan, ["ridge", "extra_trees"], minutes=1)
    measured, note = measure_trials(plan, data, backtest_trials(plan, data, spec, TRIALS, until=np.inf))
    result = judge(plan, data, measured)
    board = Leaderboard(
        plan=plan,
        started=datetime(2026, 1, 1, tzinfo=UTC),
        minutes=1,
        seconds=1,
        trials=2,
        families=("ridge", "extra_trees"),
        higher_is_better=False,
        train_rows=len(data.rows.parts[0]),
        validation_rows=len(data.rows.parts[1]),
        holdout_rows=len(data.rows.parts[2]),
        confidence=0.95,
        blocks="origins",
        entries=Leaderboard.ranked([one.entry for one in measured], higher_is_better=False),
        notes=(result.verdict, note),
        exploration="exploration.ipynb",
        forecast=result,
    )
    return plan, data, measured, result, board


def run_notebook(text: str) -> Any:
    """Run the code of a notebook, and give what its tagged cell evaluates to."""
    mpl.use("agg")
    names: dict[str, Any] = {"display": print}
    value = None
    for cell in text.split("# %%")[1:]:
        head, _, body = cell.partition("\n")
        if "[markdown]" in head:
            continue
        assert "ml_platform" not in body.replace("ml_platform_", "")
        if RESULT_TAG in head:
            value = eval(body, names)
        else:
            ast.parse(body)
            exec(body, names)
    return value


def test_every_notebook_computes_the_figure_of_the_leaderboard(judged: Any) -> None:
    *_, board = judged
    assert {"ridge-0", "extra_trees-1", *BARS} <= {entry.trial for entry in board.entries}
    for entry in board.entries:
        assert run_notebook(forecast_notebook(board, entry)) == entry.holdout, entry.trial


def test_the_exploration_runs(judged: Any) -> None:
    plan, *_ = judged
    text = exploration_notebook(plan)
    assert "missing periods" in text
    run_notebook(text)


def test_the_verdict_compares_with_both_bars_and_every_step(judged: Any) -> None:
    plan, data, measured, result, board = judged
    assert result.beats_naive
    assert result.beats_mean
    assert "beats the seasonal naive forecast (mae " in result.verdict
    assert [one.step for one in result.steps] == [1, 2, 3, 4, 5, 6, 7]
    rows = sum(one.rows for one in result.steps)
    assert rows == board.holdout_rows
    best = next(one for one in measured if one.entry.trial == result.model)
    mean = sum(one.rows * one.best for one in result.steps) / rows
    assert mean == pytest.approx(best.entry.holdout)
    assert set(forecast_plots(plan, data, result, best.forecast)) == {"backtest.png", "error_by_step.png"}
    assert any("seasonal_naive" in line and "no graph" in line for line in leaderboard_lines(board))


def test_the_fit_of_a_fold_does_not_see_what_comes_after_its_origin(judged: Any, tmp_path: Path) -> None:
    plan, data, measured, *_ = judged
    own = plan.forecast
    origin = own.folds[-1].origins[0]
    table = pl.read_delta(plan.uri, version=plan.version)
    later = table.with_columns(
        pl.when(pl.col("day") >= data.rows.frame.filter(pl.Series(data.table["origin"] == origin))["__time"][0])
        .then(pl.col("sales") * 5)
        .otherwise(pl.col("sales"))
    )
    changed = planned(later, tmp_path, known_ahead=("promo",), horizon=7)
    other = make_forecast_rows(changed)
    spec = trials_spec(changed, ["ridge"], minutes=1)
    again, _ = measure_trials(changed, other, backtest_trials(changed, other, spec, TRIALS[:1], until=np.inf))
    judged_rows = data.table[data.rows.parts[2]]
    before = (judged_rows["origin"] <= origin).to_numpy()
    ridge = next(one for one in measured if one.entry.trial == "ridge-0")
    assert before.sum() > 50
    np.testing.assert_array_equal(ridge.forecast[before], again[0].forecast[before])
    assert not np.array_equal(ridge.forecast[~before], again[0].forecast[~before]) or before.all()


def test_a_bar_is_not_adopted(judged: Any) -> None:
    *_, board = judged
    assert board.entry("seasonal_naive").not_exported == "a bar to beat, which needs no model"
