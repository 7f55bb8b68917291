"""How often an ordinary week of real flights would raise the drift alarm, with and without knowing ordinary weeks.

For each quarter that a model could have been trained on, every week inside it is left out in turn and compared with
the rest as a drift report does. Nothing of the process has changed, so an alarm tells of the week itself: what drifted
then is listed. The weeks of September are compared with the first quarter: there it should ring.

    python benchmarks/drift_ordinary_weeks.py [--home FOLDER] [--every 1]
"""

import argparse
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from _results import write_section
from decay import month_start, training_rows

from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.inference.matrix import FeatureEncoder, encode_labels
from ml_platform.monitoring.drift.comparison import ColumnDrift, DriftColumn, compare
from ml_platform.monitoring.drift.detect import MAX_COMPARED_ROWS
from ml_platform.monitoring.drift.seasonal_baseline import baseline_distances
from ml_platform.spec.model import ModelSpec
from ml_platform.training.evaluation.metrics import shares
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.registry import get_family

WEEK = timedelta(days=7)
QUARTERS = ((1, 4), (4, 7), (7, 10))
TREES = 60  # enough for importances
RULES = ("`distance` alone", "raised to 1.25 times the largest distance of the other weeks (the default)")
TOLD = 3  # columns of a week that alarms
Found = dict[str, list[list[ColumnDrift]]]  # rule → drifted columns, per week


def weighed_columns(spec: ModelSpec, infos: tuple[FeatureInfo, ...], rows: pl.DataFrame) -> list[DriftColumn]:
    """The features with their importance to a LightGBM model of these rows."""
    y = encode_labels(rows[spec.target], spec)
    encoder = FeatureEncoder.fit(rows, infos, y)
    X = encoder.transform(rows)
    lightgbm = get_family("lightgbm")
    params = {**lightgbm.default_params(spec.task), "n_estimators": TREES}
    model = train_estimator(lightgbm, spec.task, encoder.features, params, 0, X, y)
    weights = shares(lightgbm.importance(model, spec.task, encoder.features, X))
    return [DriftColumn(one.name, one.kind, weights[one.name], one.categories) for one in encoder.features]


def drifted_columns(
    spec: ModelSpec, reference: pl.DataFrame, weeks: Sequence[pl.DataFrame], columns: Sequence[DriftColumn]
) -> Found:
    """What of each week has drifted from the reference, by rule."""
    ordinary = baseline_distances(
        reference, columns, timestamp=spec.timestamp, window=WEEK, min_rows=spec.monitoring.min_rows
    )
    compared = reference.sample(min(reference.height, MAX_COMPARED_ROWS), seed=0)
    found: Found = {rule: [] for rule in RULES}
    for week in weeks:
        for rule, usual in zip(RULES, (None, ordinary), strict=True):
            judged, _ = compare(compared, week, columns, spec.monitoring, baseline=usual)
            found[rule].append([one for one in judged if one.drifted])
    return found


def share(drifted: Sequence[ColumnDrift]) -> float:
    """Of the importance."""
    return sum(one.importance for one in drifted)


def told(weeks: Mapping[datetime, Sequence[ColumnDrift]]) -> list[str]:
    """A line per week that alarms, with the weightiest columns and the worst test of each."""
    lines = []
    for week, drifted in weeks.items():
        weighty = sorted(drifted, key=lambda one: -one.importance)[:TOLD]
        names = "; ".join(f"`{one.column}` {next(test.text for test in one.tests if test.drifted)}" for one in weighty)
        lines.append(f"- {week:%d %B}, {share(drifted):.0%} of the importance: {names}")
    return lines


def whole_weeks(start: datetime, end: datetime) -> list[datetime]:
    """First instants of the whole weeks from `start`."""
    return [start + number * WEEK for number in range(int((end - start) / WEEK))]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--home", type=Path, help="Folder whose lake is kept and used again; a temporary one when absent."
    )
    parser.add_argument("--every", type=int, default=1, help="Leave out each n-th week only.")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        spec, infos, rows = training_rows(options.home or Path(folder))
    at = pl.col(spec.timestamp)
    bound = spec.monitoring.min_drift_importance
    ordinary: Found = {rule: [] for rule in RULES}
    loud: dict[datetime, list[ColumnDrift]] = {}  # by the default rule
    autumn: Found = {}
    for first, last in QUARTERS:
        start, end = month_start(first), month_start(last)
        quarter = rows.filter((at >= start) & (at < end))
        columns = weighed_columns(spec, infos, quarter)
        for left_out in whole_weeks(start, end)[:: options.every]:
            inside = (at >= left_out) & (at < left_out + WEEK)
            found = drifted_columns(spec, quarter.filter(~inside), [quarter.filter(inside)], columns)
            print(f"{left_out:%d %B}", {rule: round(share(week), 2) for rule, (week,) in found.items()}, flush=True)
            for rule, (week,) in found.items():
                ordinary[rule].append(week)
            if share(week) >= bound:
                loud[left_out] = week
        if not autumn:
            weeks = [
                rows.filter((at >= week) & (at < week + WEEK)) for week in whole_weeks(month_start(9), month_start(10))
            ]
            autumn = drifted_columns(spec, quarter, weeks, columns)
            print("September", {rule: [round(share(week), 2) for week in found] for rule, found in autumn.items()})
    lines = [
        f"Alarm: features with at least {bound:.0%} of the importance have drifted (significance "
        f"{spec.monitoring.significance}, distance {spec.monitoring.distance}); the prediction is left out. Of each "
        f"quarter {'every week is' if options.every == 1 else f'one week in {options.every} is'} left out in turn; "
        f"importances of {TREES} trees of LightGBM.",
        "",
        "| threshold of a test | weeks left out of their quarter: alarms | importance, mean "
        "| September after a winter: alarms | importance, mean |",
        "|---|---|---|---|---|",
    ]
    for rule in RULES:
        cells = []
        for weeks_ in (ordinary[rule], autumn[rule]):
            shares_ = [share(week) for week in weeks_]
            cells += [f"{sum(one >= bound for one in shares_)} of {len(shares_)}", f"{np.mean(shares_):.0%}"]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    lines += ["", "The weeks that alarm by default, and what of them is unlike their quarter:", "", *told(loud)]
    command = "python benchmarks/drift_ordinary_weeks.py" + (f" --every {options.every}" if options.every > 1 else "")
    packages = ("lightgbm", "polars", "scipy")
    print(write_section("Drift: ordinary weeks of real flights", command, lines, packages=packages))


if __name__ == "__main__":
    main()
