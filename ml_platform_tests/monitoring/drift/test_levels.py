"""Each test of a column keeps the small level that many tests leave each other, also where few rows are expected.

By counting or by hundreds of thousands of draws at once, since whole reports are too slow to see one in ten thousand.
"""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy.stats import betabinom

from ml_platform.monitoring.drift.category_tests import CategoricalReference, category_tests
from ml_platform.monitoring.drift.chi_square import chi_square_moments
from ml_platform.monitoring.drift.column_tests import NumericReference
from ml_platform.monitoring.drift.two_sample import SMALLEST_EXPECTED, ks_p_value, two_sample_chi_square

pytestmark = pytest.mark.slow
LEVELS = (1e-2, 1e-3, 2e-4)


def margins(levels: int, rows: int, new_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of both sides together per category of falling frequency, no fewer than the test takes for itself."""
    shares = 1 / np.arange(1, levels + 1)
    pooled = rng.multinomial(rows + new_rows, shares / shares.sum())
    # Somewhat more: with rounded margins a category at the limit would be pooled.
    return pooled[pooled * min(rows, new_rows) >= (SMALLEST_EXPECTED + 0.1) * (rows + new_rows)]


def tables_of(pooled: np.ndarray, new_rows: int, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Undrifted counts of the new side under margins, by rising chi-square, and that statistic."""
    new = rng.multivariate_hypergeometric(pooled, new_rows, size=draws, method="marginals")
    expected = pooled * new_rows / pooled.sum()
    statistic = ((new - expected) ** 2 / expected).sum(axis=1) * pooled.sum() / (pooled.sum() - new_rows)
    order = np.argsort(statistic)
    return new[order], statistic[order]


def share_below(p_value: Callable[[int], float], draws: int, level: float) -> float:
    """Share of the draws, sorted by falling p-value, whose p-value is below a level."""
    low, high = 0, draws
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if p_value(middle) < level else (middle + 1, high)
    return (draws - low) / draws


@pytest.mark.parametrize(("rows", "new_rows"), [(10_000, 200), (2_000, 200), (10_000, 1_000), (2_000, 20_000)])
@pytest.mark.parametrize("levels", [12, 50, 300])
def test_chi_square_of_rare_categories(levels: int, rows: int, new_rows: int) -> None:
    """By the chi-square distribution up to 2.2 times as many undrifted draws as the level says are called drifted."""
    rng = np.random.default_rng([levels, rows, new_rows])
    pooled = margins(levels, rows, new_rows, rng)
    check_chi_square(pooled, round(new_rows * pooled.sum() / (rows + new_rows)), rng)


@pytest.mark.parametrize(("rows", "new_rows"), [(10_000, 200), (10_000, 1_000), (2_000, 20_000)])
@pytest.mark.parametrize("levels", [3, 5, 10])
def test_chi_square_of_a_few_common_categories(levels: int, rows: int, new_rows: int) -> None:
    """By a log-normal tail a quarter as many undrifted draws as the level says, so that drift of three is missed."""
    pooled = np.full(levels, (rows + new_rows) // levels)
    check_chi_square(pooled, new_rows, np.random.default_rng([levels, rows, new_rows]))


@pytest.mark.parametrize("rare", [3, 8, 30])
def test_chi_square_of_one_common_category_and_rare_ones(rare: int) -> None:
    """The most skewed of all: of each rare one the new side expects as few rows of its 200 as are tested alone.

    The statistic takes few values then, of which one may be just above a level.
    """
    few = round(SMALLEST_EXPECTED * 51)
    pooled = np.array([10_200 - rare * few, *[few] * rare])
    check_chi_square(pooled, 200, np.random.default_rng([rare, 200]), most=1.2)


def check_chi_square(pooled: np.ndarray, of_new: int, rng: np.random.Generator, *, most: float = 1.1) -> None:
    """The level is kept by draws of the new side from both sides together, and not fallen far short of."""
    draws = 1_000_000 if len(pooled) <= 12 else 300_000
    new, statistic = tables_of(pooled, of_new, draws, rng)
    moments = chi_square_moments(pooled.tolist(), of_new)
    assert moments.mean == pytest.approx(statistic.mean(), rel=0.02)
    assert moments.variance == pytest.approx(statistic.var(), rel=0.05)

    def p_value(number: int) -> float:
        sides = pooled - new[number], new[number]
        return two_sample_chi_square(*(dict(enumerate(side.tolist())) for side in sides))

    for level in (1e-2, 1e-3, 1e-4):
        chance = 3 * (level / draws) ** 0.5  # of so few draws
        found = share_below(p_value, draws, level)
        assert 0.7 * level - chance < found < most * level + chance, (level, found / level)


@pytest.mark.parametrize(("rows", "new_rows"), [(200, 1_000), (2_000, 200), (10_000, 1_000)])
def test_shares_outside_of_a_reference_whose_own_quantiles_bound_them(rows: int, new_rows: int) -> None:
    """Exactly: rows fall alike between any two neighbours of the reference, so counts outside are beta-binomial."""
    reference = NumericReference(pl.Series(np.arange(rows, dtype=float)))
    outside = 2 * round((rows - 1) * 0.005)
    counts = range(int(new_rows * 0.01 * 2) + 30)

    def p_value(count: int) -> float:
        beyond = np.arange(1.0, count + 1) + rows
        inside = np.linspace(rows * 0.1, rows * 0.9, new_rows - count)
        made = reference.tests(pl.Series(np.concatenate([beyond, inside])))
        return next(test for test in made if test.name == "tails").p_value()

    p_values = np.array([p_value(count) for count in counts])
    chances = betabinom.pmf(counts, new_rows, outside + 2, rows - outside - 1)
    for level in LEVELS:
        assert chances[p_values < level].sum() <= 1.1 * level


@pytest.mark.parametrize(("rows", "new_rows"), [(10_000, 200), (2_000, 200), (200, 200), (1_000, 1_000)])
def test_distributions(rows: int, new_rows: int) -> None:
    rng, draws = np.random.default_rng([rows, new_rows]), 10_000
    steps, distances = np.arange(new_rows + 1) / new_rows, []
    for _ in range(draws):
        below = np.sort(rng.choice(rows + new_rows, new_rows, replace=False)) - np.arange(new_rows)
        distances.append(max(np.abs(below / rows - steps[:-1]).max(), np.abs(steps[1:] - below / rows).max()))
    distances.sort()
    for level in (1e-2, 1e-3):
        found = share_below(lambda number: ks_p_value(distances[number], rows, new_rows), draws, level)
        assert found < 1.2 * level + 3 * (level / draws) ** 0.5
    assert ks_p_value(distances[draws // 2], rows, new_rows) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("levels", [5_000, 50_000])
@pytest.mark.parametrize(("rows", "new_rows"), [(2_000, 1_000), (2_000, 20_000)])
def test_values_never_seen_before(levels: int, rows: int, new_rows: int) -> None:
    """With part of the foretold share's variance, 2.4 % of windows of 20,000 rows are called drifted at 1 %."""
    rng, draws = np.random.default_rng([levels, rows, new_rows]), 400
    found = 0
    for _ in range(draws):
        old, new = (rng.multinomial(size, np.full(levels, 1 / levels)) for size in (rows, new_rows))
        sides = [dict(zip(map(str, side.nonzero()[0]), side[side > 0].tolist(), strict=True)) for side in (old, new)]
        made = category_tests(*sides, name="categories")
        found += next(test for test in made if test.method == "good-turing").p_value() < 0.05
    assert found <= 0.05 * draws + 3 * (0.05 * draws) ** 0.5


def test_a_category_of_one_side_alone_can_be_told() -> None:
    reference = CategoricalReference(pl.Series(["a"] * 900 + ["b"] * 100))
    made = reference.tests(pl.Series(["a"] * 900 + ["b"] * 50 + ["c"] * 50))
    assert min(test.p_value() for test in made) < 1e-8
