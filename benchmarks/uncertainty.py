"""Whether probabilities and intervals of the flights are what they say, month by month, as labels come.

Builds lake, feature views and training sets with the engine in a folder of its own. LightGBM models that know the first
quarter of 2013 answer the rest of the year day by day, as they would have been served: each day by the calibration and
the intervals that the engine makes of the answers whose labels are there by then. A label is there at the end of the
day after its flight's (a day late), or of the seventh day after it (a week late).

    python benchmarks/uncertainty.py [--home FOLDER]
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from _results import ROOT, write_section
from decay import MONTHS, VALIDATION, month_start

from ml_platform.defs.flights.tables import RAW_TABLES
from ml_platform.features.training_sets.build import build_training_set
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.load import load_views
from ml_platform.inference.calibration import calibrated
from ml_platform.inference.intervals import class_sets, interval_bounds
from ml_platform.inference.matrix import FeatureEncoder, encode_labels
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.performance.answers import Answers
from ml_platform.monitoring.recalibration.adapt import adapt
from ml_platform.monitoring.recalibration.judge import learned
from ml_platform.monitoring.recalibration.labelled_answers import LabelledAnswers
from ml_platform.registry.manifest import Calibration, Conformal
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import load_spec
from ml_platform.training.data.split import read_rows
from ml_platform.training.evaluation.calibration import expected_calibration_error
from ml_platform.training.families.fitting import train_estimator
from ml_platform.training.families.registry import get_family
from ml_platform.training.uncertainty.conformal import conformal_of
from ml_platform.training.uncertainty.platt import fit_platt

DEFS = ROOT / "ml_platform" / "defs"
LEVEL = 0.9
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Answered:
    """A model's answers to the rest of the year, and what it knew of its own before."""

    spec: ModelSpec
    y: np.ndarray
    score: np.ndarray
    days: np.ndarray  # since 1970 (UTC)
    calibration: Calibration | None  # of validation rows
    conformal: Conformal | None  # likewise


def answered(home: Path, name: str) -> Answered:
    """Train on the first quarter, as the engine does, and answer what comes after it."""
    lake, views = Lake(str(home / "lake")), load_views(DEFS / "features")
    spec = load_spec(DEFS / name / "defs.yaml", {view: one.columns.keys() for view, one in views.items()})
    for table in RAW_TABLES:
        if not lake.exists(table.name):
            table.load(lake)
    for lookup in spec.lookups:
        if not lake.exists(views[lookup.view].table):
            compute_view(lake, views[lookup.view])
    ref = build_training_set(lake, spec, DEFS / name, views)
    rows, begin = read_rows(lake, spec, ref), month_start(MONTHS[0])
    known = rows.filter(pl.col(spec.label_available_at) < begin)
    recent = (known[spec.timestamp] >= begin - VALIDATION).to_numpy()
    y = encode_labels(known[spec.target], spec)
    encoder = FeatureEncoder.fit(known, ref.features, y)
    X, family = encoder.transform(known), get_family("lightgbm")
    params, seed = family.default_params(spec.task), spec.tuning.seed
    trial = train_estimator(
        family, spec.task, encoder.features, params, seed, X[~recent], y[~recent], (X[recent], y[recent])
    )
    final = train_estimator(family, spec.task, encoder.features, family.fitted_params(trial, params), seed, X, y)
    validation, early = known.filter(pl.Series(recent)), family.predict(trial, spec.task, X[recent])
    calibration = None
    if spec.task == "binary":
        calibration = fit_platt(
            spec.task, y[recent], early, fitted_on="validation", first=begin - VALIDATION, last=begin
        )
        early = calibrated(calibration, early)
    later = rows.filter(pl.col(spec.timestamp) >= begin)
    return Answered(
        spec,
        encode_labels(later[spec.target], spec),
        family.predict(final, spec.task, encoder.transform(later)),
        later[spec.timestamp].dt.epoch("d").to_numpy(),
        calibration,
        conformal_of(spec, validation, y[recent], early),
    )


def day_by_day(model: Answered) -> Iterator[tuple[int, np.ndarray]]:
    """Each day, and which rows are of it."""
    for day in np.unique(model.days).tolist():
        yield day, model.days == day


def labels_by(model: Answered, score: np.ndarray, day: int, late: int) -> LabelledAnswers | None:
    """Answers whose labels are there when a day begins."""
    there = model.days <= day - 1 - late
    if not there.any():
        return None
    ones = np.ones(int(there.sum()))
    return LabelledAnswers(Answers(model.y[there], score[there], ones, model.days[there]), late, ())


def calibrated_daily(model: Answered, late: int) -> np.ndarray:
    """The probabilities that each day is answered with, learned anew on the newest labelled week."""
    assert model.calibration is not None
    served = np.empty(len(model.y))
    window, current = round(model.spec.recalibration.window / timedelta(days=1)), model.calibration
    for day, rows in day_by_day(model):
        labelled = labels_by(model, model.score, day, late)
        if labelled is not None:
            newest = labelled.days[-1]
            week = labelled.of_days(newest - window + 1, newest)
            if week.rows >= model.spec.recalibration.min_rows:
                current = learned(model.spec, week)
        served[rows] = calibrated(current, model.score[rows])
    return served


def intervals_daily(model: Answered, score: np.ndarray, late: int, *, gamma: float) -> tuple[np.ndarray, np.ndarray]:
    """Whether each label was within the interval or set that was served, and how wide that was."""
    rules = model.spec.recalibration.model_copy(update={"gamma": gamma})
    spec = model.spec.model_copy(update={"recalibration": rules})
    held, width, state = np.zeros(len(score), dtype=bool), np.empty(len(score)), None
    for day, rows in day_by_day(model):
        labelled = labels_by(model, score, day, late)
        if labelled is not None:
            now = datetime.combine(EPOCH, datetime.min.time(), UTC) + timedelta(days=day)
            state = adapt(labelled, spec, "0" * 64, base=model.conformal, before=state, now=now)
        conformal = state.conformal if state else model.conformal
        assert conformal is not None
        held[rows], width[rows] = judged(spec, conformal, model.y[rows], score[rows])
    return held, width


def judged(spec: ModelSpec, conformal: Conformal, y: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which labels a day's intervals or sets hold, and how wide these are."""
    if spec.task == "regression":
        low, high = interval_bounds(conformal, LEVEL)
        return (y >= score + low) & (y <= score + high), np.full(len(y), high - low)
    sets = class_sets(conformal, LEVEL, score)
    return sets[np.arange(len(y)), y.astype(np.int64)], sets.sum(axis=1).astype(np.float64)


def by_month(model: Answered) -> list[tuple[str, np.ndarray]]:
    """Months and their rows."""
    months = np.array([(EPOCH + timedelta(days=int(day))).month for day in model.days])
    return [(f"{month_start(month):%b}", months == month) for month in MONTHS]


def calibration_lines(model: Answered) -> list[str]:
    """A line for each month: the calibration error raw, calibrated once, and learned anew."""
    assert model.calibration is not None
    ways = {
        "the model's own": model.score,
        "Platt, once": calibrated(model.calibration, model.score),
        "Platt daily, labels a day late": calibrated_daily(model, 1),
        "a week late": calibrated_daily(model, 7),
    }
    lines = [f"| month | late | {' | '.join(ways)} |", "|---|---|" + "---|" * len(ways)]
    errors = []
    for name, rows in by_month(model):
        found = [expected_calibration_error("binary", model.y[rows], score[rows]) for score in ways.values()]
        errors.append(found)
        lines.append(f"| {name} | {model.y[rows].mean():.3f} | " + " | ".join(f"{one:.4f}" for one in found) + " |")
    mean, largest = np.mean(errors, axis=0), np.max(errors, axis=0)
    lines.append("| **mean** | | " + " | ".join(f"{one:.4f}" for one in mean) + " |")
    lines.append("| **largest** | | " + " | ".join(f"{one:.4f}" for one in largest) + " |")
    return lines


def interval_lines(model: Answered, score: dict[int, np.ndarray], unit: str) -> list[str]:
    """A line for each month: coverage of 0.9 and width, split and adaptive."""
    assert model.conformal is not None
    base = model.conformal if model.spec.task == "regression" else None
    gamma = model.spec.recalibration.gamma
    ways = {
        "split, once": judged(model.spec, base or model.conformal, model.y, score[0]),
        "adaptive, labels a day late": intervals_daily(model, score[1], 1, gamma=gamma),
        "a week late": intervals_daily(model, score[7], 7, gamma=gamma),
    }
    lines = [f"| month | {' | '.join(f'{way} | {unit}' for way in ways)} |", "|---|" + "---|---|" * len(ways)]
    found = []
    for name, rows in by_month(model):
        found.append([float(held[rows].mean()) for held, _ in ways.values()])
        cells = [f"{held[rows].mean():.3f} | {width[rows].mean():.4g}" for held, width in ways.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    apart = np.abs(np.array(found) - LEVEL).max(axis=0)
    lines.append(f"| **furthest from {LEVEL:g}** | " + " | | ".join(f"{one:.3f}" for one in apart) + " | |")
    return lines


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--home", type=Path, help="Folder whose lake is kept and used again; a temporary one when absent."
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder)
        late, minutes = answered(home, "flight_delay"), answered(home, "arrival_minutes")
    late = replace(late, spec=late.spec.model_copy(update={"calibration": "platt"}))
    assert late.calibration is not None
    scores = {
        0: calibrated(late.calibration, late.score),
        1: calibrated_daily(late, 1),
        7: calibrated_daily(late, 7),
    }
    rules = late.spec.recalibration
    lines = [
        "Models that know the first quarter answer the rest of 2013, trained on nothing more. Expected calibration "
        "error of `flight_delay` by month, over ten bins of equal size; learned anew on the newest "
        f"{rules.window.days} labelled days:",
        "",
        *calibration_lines(late),
        "",
        f"Share of labels within intervals or sets of {LEVEL:g}, and how wide these are. Adaptive, γ {rules.gamma:g}: "
        f"made of the newest {rules.interval_window.days} labelled days. `arrival_minutes`, in minutes:",
        "",
        *interval_lines(minutes, dict.fromkeys((0, 1, 7), minutes.score), "width"),
        "",
        "`flight_delay`, sets of false and true, in classes:",
        "",
        *interval_lines(late, scores, "classes"),
    ]
    command = "python benchmarks/uncertainty.py"
    packages = ("lightgbm", "numpy")
    print(write_section("Probabilities and intervals of the flights", command, lines, packages=packages))


if __name__ == "__main__":
    main()
