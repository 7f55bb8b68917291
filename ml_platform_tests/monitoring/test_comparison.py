"""Columns compared one by one: the parts of the rule."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import ks_2samp, wasserstein_distance

from ml_platform.monitoring.comparison import Column, compare
from ml_platform.monitoring.ordinary import ordinary_distances
from ml_platform.monitoring.two_sample import two_sample_chi_square
from ml_platform.spec import Monitoring

MONITORING = Monitoring()


@pytest.fixture
def rng() -> np.random.Generator:
    """Numbers that are the same whichever tests have run before."""
    return np.random.default_rng(0)


def test_numbers_are_those_of_scipy(rng: np.random.Generator) -> None:
    old, new = rng.normal(size=3000), rng.normal(0.2, 1, size=800)
    (found,), _ = compare(pl.DataFrame({"x": old}), pl.DataFrame({"x": new}), [Column("x", "numeric")], MONITORING)
    assert found.p_value == pytest.approx(ks_2samp(old, new).pvalue)
    assert found.distance == pytest.approx(wasserstein_distance(old, new) / old.std())
    assert found.p_threshold == 0.05  # a single test
    assert found.drifted


def test_significance_is_shared_by_all_tests(rng: np.random.Generator) -> None:
    old = pl.DataFrame({"x": rng.normal(size=1000), "y": rng.normal(size=1000)}).with_columns(
        y=pl.when(pl.int_range(1000) % 10 > 0).then("y")
    )
    found, _ = compare(old, old, [Column("x", "numeric"), Column("y", "numeric")], MONITORING)
    assert [one.p_threshold for one in found] == [pytest.approx(0.05 / 3)] * 2  # x, y, and whether y is missing


def test_significant_but_tiny_is_no_drift(rng: np.random.Generator) -> None:
    old, new = rng.normal(size=50_000), rng.normal(0.05, 1, size=50_000)
    (found,), _ = compare(pl.DataFrame({"x": old}), pl.DataFrame({"x": new}), [Column("x", "numeric")], MONITORING)
    assert found.p_value is not None
    assert found.p_value < found.p_threshold
    assert not found.drifted


def test_far_but_by_chance_is_no_drift(rng: np.random.Generator) -> None:
    old, new = rng.normal(size=5000), rng.normal(size=30)
    (found,), _ = compare(pl.DataFrame({"x": old}), pl.DataFrame({"x": new}), [Column("x", "numeric")], MONITORING)
    assert found.distance is not None
    assert found.distance > found.distance_threshold
    assert not found.drifted


def test_infinite_and_boolean_values_are_compared() -> None:
    old = pl.DataFrame({"x": [1.0, float("inf"), float("nan")] * 200, "flag": [True, False, None] * 200})
    found, _ = compare(old, old, [Column("x", "numeric"), Column("flag", "numeric")], MONITORING)
    assert [one.judged for one in found] == [True, True]
    assert not any(one.drifted for one in found)


def test_categories_that_the_model_does_not_know_are_one() -> None:
    old = pl.DataFrame({"c": [f"rare{i}" for i in range(500)] + ["a"] * 500})
    new = pl.DataFrame({"c": [f"fresh{i}" for i in range(500)] + ["a"] * 500})
    (found,), _ = compare(old, new, [Column("c", "categorical", categories=("a",))], MONITORING)
    assert found.distance == pytest.approx(0.0)
    assert not found.drifted
    assert found.new_categories.count("fresh") == 5


def test_empty_columns_are_not_judged() -> None:
    old = pl.DataFrame({"x": pl.Series([None] * 10, dtype=pl.Float64), "y": range(10)})
    found, _ = compare(old, old, [Column("x", "numeric"), Column("y", "numeric")], MONITORING)
    assert [(one.judged, one.drifted) for one in found] == [(False, False), (True, False)]
    with pytest.raises(ValueError, match="no values in 1 columns"):
        compare(old, old, [Column("x", "numeric")], MONITORING)


def test_two_sample_chi_square_keeps_its_level(rng: np.random.Generator) -> None:
    """Of 400 undrifted pairs of samples with 40 categories about 5 % are significant at 0.05."""
    shares = rng.dirichlet(np.ones(40))
    rejected = sum(
        two_sample_chi_square(*(dict(enumerate(rng.multinomial(1000, shares))) for _ in range(2))) < 0.05
        for _ in range(400)
    )
    assert 5 <= rejected <= 40


def weekly(weeks: int, rng: np.random.Generator) -> pl.DataFrame:
    """Rows whose mean changes from week to week, as weather does."""
    means = np.random.default_rng(1).normal(size=weeks)
    rows = weeks * 700
    at = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=number / 100) for number in range(rows)]
    return pl.DataFrame({"at": at, "x": np.repeat(means, 700) + rng.normal(size=rows)})


def test_an_ordinary_week_is_no_drift(rng: np.random.Generator) -> None:
    reference, columns = weekly(12, rng), [Column("x", "numeric")]
    ordinary = ordinary_distances(reference, columns, timestamp="at", window=timedelta(days=7), min_rows=500)
    typical = reference.slice(7 * 700, 700)
    (blind,), _ = compare(reference, typical, columns, MONITORING)
    (seeing,), _ = compare(reference, typical, columns, MONITORING, ordinary=ordinary)
    assert blind.drifted
    assert not seeing.drifted
    beyond = typical.with_columns(pl.col("x") + 5)
    (found,), _ = compare(reference, beyond, columns, MONITORING, ordinary=ordinary)
    assert found.drifted
    assert found.distance_threshold == ordinary["x"] > MONITORING.distance


def test_few_windows_say_nothing_of_the_ordinary(rng: np.random.Generator) -> None:
    columns = [Column("x", "numeric")]
    assert ordinary_distances(weekly(3, rng), columns, timestamp="at", window=timedelta(days=7), min_rows=500) == {}
