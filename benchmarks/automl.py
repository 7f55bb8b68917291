"""AutoML beside FLAML and a search over HistGradientBoosting, at equal budgets of time, on the same holdout rows.

Takes the tables `telco_churn.csv`, `dry_bean.csv` and `bike_hourly.csv` from a folder. All contenders learn from the
same rows and inputs, choose for themselves on the rows before the holdout, and are measured on the holdout once. FLAML
runs in an environment of its own, with its defaults but for a split by time.

    python benchmarks/automl.py --tables FOLDER [--minutes 2] [--flaml PYTHON]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from _results import write_section

from ml_platform.automl.documents import Entry, Plan
from ml_platform.automl.frame import LABEL, AutomlRows, feature_infos, read_plan_rows
from ml_platform.automl.options import AutomlOptions
from ml_platform.automl.plain.blending import blend
from ml_platform.automl.plain.metrics import METRICS
from ml_platform.automl.run import AutomlRun, run_automl
from ml_platform.automl.trials import interval_blocks, trials_spec, values_of
from ml_platform.project import current_project
from ml_platform.settings import Settings
from ml_platform.training.candidate_fit import fit_candidate
from ml_platform.training.evaluation.cluster_interval import gain_interval, metric_interval

CONTENDERS = Path(__file__).with_name("_automl_contenders.py")


@dataclass(frozen=True)
class Case:
    """A table, what is asked of it, and the least that AutoML should reach."""

    table: str
    target: str
    metric: str
    bound: float
    holdout: str | None = None
    drop: tuple[str, ...] = ()


CASES = (
    Case("telco_churn", "Churn", "roc_auc", 0.845),
    Case("dry_bean", "Class", "accuracy", 0.925),
    Case("bike_hourly", "cnt", "rmsle", 0.40, holdout="2012-10-01", drop=("casual", "registered")),
)


def main() -> None:
    """Run all cases and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True, help="folder with the three CSV files")
    parser.add_argument("--minutes", type=float, default=2.0, help="budget of each contender on each table")
    parser.add_argument("--flaml", default=sys.executable, help="Python of an environment with flaml[automl]")
    arguments = parser.parse_args()
    lines = [
        f"Budget: {arguments.minutes:g} min for each contender on each table, on a machine that does other work, "
        "too. The best by the validation rows is measured on the holdout. *Gain*: of AutoML over the contender on the "
        "same rows, positive is better. Intervals of 95 %, over days (bike_hourly) or rows.",
        "",
        "| table | metric | contender | holdout | interval | AutoML's gain | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in CASES:
        lines += run_case(case, arguments.tables, arguments.minutes, arguments.flaml)
    command = f"python benchmarks/automl.py --tables FOLDER --minutes {arguments.minutes:g} --flaml PYTHON"
    packages = ("scikit-learn", "lightgbm", "xgboost-cpu", "catboost", "optuna")
    print(write_section("AutoML beside FLAML and HistGradientBoosting", command, lines, packages=packages))


def run_case(case: Case, tables: Path, minutes: float, flaml: str) -> Iterator[str]:
    """Measure all contenders on one table."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "home")
        options = AutomlOptions(
            target=case.target, metric=case.metric, holdout=case.holdout, drop=case.drop, minutes=minutes
        )
        run = run_automl(current_project(), settings, options, data=tables / f"{case.table}.csv", tell=print)
        plan, best = run.board.plan, run.board.best
        rows = read_plan_rows(plan)
        ours = scores_of(run, rows, best)
        y, learned = rows.y[rows.parts[2]], rows.y[rows.before_holdout]
        if METRICS[case.metric](y, ours) != best.holdout:
            raise RuntimeError(f"{case.table}: fitted again, {best.trial} has another {case.metric} than before")
        blocks, _ = interval_blocks(plan, rows)
        yield _line(case, f"AutoML: {best.trial}", y, ours, None, blocks, run.board.seconds, plan.task)
        hand_over(Path(folder), rows, plan)
        for name, python in (("flaml", flaml), ("hist_gradient_boosting", sys.executable)):
            started = time.perf_counter()
            subprocess.run([python, str(CONTENDERS), name, folder, str(60 * minutes)], check=True)
            seconds = time.perf_counter() - started
            theirs = values_of(plan, np.load(Path(folder) / f"{name}.npy"), learned)
            yield _line(case, name, y, theirs, ours, blocks, seconds, plan.task)


def scores_of(run: AutomlRun, rows: AutomlRows, entry: Entry) -> np.ndarray:
    """Fit an entry again and score the holdout rows."""
    plan = run.board.plan
    spec = trials_spec(plan, [member.family for member in entry.members], minutes=1)
    before, holdout = rows.frame[rows.before_holdout], rows.frame[rows.parts[2]]
    scores = [
        fit_candidate(spec, feature_infos(plan), before, member.family, member.params).predict(holdout)
        for member in entry.members
    ]
    score = blend(scores, [member.weight for member in entry.members])
    return values_of(plan, score, rows.y[rows.before_holdout])


def hand_over(folder: Path, rows: AutomlRows, plan: Plan) -> None:
    """Write the inputs and labels of both parts, for the contenders."""
    inputs = rows.frame.select(pl.exclude("^__.*$"))
    label = rows.frame.get_column(LABEL) if plan.task == "regression" else pl.Series(rows.y)
    train, _, holdout = rows.parts
    inputs.with_columns(label.alias("label"))[rows.before_holdout].write_parquet(folder / "before.parquet")
    inputs[holdout].write_parquet(folder / "holdout.parquet")
    facts = {"task": plan.task, "train": len(train), "by_time": plan.split.kind == "time"}
    (folder / "facts.json").write_text(json.dumps(facts))


def _line(  # noqa: PLR0917 - private
    case: Case,
    name: str,
    y: np.ndarray,
    score: np.ndarray,
    ours: np.ndarray | None,
    blocks: np.ndarray,
    seconds: float,
    task: str,
) -> str:
    interval = metric_interval(case.metric, task, y, score, blocks=blocks)  # type: ignore[arg-type]
    told = f"{interval.lower:.4f} to {interval.upper:.4f}" if interval else "undefined"
    won = ""
    if ours is not None:
        gain = gain_interval(case.metric, task, y, ours, score, blocks=blocks)  # type: ignore[arg-type]
        won = f"{gain.estimate:+.4f} [{gain.lower:+.4f}, {gain.upper:+.4f}]" if gain else "undefined"
    value = METRICS[case.metric](y, score)
    return f"| {case.table} | {case.metric} | {name} | {value:.4f} | {told} | {won} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
