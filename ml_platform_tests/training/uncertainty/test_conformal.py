"""Split conformal numbers: the promised share is held, on either side, for every level and task."""

import numpy as np
import pytest

from ml_platform.inference.intervals import LEVELS, class_sets, interval_bounds
from ml_platform.training.uncertainty.conformal import conformal_with, measured, numbers_of


def skewed(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    score = random.normal(10, 3, rows)
    return score + random.exponential(4, rows) - 2, score


@pytest.mark.parametrize("level", LEVELS)
def test_intervals_hold_the_wanted_share_of_new_rows_alike_on_both_sides(level):
    numbers = numbers_of("regression", *skewed(5_000, 1))
    y, score = skewed(20_000, 2)
    covered, width = measured("regression", y, score, numbers, level)
    assert covered == pytest.approx(level, abs=0.015)
    low, high = interval_bounds(conformal_with(numbers), level)
    assert width == high - low
    assert (y < score + low).mean() == pytest.approx((1 - level) / 2, abs=0.01)
    assert (y > score + high).mean() == pytest.approx((1 - level) / 2, abs=0.01)


def test_a_share_may_be_given_for_each_side():
    numbers = numbers_of("regression", *skewed(20_000, 1), misses=[(0.0, 0.2)] * len(LEVELS))
    y, score = skewed(20_000, 2)
    low, high = interval_bounds(conformal_with(numbers), 0.9)
    assert (y < score + low).mean() < 0.001
    assert (y > score + high).mean() == pytest.approx(0.2, abs=0.02)


def drawn(rows: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    shares = np.exp(random.normal(0, 1.3, (rows, classes)))
    score = shares / shares.sum(axis=1, keepdims=True)
    y = (score.cumsum(axis=1) < random.random((rows, 1))).sum(axis=1)
    return y.astype(np.float64), score[:, 1] if classes == 2 else score


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 4)])
def test_sets_hold_the_wanted_share_and_grow_with_it(task, classes):
    numbers = numbers_of(task, *drawn(5_000, classes, 1))
    y, score = drawn(20_000, classes, 2)
    sizes = []
    for level in (0.8, 0.9, 0.95, 0.99):
        covered, size = measured(task, y, score, numbers, level)
        assert covered == pytest.approx(level, abs=0.015)
        sizes.append(size)
    assert sizes == sorted(sizes)
    assert 1 <= sizes[0] < sizes[-1] <= classes


def test_a_set_is_never_empty():
    numbers = {"levels": (0.5, 0.99), "cutoffs": (0.95, 0.9)}
    sets = class_sets(conformal_with(numbers), 0.9, np.array([0.5, 0.2, 0.97]))
    assert sets.tolist() == [[True, False], [True, False], [False, True]]


def test_levels_between_lie_between_and_numbers_are_monotone_with_few_rows():
    y, score = skewed(12, 3)
    numbers = conformal_with(numbers_of("regression", y, score))
    assert list(numbers.upper) == sorted(numbers.upper)
    assert list(numbers.lower) == sorted(numbers.lower, reverse=True)
    assert numbers.upper[-1] == (y - score).max()
    assert interval_bounds(numbers, 0.87)[1] >= interval_bounds(numbers, 0.86)[1]


def test_labels_of_unknown_classes_are_never_in_a_set():
    y, score = drawn(2_000, 3, 4)
    y[:500] = -1
    numbers = numbers_of("multiclass", y, score)
    covered, size = measured("multiclass", y, score, numbers, 0.9)
    assert covered == pytest.approx(0.75)  # every class is in every set, and a quarter is of none of them
    assert size == 3
