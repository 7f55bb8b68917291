"""How often a drift report cries wolf, and what it still finds, over columns as real tables have them.

Each repetition draws a reference and a current sample of independent columns from the same distributions: every alarm
is false. The reports (`dirty_columns.REPORTS`) have columns of one kind each, so that no other kind's tests share the
significance (normal, heavy tails, flags, few values, rare categories, 5,000 uniform categories, ids), and one has all.
For the power single columns of that one are shifted, and flags and sentinels made more frequent. Evidently's default
preset sees the first draws too, without the column of float noise (0.3 beside 0.1 + 0.2), on which it stops with an
error, and without the columns of thousands of categories, with which one report takes it minutes.

    python benchmarks/drift_false_alarms.py [--rows 200 1000 20000] [--repetitions 200 200 100] [--power-repetitions 25]
"""

import argparse
import warnings
from multiprocessing import get_context

import numpy as np
import polars as pl
from _results import at_most, write_section
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

from ml_platform.monitoring.drift.comparison import DriftColumn, compare
from ml_platform.spec.monitoring import Monitoring
from ml_platform_tests.monitoring.drift.dirty_columns import (
    COLUMNS,
    NUMERIC,
    REPORTS,
    draw,
    draw_report,
    report_columns,
)

REFERENCE_ROWS = 10_000
PRESET_REPETITIONS = 2
ALL, PRESET = "all of these", "Evidently's default preset"
UNFIT_FOR_PRESET = ("float_noise", "levels_5000", "long_tail", "ids")
SHIFTS = (0.1, 0.25, 0.5)  # standard deviations, of Cauchy the scale
SHIFTED = {"normal": 1.0, "tiny": 1e-5, "sentinel": 1.0, "sentinel_rare": 1.0, "cauchy": 1.0}  # column → its unit
FLAGS = ((0.001, 0.02), (0.01, 0.03), (0.02, 0.05))


def ours(reference: pl.DataFrame, current: pl.DataFrame, columns: list[DriftColumn] = COLUMNS) -> set[str]:
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


def false_alarms(report: str, rows: int, repetitions: int) -> int:
    """Undrifted reports of a kind in which some column is called drifted."""
    alarms = 0
    for repetition in range(repetitions):
        rng = np.random.default_rng([repetition, rows])
        reference, current = draw_report(report, rng, REFERENCE_ROWS), draw_report(report, rng, rows)
        found = ours(reference, current, report_columns(report))
        alarms += bool(found)
        if found:
            print(f"{report}, {rows} rows, repetition {repetition}: {sorted(found)}", flush=True)
    return alarms


def evidently_alarms(rows: int) -> str:
    """What the preset says of the first draws."""
    verdicts = []
    for repetition in range(PRESET_REPETITIONS):
        rng = np.random.default_rng([repetition, rows])
        verdicts.append(preset(draw(rng, REFERENCE_ROWS), draw(rng, rows)))
    stopped = sum(one is None for one in verdicts)
    return f"{sum(bool(one) for one in verdicts)} of {len(verdicts)}" + (
        f", {stopped} stop with an error" if stopped else ""
    )


def power(rows: int, repetitions: int) -> dict[str, float]:
    """Share of the changes of each kind that are found."""
    found: dict[str, int] = {}
    for repetition in range(repetitions):
        rng = np.random.default_rng([repetition, rows, 1])
        reference, current = draw(rng, REFERENCE_ROWS), draw(rng, rows)
        for shift in SHIFTS:
            drifted = ours(reference, current.with_columns(shifted(rng, rows, shift)))
            for name in SHIFTED:
                label = f"{name} + {shift} sd"
                found[label] = found.get(label, 0) + (name in drifted)
        old, new = flags(rng, REFERENCE_ROWS, now=False), flags(rng, rows, now=True)
        wide = [*COLUMNS, *(DriftColumn(name, "numeric") for name in old.columns)]
        drifted = ours(pl.concat([reference, old], how="horizontal"), pl.concat([current, new], how="horizontal"), wide)
        for name in old.columns:
            share = float(name.split()[1])
            label = f"{name.split()[0]} {share:.1%} → {dict(FLAGS)[share]:.0%}"
            found[label] = found.get(label, 0) + (name in drifted)
    return {label: count / repetitions for label, count in found.items()}


def main() -> None:
    """Run and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[200, 1_000, 20_000])
    parser.add_argument("--repetitions", type=int, nargs="+", default=[200, 200, 100], help="Of each report, by rows.")
    parser.add_argument("--power-repetitions", type=int, default=25)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if len(options.repetitions) != len(options.rows):
        parser.error(
            f"wanted as many --repetitions as --rows, found {len(options.repetitions)} and {len(options.rows)}"
        )
    alarms: dict[str, list[str]] = {name: [] for name in (*REPORTS, ALL, PRESET)}
    finds: dict[str, list[str]] = {}
    total = 0
    measured = list(zip(options.rows, options.repetitions, strict=True))
    with get_context("spawn").Pool(options.processes, warnings.filterwarnings, ("ignore",)) as pool:
        told = {rows: pool.apply_async(evidently_alarms, (rows,)) for rows in options.rows}
        powers = {rows: pool.apply_async(power, (rows, options.power_repetitions)) for rows in options.rows}
        tasks = [(name, rows, repetitions) for rows, repetitions in measured for name in reversed(REPORTS)]
        counts = {task[:2]: pool.apply_async(false_alarms, task) for task in tasks}
        for number, (rows, repetitions) in enumerate(measured, start=1):
            found = {name: counts[name, rows].get() for name in REPORTS}
            for name, count in found.items():
                alarms[name].append(at_most(count, repetitions))
            total += sum(found.values())
            alarms[ALL].append(at_most(sum(found.values()), repetitions * len(found)))
            alarms[PRESET].append(told[rows].get())
            for label, share in powers[rows].get().items():
                finds.setdefault(label, []).append(f"{share:.0%}")
            _write(options, number, total, alarms, finds)  # what is measured stays, should the rest take too long


def _write(
    options: argparse.Namespace,
    measured: int,
    alarming: int,
    alarms: dict[str, list[str]],
    finds: dict[str, list[str]],
) -> None:
    sizes, repetitions = options.rows[:measured], options.repetitions[:measured]
    heads = [" | ".join(f"{rows:,} rows" for rows in sizes), "---|" * len(sizes)]
    lines = [
        f"Undrifted columns, reference {REFERENCE_ROWS:,} rows, default significance {Monitoring().significance} and "
        f"distance {Monitoring().distance}. Reports in which some column is called drifted, and the rate that they "
        f"leave possible (95 %). Evidently's preset: {PRESET_REPETITIONS} draws of the mixed columns without "
        "`float_noise`, on which it stops, and without those of thousands of categories, with which a report takes it "
        "minutes.",
        "",
        f"| report | {heads[0]} |",
        f"|---|{heads[1]}",
        *(f"| {name} | {' | '.join(cells)} |" for name, cells in alarms.items()),
        "",
        f"All kinds and sizes together: {at_most(alarming, sum(repetitions) * len(REPORTS))}.",
        "",
        f"Found, of {options.power_repetitions} repetitions, when the mixed columns are tested beside it:",
        "",
        f"| change | {heads[0]} |",
        f"|---|{heads[1]}",
        *(f"| {label} | {' | '.join(values)} |" for label, values in sorted(finds.items())),
    ]
    command = (
        f"python benchmarks/drift_false_alarms.py --rows {' '.join(map(str, sizes))} "
        f"--repetitions {' '.join(map(str, repetitions))} --power-repetitions {options.power_repetitions}"
    )
    packages = ("evidently", "polars", "scipy")
    print(write_section("Drift: false alarms and power", command, lines, packages=packages), flush=True)


if __name__ == "__main__":
    main()
