"""How much of what a permutation test finds the drift test of categories finds, and how well it keeps its level.

Both sides are drawn with other shares of the categories, so different that the chi-square distribution promises a
power of 50 % or 80 % at the level. The permutation test's critical value is the quantile of the statistic over
undrifted draws with the same margins (multivariate hypergeometric), of all categories one by one; the drift test
hashes and pools the rare ones first (`category_tests`), and has its critical value from the moments of what is left.
Its level is the share of the undrifted draws that exceed it.

    python benchmarks/drift_chi_square_power.py [--draws 400000] [--drifted-draws 20000]
"""

import argparse
import math

import numpy as np
from _results import write_section
from scipy.optimize import brentq
from scipy.stats import chi2, ncx2

from ml_platform.monitoring.drift.category_tests import _common, _in_cells
from ml_platform.monitoring.drift.chi_square import Moments, chi_square_moments, upper_tail
from ml_platform.monitoring.drift.two_sample import SMALLEST_EXPECTED

REFERENCE_ROWS = 10_000
ROWS = (200, 1_000)
CATEGORIES = (3, 10, 50)
SHAPES = {"equal": lambda k: np.ones(k) / k, "falling (1, 1/2, 1/3 …)": lambda k: 1 / np.arange(1, k + 1)}
LEVELS = (1e-2, 1e-3, 1e-4)
POWERS = (0.5, 0.8)


def effect_size(categories: int, rows: int, level: float, power: float) -> float:
    """Cohen's w that the non-central chi-square distribution finds with a power."""
    freedom = categories - 1
    bound = chi2.isf(level, freedom)
    noncentrality = brentq(lambda value: ncx2.sf(bound, freedom, value) - power, 1e-6, 2_000)
    return math.sqrt(noncentrality / (REFERENCE_ROWS * rows / (REFERENCE_ROWS + rows)))


def shifted(shares: np.ndarray, effect: float, rng: np.random.Generator) -> np.ndarray:
    """Other shares at a distance of Cohen's w in a random direction."""
    while True:
        direction = rng.normal(size=len(shares))
        direction -= (direction * shares).sum()
        moved = shares * (1 + effect * direction / math.sqrt((shares * direction**2).sum()))
        if (moved >= 0).all():
            return moved


def statistics(reference: np.ndarray, current: np.ndarray) -> np.ndarray:
    """Pearson's statistic of many tables; rows are draws, columns are categories."""
    total = reference + current
    result = np.zeros(len(total))
    for side in (reference, current):
        expected = total * (side.sum(axis=1) / total.sum(axis=1))[:, None]
        result += np.divide((side - expected) ** 2, expected, out=np.zeros_like(expected), where=expected > 0).sum(
            axis=1
        )
    return result


def cells_of(pooled: np.ndarray, rows: int) -> np.ndarray:
    """Cell that the drift test counts each category in: hashed where rare, then pooled where still rare."""
    names = [f"category {number}" for number in range(len(pooled))]
    share = rows / pooled.sum()
    sides = [dict(zip(names, (pooled * part).tolist(), strict=True)) for part in (1 - share, share)]
    common = _common(*sides)  # type: ignore[arg-type]  # expected counts
    hashed = np.unique([next(iter(_in_cells({name: 1}, common))) for name in names], return_inverse=True)[1]
    is_rare = np.bincount(hashed, weights=pooled) * share < SMALLEST_EXPECTED
    return np.unique(np.where(is_rare[hashed], -1, hashed), return_inverse=True)[1]


def in_cells(counts: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Counts by cell, from counts by category."""
    return np.stack([counts[:, cells == cell].sum(axis=1) for cell in range(cells.max() + 1)], axis=1)


def critical(moments: Moments, level: float) -> float:
    """Smallest statistic whose p-value is at most a level."""
    return float(brentq(lambda value: upper_tail(value, moments) - level, moments.mean, moments.mean + 1_000))


def measure(categories: int, shape: str, rows: int, level: float, options: argparse.Namespace) -> list[str]:
    """Cells of a row of the table: level, then power and its ratio for each of `POWERS`."""
    rng = np.random.default_rng([categories, rows, round(1 / level), len(shape)])
    shares = SHAPES[shape](categories)
    shares /= shares.sum()
    found, ratios = [], []
    levels = []
    for power in POWERS:
        moved = shifted(shares, effect_size(categories, rows, level, power), rng)
        pooled = np.rint(REFERENCE_ROWS * shares + rows * moved).astype(int)
        cells = cells_of(pooled, rows)
        undrifted = rng.multivariate_hypergeometric(pooled, rows, size=options.draws, method="marginals")
        by_permutation = np.quantile(statistics(pooled - undrifted, undrifted), 1 - level)
        in_fewer = in_cells(pooled[None, :], cells)[0]
        bound = critical(chi_square_moments(in_fewer.tolist(), rows), level)
        current = in_cells(undrifted, cells)
        levels.append((statistics(in_fewer - current, current) >= bound).mean() / level)
        old, new = (
            rng.multinomial(size, side, size=options.drifted_draws)
            for size, side in ((REFERENCE_ROWS, shares), (rows, moved))
        )
        exact = (statistics(old, new) >= by_permutation).mean()
        ours = (statistics(in_cells(old, cells), in_cells(new, cells)) >= bound).mean()
        found.append(f"{ours:.0%} / {exact:.0%}")
        ratios.append(f"{ours / exact:.2f}")
    return [
        str(cells.max() + 1),
        f"{np.mean(levels):.2f}",
        *(part for pair in zip(found, ratios, strict=True) for part in pair),
    ]


def main() -> None:
    """Run and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400_000, help="Undrifted ones.")
    parser.add_argument("--drifted-draws", type=int, default=20_000)
    options = parser.parse_args()
    lines = [
        f"Reference {REFERENCE_ROWS:,} rows; {options.draws:,} undrifted and {options.drifted_draws:,} drifted draws. "
        "Power: drift test / permutation test of all categories, at two sizes of the drift, and their ratio. Level: "
        "undrifted draws that the drift test calls drifted, beside what it says (1 is exact).",
        "",
        "| categories | shares | rows | level | cells tested | kept level | power | ratio | power | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for categories in CATEGORIES:
        for shape in SHAPES:
            for rows in ROWS:
                for level in LEVELS:
                    row = measure(categories, shape, rows, level, options)
                    lines.append(f"| {categories} | {shape} | {rows:,} | {level:g} | {' | '.join(row)} |")
                    print(lines[-1], flush=True)
    command = (
        f"python benchmarks/drift_chi_square_power.py --draws {options.draws} --drifted-draws {options.drifted_draws}"
    )
    write_section("Drift: power of the test of categories", command, lines, packages=("numpy", "scipy"))


if __name__ == "__main__":
    main()
