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
from ml_platform.monitoring.comparison import KS_SHARE, Column
from ml_platform.monitoring.ordinary import MAX_WINDOW_ROWS, distances_of
from ml_platform.spec import ModelSpec, Monitoring
from ml_platform.training.families import build_estimator, default_params, importance
from ml_platform.training.matrix import FeatureEncoder, encode_labels
from ml_platform.training.metrics import shares

WEEK = timedelta(days=7)
QUARTERS = ((1, 4), (4, 7), (7, 10))
REFERENCE_ROWS = 20_000
MONITORING = Monitoring()
Distances = dict[str, float]  # by test
RULES: dict[str, Callable[[list[float]], float]] = {
    "the least that counts": lambda _: 0.0,
    "largest of the other weeks": max,
    "90th percentile of the other weeks": lambda weeks: float(np.quantile(weeks, 0.9)),
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


def distances(whole: pl.DataFrame, weeks: list[pl.DataFrame], columns: list[Column]) -> list[Distances]:
    """Distance of each week from reference rows, by test."""
    parts = [week.sample(min(week.height, MAX_WINDOW_ROWS), seed=0) for week in weeks]
    by_column = [distances_of(column, whole[column.name], [part[column.name] for part in parts]) for column in columns]
    return [{name: far for found in by_column for name, far in found[number].items()} for number in range(len(weeks))]


def threshold(name: str, weeks: list[Distances], rule: Callable[[list[float]], float]) -> float:
    """Threshold of a test: what its rule says of the weeks, and at least what `monitoring.distance` does."""
    floor = MONITORING.distance * (KS_SHARE if name.endswith(": distribution") else 1.0)
    return max(floor, rule([week.get(name, 0.0) for week in weeks]))


def drifted_importance(
    found: Distances, weeks: list[Distances], rule: Callable[[list[float]], float], columns: list[Column]
) -> float:
    """Share of the importance of columns of which some test reaches its threshold."""
    past = {name.rpartition(": ")[0] for name, far in found.items() if far >= threshold(name, weeks, rule)}
    return sum(one.importance for one in columns if one.name in past)


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
        columns = weighed_columns(spec, infos, quarter)
        whole = quarter.sample(REFERENCE_ROWS, seed=0)
        weeks = weeks_between(quarter, spec, month_start(first), month_start(last))
        # The quarter holds the week too, which hides its share of the distance from the rest (see `ordinary`).
        found = [
            {name: far / (1 - week.height / quarter.height) for name, far in measured.items()}
            for week, measured in zip(weeks, distances(whole, weeks, columns), strict=True)
        ]
        for rule, of_weeks in RULES.items():
            for number, week in enumerate(found):
                others = found[:number] + found[number + 1 :]
                ordinary[rule].append(drifted_importance(week, others, of_weeks, columns))
        if first == 1:
            september = weeks_between(rows, spec, month_start(9), month_start(10))
            for far in distances(whole, september, columns):
                for rule, of_weeks in RULES.items():
                    autumn[rule].append(drifted_importance(far, found, of_weeks, columns))
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
