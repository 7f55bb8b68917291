"""How often a drift report cries wolf, and what it still finds: our rule against Evidently's default preset.

Each repetition draws a reference and a current sample of 30 columns (24 numeric of four shapes, 6 categorical of 2 to
300 categories) from the same distributions, and then again with three columns shifted by 0.1, 0.25 and 0.5 standard
deviations. Same draws for both.

    python benchmarks/drift_false_alarms.py [--repetitions 20] [--rows 1000 10000]
"""

import argparse
import time
import warnings
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from _results import write_section
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

from ml_platform.monitoring.comparison import Column, compare
from ml_platform.spec import Monitoring

REFERENCE_ROWS = 10_000
NUMERIC, LEVELS = 24, (2, 5, 20, 50, 100, 300)
SHIFTS = {"n0": 0.1, "n4": 0.25, "n8": 0.5}  # three normal columns
COLUMNS = [Column(f"n{i}", "numeric") for i in range(NUMERIC)] + [Column(f"c{n}", "categorical") for n in LEVELS]


@dataclass
class Tally:
    """What one rule did over the repetitions."""

    any_column: list[bool] = field(default_factory=list)
    dataset: list[bool] = field(default_factory=list)
    found: dict[str, list[bool]] = field(default_factory=lambda: {name: [] for name in SHIFTS})
    seconds: float = 0.0


def draw(rng: np.random.Generator, rows: int, shifts: dict[str, float]) -> pl.DataFrame:
    """Independent columns; a shift is in standard deviations of its column."""
    shapes = [
        lambda: rng.normal(size=rows),
        lambda: rng.lognormal(0, 0.5, rows),
        lambda: rng.exponential(1.0, rows),
        lambda: rng.uniform(0, 1, rows),
    ]
    data = {f"n{i}": shapes[i % len(shapes)]() + shifts.get(f"n{i}", 0.0) for i in range(NUMERIC)}
    for levels in LEVELS:
        weights = 1 / np.arange(1, levels + 1)
        data[f"c{levels}"] = np.char.add("k", rng.choice(levels, rows, p=weights / weights.sum()).astype(str))
    return pl.DataFrame(data)


def ours(reference: pl.DataFrame, current: pl.DataFrame) -> set[str]:
    """Columns that `compare` calls drifted."""
    found, _ = compare(reference, current, COLUMNS, Monitoring())
    return {one.column for one in found if one.drifted}


def preset(reference: pl.DataFrame, current: pl.DataFrame) -> set[str]:
    """Columns that Evidently's preset calls drifted with its defaults."""
    definition = DataDefinition(
        numerical_columns=[column.name for column in COLUMNS if column.kind == "numeric"],
        categorical_columns=[column.name for column in COLUMNS if column.kind == "categorical"],
    )
    new, old = (Dataset.from_pandas(rows.to_pandas(), data_definition=definition) for rows in (current, reference))
    snapshot = Report([DataDriftPreset()], include_tests=True).run(new, old)
    names = {one["id"]: one["config"]["column"] for one in snapshot.dict()["metrics"] if "column" in one["config"]}
    results = {names[key]: value for key, value in snapshot.metric_results.items() if key in names}
    return {name for name, result in results.items() if any(test.status.value == "FAIL" for test in result.tests)}


def main() -> None:
    """Run both rules on the same draws and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000])
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # of Evidently's own code, one per column and run
    rules = {"p (Bonferroni) and distance": ours, "Evidently's default preset": preset}
    lines = [
        f"30 columns, reference {REFERENCE_ROWS:,} rows, {options.repetitions} repetitions, the same draws for both.",
        "",
        "| rule | current rows | undrifted: some column alarms | more than half of the columns alarm "
        "| finds 0.1 sd | 0.25 sd | 0.5 sd | seconds per report, ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for rows in options.rows:
        tallies = {name: Tally() for name in rules}
        for repetition in range(options.repetitions):
            rng = np.random.default_rng([repetition, rows])
            reference = draw(rng, REFERENCE_ROWS, {})
            undrifted, drifted = draw(rng, rows, {}), draw(rng, rows, SHIFTS)
            for name, rule in rules.items():
                start = time.process_time()
                alarms, shifted = rule(reference, undrifted), rule(reference, drifted)
                tallies[name].seconds += (time.process_time() - start) / 2
                tallies[name].any_column.append(bool(alarms))
                tallies[name].dataset.append(len(alarms) >= len(COLUMNS) / 2)
                for column in SHIFTS:
                    tallies[name].found[column].append(column in shifted)
        slowest = max(tally.seconds for tally in tallies.values())
        for name, tally in tallies.items():
            power = " | ".join(f"{np.mean(found):.0%}" for found in tally.found.values())
            lines.append(
                f"| {name} | {rows:,} | {np.mean(tally.any_column):.0%} | {np.mean(tally.dataset):.0%} | {power} "
                f"| {tally.seconds / slowest:.2f} |"
            )
    command = f"python benchmarks/drift_false_alarms.py --repetitions {options.repetitions}"
    print(write_section("Drift: false alarms and power", command, lines, packages=("evidently", "pandas", "scipy")))


if __name__ == "__main__":
    main()
