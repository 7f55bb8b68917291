"""Measures what processes hold that train one model together, beside one process that holds all rows.

    python benchmarks/distributed_training.py

Rows are made by a recipe, written to a lake a part at a time, and made a training set in spans. Compared are the peaks
of memory (PSS) with the size of the matrix, and the quality on the holdout.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks._results import write_section
from ml_platform.features.training_sets.build import build_training_set
from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.inference.matrix import encode_labels
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import ModelSpec
from ml_platform.training.candidate_fit import Fitted, fit_candidate
from ml_platform.training.data.split import TrainingRows
from ml_platform.training.distributed.fit import fit_stored
from ml_platform.training.evaluation.metrics import measure

COLUMNS, PART, DAYS = 20, 250_000, 365
PARAMS: Mapping[str, Mapping[str, Any]] = {
    "lightgbm": {"learning_rate": 0.1, "num_leaves": 31, "min_child_samples": 100, "n_estimators": 60},
    "xgboost": {"learning_rate": 0.1, "max_depth": 6, "min_child_weight": 10.0, "n_estimators": 60},
}


def spec_of(training: dict[str, Any]) -> ModelSpec:
    """Declare the model, whose training set is the same for all."""
    inputs = [{"name": f"x{n}", "type": "number"} for n in range(COLUMNS - 1)]
    return ModelSpec.model_validate(
        {
            "name": "bench",
            "description": "b",
            "owner": "a@example.com",
            "task": "binary",
            "target": "y",
            "spine": "spine.sql",
            "id": "id",
            "timestamp": "at",
            "label_available_at": "known_at",
            "inputs": [*inputs, {"name": "kind", "type": "string"}],
            "families": list(PARAMS),
            "split": {"holdout": "14 days", "validation": "14 days"},
            "tuning": {"sample_rows": 50_000},
            "training": training,
            "scoring": {"start": "2025-01-01"},
        }
    )


def parts(rows: int) -> Iterator[pl.DataFrame]:
    """Rows whose label depends on sums, products and steps of a dozen columns, with noise, by time."""
    start, step = datetime(2025, 1, 1, tzinfo=UTC), timedelta(days=DAYS) / rows
    for first in range(0, rows, PART):
        random, count = np.random.default_rng(first), min(PART, rows - first)
        X = random.normal(size=(count, COLUMNS - 1))
        kind = random.integers(0, 40, count)
        raw = X[:, :6].sum(axis=1) + 1.5 * X[:, 6] * X[:, 7] + 2 * (X[:, 8] > 0.5) * X[:, 9] + 0.1 * (kind % 7)
        at = (
            pl.select(pl.lit(start) + pl.int_range(first, first + count) * step)
            .to_series()
            .cast(pl.Datetime("us", "UTC"))
        )
        yield pl.DataFrame(
            {
                "id": np.arange(first, first + count),
                "at": at,
                "known_at": at + timedelta(hours=1),
                **{f"x{n}": X[:, n] for n in range(COLUMNS - 1)},
                "kind": [f"kind-{n}" for n in kind],
                "y": raw + 2.5 * random.normal(size=count) > 0,
            }
        )


def pss(process: psutil.Process) -> float:
    """Memory of a process in MB, shared pages divided among those that share them."""
    try:
        return process.memory_full_info().pss / 1e6
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0


@contextmanager
def peaks() -> Iterator[dict[str, dict[int, float]]]:
    """Watch the memory of this process and of its workers: name → process → most MB, and the first MB of workers."""
    found: dict[str, dict[int, float]] = {"driver": {}, "worker": {}, "worker at its start": {}}
    own, ended = psutil.Process(), threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            named = [("driver", own)]
            for child in own.children(recursive=True):
                try:
                    named += [("worker", child)] if "RayTrainWorker" in " ".join(child.cmdline()) else []
                except psutil.NoSuchProcess:
                    continue
            for name, process in named:
                now = pss(process)
                found[name][process.pid] = max(now, found[name].get(process.pid, 0.0))
                if name == "worker":
                    found["worker at its start"].setdefault(process.pid, now)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def auc(fitted: Fitted, rows: TrainingRows) -> float:
    """AUC on the holdout."""
    y = encode_labels(rows.parts.holdout.get_column("y"), fitted.spec)
    return measure("binary", y, fitted.predict(rows.parts.holdout), threshold=0.5)["roc_auc"]


def one_process(lake: Lake, ref: TrainingSetRef, family: str) -> dict[str, float]:
    """Train in this process on all rows, which it reads first."""
    spec, started = spec_of({}), time.perf_counter()
    with peaks() as found:
        rows = TrainingRows.read(lake, spec, ref)
        before = pl.concat([rows.parts.train, rows.parts.validation])
        fitted = fit_candidate(spec, ref.features, before, family, PARAMS[family])
    return {"peak": max(found["driver"].values()), "auc": auc(fitted, rows), "seconds": time.perf_counter() - started}


def together(lake: Lake, ref: TrainingSetRef, family: str, workers: int) -> dict[str, float]:
    """Train over workers, on rows that stay in the lake."""
    spec, started = spec_of({"workers": workers, "executor": "ray"}), time.perf_counter()
    with peaks() as found:
        rows = TrainingRows.read(lake, spec, ref)
        if rows.stored is None or rows.cuts is None:
            raise RuntimeError("the rows were read into this process")
        ranges = [rows.cuts.train, rows.cuts.validation]
        fitted = fit_stored(rows.stored, ranges, family, PARAMS[family], seeks_rounds=False)
    return {
        "driver": max(found["driver"].values()),
        "worker": max(found["worker"].values()),
        "worker_start": max(found["worker at its start"].values()),
        "auc": auc(fitted, rows),
        "seconds": time.perf_counter() - started,
    }


def build(folder: Path, rows: int, workers: int) -> dict[str, Any]:
    """Write the rows and make the training set; its document, and what this process held."""
    lake = Lake(str(folder / "lake"))
    lake.replace_in_batches("raw/rows", lambda: parts(rows))
    (folder / "spine.sql").write_text("SELECT * FROM raw.rows")
    with peaks() as found:
        ref = build_training_set(lake, spec_of({"workers": workers, "executor": "ray"}), folder, {})
    return {"ref": ref.model_dump_json(), "driver": max(found["driver"].values())}


def in_process_of_its_own(*arguments: str) -> dict[str, Any]:
    """Run a step of this script by itself, so that what it holds is its own."""
    command = [sys.executable, __file__, "--step", *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def report(rows: int, workers: int) -> list[str]:
    """Measure, and write the lines of the section."""
    with tempfile.TemporaryDirectory() as folder:
        made = in_process_of_its_own("build", folder, str(rows), str(workers))
        Path(folder, "ref.json").write_text(made["ref"])
        idle = in_process_of_its_own("idle", folder, str(rows), str(workers))["driver"]
        lines = []
        ref = TrainingSetRef.model_validate_json(made["ref"])
        matrix = ref.rows * COLUMNS * 8 / 1e6
        for family in PARAMS:
            alone = in_process_of_its_own("one", folder, family, str(workers))
            spread = in_process_of_its_own("together", folder, family, str(workers))
            worker, start, driver = spread["worker"], spread["worker_start"], spread["driver"]
            lines += [
                f"| {family}, one process | {alone['peak']:.0f} | {alone['peak'] / matrix:.2f} | {alone['auc']:.4f} "
                f"| {alone['seconds']:.0f} |",
                f"| {family}, each of {workers} workers | {worker:.0f} (at its start {start:.0f}) "
                f"| {worker / matrix:.2f} | {spread['auc']:.4f} | {spread['seconds']:.0f} |",
                f"| … the process that starts them | {driver:.0f} (idle {idle:.0f}) | {driver / matrix:.2f} | | |",
            ]
    return [
        f"{ref.rows:,} rows × {COLUMNS} features ({matrix:.0f} MB as a matrix of doubles), 60 rounds, one thread for",
        "each worker. Most memory (PSS, watched each tenth of a second) of each process, in MB and in matrices:",
        "",
        "| who | MB | matrices | AUC on the holdout | s |",
        "|---|---|---|---|---|",
        f"| making the training set, in spans | {made['driver']:.0f} (idle {idle:.0f}) "
        f"| {made['driver'] / matrix:.2f} | | |",
        *lines,
    ]


def step(name: str, folder: Path, value: str, workers: int) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    if name == "build":
        return build(folder, int(value), workers)
    lake = Lake(str(folder / "lake"))
    ref = TrainingSetRef.model_validate_json((folder / "ref.json").read_text())
    if name == "idle":
        return {"driver": pss(psutil.Process())}
    return one_process(lake, ref, value) if name == "one" else dict(together(lake, ref, value, workers))


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_500_000, help="rows of the set (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=4, help="workers (default: %(default)s)")
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, folder, value, workers = options.step
        print(json.dumps(step(name, Path(folder), value, int(workers))))
        return
    load = (
        f"The load average was {os.getloadavg()[0]:.0f} at the start, on {os.cpu_count()} cores: trust the megabytes, "
        "not the seconds, of which half a minute to two are the start of Ray and the workers."
    )
    lines = [*report(options.rows, options.workers), "", load]
    packages = ["ray", "lightgbm", "xgboost-cpu", "polars", "deltalake"]
    print(write_section("Distributed training", "python benchmarks/distributed_training.py", lines, packages=packages))


if __name__ == "__main__":
    main()
