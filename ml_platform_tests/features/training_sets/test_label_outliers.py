"""A label that can hardly be right is named with its row, and nothing is said of heavy tails."""

import numpy as np
import polars as pl
import pytest

from ml_platform.features.training_sets.label_outliers import label_outliers, outliers
from ml_platform_tests.toy_world import regression_spec, shop_spec


def rows(values: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame({"order_id": [f"order-{number}" for number in range(len(values))], "minutes": values})


@pytest.mark.parametrize("size", [50, 100, 5_000])
def test_one_absurd_label_is_named_with_its_row(size: int) -> None:
    values = np.random.default_rng(0).uniform(1, 100, size)
    values[17] = 1e12
    [said] = label_outliers(rows(values), regression_spec())
    assert said.startswith("minutes 1e+12 in the row with order_id 'order-17', where the median is ")
    values[17] = 50.0
    assert label_outliers(rows(values), regression_spec()) == ()


def test_a_sentinel_in_a_few_rows_is_named() -> None:
    values = np.random.default_rng(0).normal(15, 3, 1_000)
    values[[3, 5, 8, 13]] = -9999.0
    said = label_outliers(rows(values), regression_spec())
    assert len(said) == 4
    assert said[-1] == "and 1 more such rows"
    assert "minutes -9999 in the row with order_id 'order-3'" in said[0]


@pytest.mark.parametrize("seed", range(5))
def test_tails_zeros_and_counts_are_none(seed: int) -> None:
    random = np.random.default_rng(seed)
    assert not len(outliers(random.lognormal(0, 2, 20_000)))
    assert not len(outliers(random.pareto(1.5, 20_000)))
    assert not len(outliers(random.standard_t(2, 20_000)))
    assert not len(outliers(np.where(random.random(20_000) < 0.99, 0.0, random.exponential(50, 20_000))))
    assert not len(outliers(random.poisson(0.01, 20_000).astype(float)))


def test_what_cannot_be_judged_is_not() -> None:
    assert outliers(np.array([])).tolist() == []
    assert outliers(np.array([1e12])).tolist() == []
    assert outliers(np.full(100, 7.0)).tolist() == []
    assert outliers(np.array([1.0, 2.0, 3.0, np.nan, np.inf] * 20)).tolist() == []
    assert label_outliers(pl.DataFrame({"order_id": ["a"], "late": [True]}), shop_spec()) == ()
