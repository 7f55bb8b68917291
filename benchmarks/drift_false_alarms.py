"""How often a drift report cries wolf, and what it still finds, over columns as real tables have them.

Each repetition draws a reference and a current sample of 26 independent columns (`dirty_columns`: normal, lognormal,
Cauchy, tiny units, large offsets, integers, flags, sentinels, missing and infinite values, constants, categories of 5
to 5,000 levels, ids) from the same distributions: every alarm is false. For the power single columns are shifted, and
flags and sentinels made more frequent. Evidently's default preset sees the first draws too, without the column of float
noise (0.3 beside 0.1 + 0.2), on which it stops with an error, and without the columns of thousands of categories, with
which one report takes it minutes.

    python benchmarks/drift_false_alarms.py [--repetitions 200] [--power-repetitions 25] [--rows 1000 20000]
"""

import argparse
import time
import warnings

import numpy as np
import polars as pl
from _results import write_section
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

from ml_platform.monitoring.comparison import Column, compare
from ml_platform.monitoring_spec import Monitoring
from ml_platform_tests.monitoring.dirty_columns import COLUMNS, NUMERIC, draw

REFERENCE_ROWS = 10_000
PRESET_REPETITIONS = 2
UNFIT_FOR_PRESET = ("float_noise", "levels_5000", "long_tail", "ids")
SHIFTS = (0.1, 0.25, 0.5)  # standard deviations, of Cauchy the scale
SHIFTED = {"normal": 1.0, "tiny": 1e-5, "sentinel": 1.0, "sentinel_rare": 1.0, "cauchy": 1.0}  # column → its unit
FLAGS = ((0.001, 0.02), (0.01, 0.03), (0.02, 0.05))


def ours(reference: pl.DataFrame, current: pl.DataFrame, columns: list[Column] = COLUMNS) -> set[str]:
    """Columns that `compare` calls drifted."""
    found, _ = compare(reference, current, columns, Monitoring())
    return {one.column for one in found if one.drifted}


def preset(reference: pl.DataFrame, current: pl.DataFrame) -> set[str] | None:
    """Columns that Evidently's preset calls drifted with its defaults; None where it stops with an error."""
    columns = [column for column in COLUMNS if column.name not in UNFIT_FOR_PRESET]
    definition = DataDefinition(
        numerical_columns=[column.name for column in columns if column.kind == "numeric"],
        categorical_columns=[column.name for column in columns if column.kind == "categorical"],
    )
    new, old = (
        Dataset.from_pandas(rows.drop(UNFIT_FOR_PRESET).to_pandas(), data_definition=definition)
        for rows in (current, reference)
    )
    try:
        snapshot = Report([DataDriftPreset()], include_tests=True).run(new, old)
    except Exception as error:  # noqa: BLE001 - whatever it stops with is the finding
        print(f"preset: {type(error).__name__}: {error}")
        return None
    names = {one["id"]: one["config"]["column"] for one in snapshot.dict()["metrics"] if "column" in one["config"]}
    results = {names[key]: value for key, value in snapshot.metric_results.items() if key in names}
    return {name for name, result in results.items() if any(test.status.value == "FAIL" for test in result.tests)}


def shifted(rng: np.random.Generator, rows: int, shift: float) -> pl.DataFrame:
    """Columns of `SHIFTED` with their ordinary values moved, sentinels left where they are."""
    columns = {}
    for name, unit in SHIFTED.items():
        values = NUMERIC[name](rng, rows)
        columns[name] = np.where((values == -999.0) | (values == 1e6), values, values + shift * unit)
    return pl.DataFrame(columns)


def flags(rng: np.random.Generator, rows: int, *, now: bool) -> pl.DataFrame:
    """Flags of `FLAGS`, and a normal column in which −999 is as frequent."""
    columns = {}
    for pair in FLAGS:
        share = pair[now]
        columns[f"flag {pair[0]}"] = (rng.random(rows) < share).astype(float)
        columns[f"−999 {pair[0]}"] = np.where(rng.random(rows) < share, -999.0, rng.normal(size=rows))
    return pl.DataFrame(columns)


def main() -> None:
    """Run and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--power-repetitions", type=int, default=25)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 20_000])
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # of Evidently's own code, one per column and run
    lines = [
        f"{len(COLUMNS)} undrifted columns, clean and dirty, reference {REFERENCE_ROWS:,} rows, default significance "
        f"{Monitoring().significance} and distance {Monitoring().distance}. Evidently's preset: the first "
        f"{PRESET_REPETITIONS} of the same draws without `float_noise`, on which it stops, and without the columns of "
        "thousands of categories, with which a report takes it minutes.",
        "",
        "| current rows | reports with a false alarm | Evidently's default preset | CPU seconds a report, ours |",
        "|---|---|---|---|",
    ]
    cells: dict[str, list[str]] = {}
    for number, rows in enumerate(options.rows, start=1):
        alarms, theirs, seconds = 0, [], 0.0
        for repetition in range(options.repetitions):
            rng = np.random.default_rng([repetition, rows])
            reference, current = draw(rng, REFERENCE_ROWS), draw(rng, rows)
            start = time.process_time()
            false = ours(reference, current)
            seconds += time.process_time() - start
            alarms += bool(false)
            if false:
                print(f"{rows} rows, repetition {repetition}: {sorted(false)}", flush=True)
            if repetition < PRESET_REPETITIONS:
                theirs.append(preset(reference, current))
        stopped, loud = sum(one is None for one in theirs), sum(bool(one) for one in theirs)
        cost = seconds / options.repetitions
        lines.append(
            f"| {rows:,} | {alarms} of {options.repetitions} | {loud} of {len(theirs)} alarm, {stopped} stop with an "
            f"error | {cost:.2f} |"
        )
        found: dict[str, int] = {}
        for repetition in range(options.power_repetitions):
            rng = np.random.default_rng([repetition, rows, 1])
            reference, current = draw(rng, REFERENCE_ROWS), draw(rng, rows)
            for shift in SHIFTS:
                new = current.with_columns(shifted(rng, rows, shift))
                drifted = ours(reference, new)
                for name in SHIFTED:
                    label = f"{name} + {shift} sd"
                    found[label] = found.get(label, 0) + (name in drifted)
            old, new = flags(rng, REFERENCE_ROWS, now=False), flags(rng, rows, now=True)
            names = old.columns
            wide = [*COLUMNS, *(Column(name, "numeric") for name in names)]
            drifted = ours(
                pl.concat([reference, old], how="horizontal"), pl.concat([current, new], how="horizontal"), wide
            )
            for name in names:
                share = float(name.split()[1])
                label = f"{name.split()[0]} {share:.1%} → {dict(FLAGS)[share]:.0%}"
                found[label] = found.get(label, 0) + (name in drifted)
        for label, count in found.items():
            cells.setdefault(label, []).append(f"{count / options.power_repetitions:.0%}")
        _write(options, options.rows[:number], lines, cells)  # what is measured stays, should the rest take too long


def _write(options: argparse.Namespace, sizes: list[int], lines: list[str], cells: dict[str, list[str]]) -> None:
    power = [
        "",
        f"Found, of {options.power_repetitions} repetitions, when all other columns are tested beside it:",
        "",
        "| change | " + " | ".join(f"{rows:,} rows" for rows in sizes) + " |",
        "|---|" + "---|" * len(sizes),
        *(f"| {label} | {' | '.join(values)} |" for label, values in sorted(cells.items())),
    ]
    command = (
        f"python benchmarks/drift_false_alarms.py --repetitions {options.repetitions} "
        f"--power-repetitions {options.power_repetitions} --rows {' '.join(map(str, sizes))}"
    )
    packages = ("evidently", "polars", "scipy")
    print(write_section("Drift: false alarms and power", command, [*lines, *power], packages=packages), flush=True)


if __name__ == "__main__":
    main()
