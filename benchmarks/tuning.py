"""Measures the search against plain Optuna, pruning, and Ray tasks against one process.

    python benchmarks/tuning.py

Rows are made by a recipe: 200,000 × 30, binary. Compared are CPU times of this process where it works alone, and wall
times where workers share the machine.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import optuna
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._results import write_section
from ml_platform.features.training_sets.documents import FeatureInfo, TrainingSetRef
from ml_platform.registry.manifest import Feature
from ml_platform.registry.tracking import Tracker
from ml_platform.settings import Settings
from ml_platform.spec.families import Parameter
from ml_platform.spec.model import ModelSpec, Tuning
from ml_platform.spec.threshold import Threshold
from ml_platform.training.families.registry import get_family
from ml_platform.training.search.pruning import FAMILY
from ml_platform.training.search.records import TrialRecord
from ml_platform.training.search.space import own_name, suggest_params
from ml_platform.training.search.study import SearchStudy, study_in_memory
from ml_platform.training.search.study_file import kept_study
from ml_platform.training.search.tracking import SearchRun, dataset_of
from ml_platform.training.search.trial import TrialData

FAMILIES = ("logistic_regression", "lightgbm")
METRIC = "roc_auc"
TRIALS, PRUNED_TRIALS = 20, 16


class Quiet:
    """A watcher that does nothing."""

    def started(self, number: int, family: str) -> None:
        """See `Watcher`."""

    def ended(self, record: TrialRecord, records: tuple[TrialRecord, ...]) -> None:
        """See `Watcher`."""


class Written(Quiet):
    """Writes trials to MLflow, as `search` does."""

    def __init__(self, run: SearchRun) -> None:
        self.run = run

    def started(self, number: int, family: str) -> None:
        """See `Watcher`."""
        self.run.begin_trial(number, family)

    def ended(self, record: TrialRecord, records: tuple[TrialRecord, ...]) -> None:  # noqa: ARG002
        """See `Watcher`."""
        self.run.end_trial(record)


def made_data(rows: int, columns: int) -> TrialData:
    """Rows whose label depends on sums, products and steps of a dozen columns, with noise."""
    random = np.random.default_rng(11)
    X = random.normal(size=(rows + rows // 5, columns))
    raw = X[:, :6].sum(axis=1) + 1.5 * X[:, 6] * X[:, 7] + 2 * (X[:, 8] > 0.5) * X[:, 9] + np.sin(2 * X[:, 10])
    y = (raw + 2.5 * random.normal(size=len(X)) > 0).astype(np.float64)
    features = tuple(Feature(name=f"x{n}", kind="numeric", source="input") for n in range(columns))
    return TrialData("binary", features, X[:rows], y[:rows], X[rows:], y[rows:], 0, Threshold())


@contextmanager
def stopwatch() -> Iterator[Callable[[], tuple[float, float]]]:
    """Seconds of the wall and of this process' CPU since the beginning."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield lambda: (time.perf_counter() - wall, time.process_time() - cpu)


def plain_optuna(data: TrialData, points: list[dict[str, Parameter]]) -> float:
    """Search as a script does, through given points of the space; the best value."""
    families = list(FAMILIES)

    def objective(trial: optuna.Trial) -> float:
        name = str(trial.suggest_categorical(FAMILY, families))
        params, family = suggest_params(name, "binary", trial), get_family(name)
        validation = (data.X_validation, data.y_validation)
        model = family.fit(family.build("binary", data.features, params, data.seed), data.X, data.y, validation)
        return float(roc_auc_score(data.y_validation, family.predict(model, "binary", data.X_validation)))

    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for point in points:
        study.enqueue_trial(point)
    study.optimize(objective, n_trials=len(points))
    return float(study.best_value)


def ours(data: TrialData, families: tuple[str, ...], tuning: Tuning, folder: Path) -> tuple[TrialRecord, ...]:
    """Search with the study on disk and every trial in MLflow."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    spec = ModelSpec.model_validate(
        {
            "name": "bench",
            "description": "b",
            "owner": "a@example.com",
            "task": "binary",
            "target": "y",
            "spine": "s.sql",
            "id": "i",
            "timestamp": "t",
            "label_available_at": "l",
            "families": families,
            "inputs": [{"name": "x", "type": "number"}],
            "scoring": {"start": "2026-01-01"},
            "tuning": tuning,
        }
    )
    infos = tuple(FeatureInfo(name=one.name, kind="numeric", source="input") for one in data.features)
    ref = TrainingSetRef(
        model="bench",
        table="training_sets/bench",
        version=0,
        rows=len(data.y),
        as_of=now,
        first=now,
        last=now,
        tables={},
        features=infos,
        view_hashes={},
        label_summary={},
    )
    tracker = Tracker(Settings(home=folder / "home"))
    data.digest()
    with kept_study(folder / "studies", "bench", higher_is_better=True) as kept:
        study = SearchStudy(kept, families, tuning, METRIC, data)
        with SearchRun.open(tracker, spec, study, dataset_of(tracker, ref), executor="local") as run:
            return study.run("local", Written(run))


def best_of(records: tuple[TrialRecord, ...]) -> tuple[float, int]:
    """Best value of the complete trials, and the number of those that were pruned."""
    complete = [record.metrics[METRIC] for record in records if record.state == "complete"]
    return max(complete), sum(record.state == "pruned" for record in records)


def against_plain(data: TrialData, folder: Path) -> list[str]:
    """Compare the search with plain Optuna, without pruning, and with it."""
    tuning = Tuning(trials=TRIALS // len(FAMILIES), pruning=False)
    _ = Tracker(Settings(home=folder / "warm" / "home")).client  # imports, and the store's creation, are paid once
    with stopwatch() as taken:
        records = ours(data, FAMILIES, tuning, folder / "a")
        own = taken()
    points = [
        {FAMILY: one.family, **{own_name(one.family, name): value for name, value in one.suggested.items()}}
        for one in records
    ]
    with stopwatch() as taken:
        best_plain = plain_optuna(data, points)
        plain = taken()
    return [
        f"{TRIALS} trials over {', '.join(FAMILIES)} on {len(data.y):,} × {data.X.shape[1]} rows, in one",
        "process, on one thread, the same parameters for both:",
        "",
        "| search | best AUC | CPU s | wall s | CPU, times plain Optuna |",
        "|---|---|---|---|---|",
        f"| plain Optuna, in memory | {best_plain:.4f} | {plain[1]:.0f} | {plain[0]:.0f} | 1.00 |",
        f"| ours: study on disk, every trial in MLflow | {best_of(records)[0]:.4f} | {own[1]:.0f} | {own[0]:.0f} "
        f"| {own[1] / plain[1]:.2f} (≤ 1.15) |",
    ]


def pruning(data: TrialData) -> list[str]:
    """Compare a search of one family with and without pruning."""
    lines = [
        f"{PRUNED_TRIALS} trials of lightgbm on {len(data.y):,} × {data.X.shape[1]} rows, in one process, one thread:",
        "",
        "| trials | best AUC | pruned | CPU s |",
        "|---|---|---|---|",
    ]
    for said, on in (("all on all rows", False), ("poor ones end on an eighth of the rows", True)):
        with stopwatch() as taken, study_in_memory(higher_is_better=True) as study:
            tuning = Tuning(total_trials=PRUNED_TRIALS, pruning=on)
            best, pruned = best_of(SearchStudy(study, ("lightgbm",), tuning, METRIC, data).run("local", Quiet()))
            lines.append(f"| {said} | {best:.4f} | {pruned} | {taken()[1]:.0f} |")
    return lines


def on_ray(rows: int, trials: int) -> list[str]:
    """Compare trials of one thread each, longer than ten seconds, in one process and on two workers."""
    data, tuning = made_data(rows, 30), Tuning(total_trials=trials, pruning=False)
    seconds, each = {}, {}
    for executor in ("local", "ray"):
        with stopwatch() as taken, study_in_memory(higher_is_better=True) as study:
            search = SearchStudy(study, ("lightgbm",), tuning, METRIC, data)
            records = search.run("local" if executor == "local" else "ray", Quiet())
            seconds[executor] = taken()[0]
            each[executor] = sum(record.seconds for record in records)
    overhead = seconds["ray"] * 2 / each["ray"] - 1
    return [
        f"{trials} trials of lightgbm on {rows:,} × 30 rows ({data.X.size / 1e6:.0f} million numbers),",
        "each on one thread:",
        "",
        "| where | wall s | of which trials | s a trial | times as fast |",
        "|---|---|---|---|---|",
        f"| one process | {seconds['local']:.0f} | {each['local']:.0f} | {each['local'] / trials:.1f} | 1.00 |",
        f"| Ray, 2 workers, its start included | {seconds['ray']:.0f} | {each['ray']:.0f} | {each['ray'] / trials:.1f} "
        f"| {seconds['local'] / seconds['ray']:.2f} (≥ 1.5) |",
        "",
        f"Two workers had {each['ray'] / 2:.0f} s of trials each; the whole took {overhead:.0%} longer (≤ 14%).",
    ]


def main() -> None:
    """Measure what is asked for, and write the sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=["plain", "pruning", "ray"], help="what to measure; all when absent")
    parser.add_argument("--rows", type=int, default=200_000, help="training rows (default: %(default)s)")
    parser.add_argument("--pruning-rows", type=int, default=48_000, help="of pruned trials (default: %(default)s)")
    parser.add_argument("--ray-rows", type=int, default=200_000, help="of trials on Ray (default: %(default)s)")
    parser.add_argument("--ray-trials", type=int, default=4, help="trials on Ray (default: %(default)s)")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    os.environ["OMP_NUM_THREADS"] = "1"  # threads that wait for each other on a busy machine would be measured
    load = f"The load average was {os.getloadavg()[0]:.0f} at the start, on {os.cpu_count()} cores."
    packages = ["optuna", "mlflow", "ray", "lightgbm", "scikit-learn", "xgboost-cpu"]
    parts: dict[str, tuple[str, Callable[[], list[str]]]] = {
        "plain": ("Search: against plain Optuna", lambda: against_plain(made_data(options.rows, 30), Path(folder))),
        "pruning": ("Search: pruning", lambda: pruning(made_data(options.pruning_rows, 30))),
        "ray": ("Search: on Ray", lambda: on_ray(options.ray_rows, options.ray_trials)),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in [options.part] if options.part else list(parts):
            title, measure = parts[name]
            lines = [*measure(), "", load]
            print(write_section(title, f"python benchmarks/tuning.py {name}", lines, packages=packages))


if __name__ == "__main__":
    main()
