"""How far the scores of a retrained model are from its champion's, by the distance of the canary's guard of scores.

The flights' model of `decay.py`, trained before a month, beside one trained one month and one three months earlier:
both score the flights of that month, and a version that is other only for its newer data must pass the guard.

    python benchmarks/canary_retrained.py [--home FOLDER] [--months 7 12]
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
from _results import write_section
from decay import fit_before, month_start, training_rows

from ml_platform.monitoring.canary.guards import distance_of
from ml_platform.registry.manifest import CanaryPolicy

EARLIER = (1, 3)  # months by which the champion is older


def distances(home: Path, months: list[int]) -> Iterator[tuple[int, list[float]]]:
    """Month and the distance from a champion of each age."""
    spec, infos, rows = training_rows(home)
    for month in months:
        at = pl.col(spec.timestamp)
        part = rows.filter((at >= month_start(month)) & (at < month_start(month + 1)))
        ours = fit_before(spec, infos, rows, month_start(month))(part)
        theirs = [fit_before(spec, infos, rows, month_start(month - age))(part) for age in EARLIER]
        yield month, [distance_of(ours, one) for one in theirs]


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="Folder whose lake is kept and used again; else a temporary one.")
    parser.add_argument("--months", type=int, nargs="+", default=[7, 12], help="Of 2013, 5 to 12.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = list(distances(options.home or Path(folder), options.months))
    lines = [
        "Distance of the scores' distributions on a month's flights, of a model trained before that month from one "
        f"trained earlier; `max_score_distance` is {CanaryPolicy().max_score_distance:g} by default.",
        "",
        f"| month of 2013 | {' | '.join(f'champion older by {age} mo.' for age in EARLIER)} |",
        "|---|---|---|",
        *(f"| {month_start(month):%B} | {' | '.join(f'{one:.3f}' for one in row)} |" for month, row in found),
    ]
    command = f"python benchmarks/canary_retrained.py --months {' '.join(map(str, options.months))}"
    print(write_section("Canary: scores of a retrained model", command, lines, packages=("lightgbm",)))


if __name__ == "__main__":
    main()
