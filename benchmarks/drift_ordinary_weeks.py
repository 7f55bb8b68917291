"""How often an ordinary week of real flights would raise the drift alarm, with and without knowing ordinary weeks.

For each quarter that a model could have been trained on, every week inside it is left out in turn and compared with
the rest: nothing has drifted, so an alarm is false. Then the weeks of September are compared with the first quarter:
there it should ring.

    python benchmarks/drift_ordinary_weeks.py [--home FOLDER]
"""

import argparse
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from _results import write_section
from decay import month_start, training_rows

from ml_platform.features.training_set import FeatureInfo
from ml_platform.monitoring.comparison import Column, missing_name, prepare, with_categories
from ml_platform.monitoring.ordinary import MAX_WINDOW_ROWS, distance_of
from ml_platform.spec import ModelSpec
from ml_platform.training.families import build_estimator, default_params, importance
from ml_platform.training.matrix import FeatureEncoder, encode_labels
from ml_platform.training.metrics import shares

WEEK = timedelta(days=7)
QUARTERS = ((1, 4), (4, 7), (7, 10))
REFERENCE_ROWS = 20_000
FLOOR = 0.1  # `Monitoring.distance`
RULES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "0.1": lambda weeks: np.full(weeks.shape[1], FLOOR),
    "largest of the other weeks, at least 0.1": lambda weeks: np.maximum(weeks.max(axis=0), FLOOR),
    "90th percentile of the other weeks, at least 0.1": lambda weeks: np.maximum(
        np.quantile(weeks, 0.9, axis=0), FLOOR
    ),
}


def weighed_columns(spec: ModelSpec, infos: tuple[FeatureInfo, ...], rows: pl.DataFrame) -> list[Column]:
    """The features with their importance to a LightGBM model of these rows."""
    y = encode_labels(rows[spec.target], spec)
    encoder = FeatureEncoder.fit(rows, infos, y)
    X = encoder.transform(rows)
    params = {**default_params("lightgbm"), "n_estimators": 60}
    model = build_estimator("lightgbm", spec.task, encoder.features, params, 0).fit(X, y)
    weights = shares(importance(model, encoder.features, X))
    return [Column(one.name, one.kind, weights[one.name], one.categories) for one in encoder.features]


def distances(whole: pl.DataFrame, week: pl.DataFrame, columns: list[Column]) -> np.ndarray:
    """Distance of a week from prepared reference rows, per prepared column."""
    part = prepare(week.sample(min(week.height, MAX_WINDOW_ROWS), seed=0), columns)
    return np.array([distance_of(whole[name], part[name]) for name in whole.columns])


def drifted_importance(found: np.ndarray, threshold: np.ndarray, names: list[str], columns: list[Column]) -> float:
    """Share of the importance whose distance, or whose missing values' distance, reaches the threshold."""
    past = {name for name, far in zip(names, found >= threshold, strict=True) if far}
    return sum(one.importance for one in columns if one.name in past or missing_name(one.name) in past)


def weeks_between(rows: pl.DataFrame, spec: ModelSpec, start: datetime, end: datetime) -> list[pl.DataFrame]:
    """Whole weeks of rows from `start`."""
    at = pl.col(spec.timestamp)
    starts = [start + number * WEEK for number in range(int((end - start) / WEEK))]
    return [rows.filter((at >= first) & (at < first + WEEK)) for first in starts]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--home", type=Path, help="Folder whose lake is kept and used again; a temporary one when absent."
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spec, infos, rows = training_rows(options.home or Path(folder))
    at = pl.col(spec.timestamp)
    ordinary: dict[str, list[float]] = {rule: [] for rule in RULES}
    autumn: dict[str, list[float]] = {rule: [] for rule in RULES}
    for first, last in QUARTERS:
        quarter = rows.filter((at >= month_start(first)) & (at < month_start(last)))
        columns = with_categories(weighed_columns(spec, infos, quarter), quarter)
        whole = prepare(quarter.sample(REFERENCE_ROWS, seed=0), columns)
        weeks = weeks_between(quarter, spec, month_start(first), month_start(last))
        # The quarter holds the week too, which hides its share of the distance from the rest (see `ordinary`).
        found = np.array([distances(whole, week, columns) / (1 - week.height / quarter.height) for week in weeks])
        for rule, threshold in RULES.items():
            for number, week in enumerate(found):
                others = threshold(np.delete(found, number, axis=0))
                ordinary[rule].append(drifted_importance(week, others, whole.columns, columns))
            if first == 1:
                for week in weeks_between(rows, spec, month_start(9), month_start(10)):
                    far = distances(whole, week, columns)
                    autumn[rule].append(drifted_importance(far, threshold(found), whole.columns, columns))
    bound = spec.monitoring.min_drift_importance
    lines = [
        f"Alarm: features with at least {bound:.0%} of the importance are past their threshold (with 6,000 rows a week "
        "every difference of that size is significant); the prediction is left out.",
        "",
        "| threshold of a column | weeks left out of their quarter: alarms | importance, mean "
        "| September after a winter: alarms | importance, mean |",
        "|---|---|---|---|---|",
    ]
    for rule in RULES:
        cells = []
        for shares_ in (ordinary[rule], autumn[rule]):
            cells += [f"{sum(share >= bound for share in shares_)} of {len(shares_)}", f"{np.mean(shares_):.0%}"]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    command = "python benchmarks/drift_ordinary_weeks.py"
    print(write_section("Drift: ordinary weeks of real flights", command, lines, packages=("lightgbm", "scipy")))


if __name__ == "__main__":
    main()
