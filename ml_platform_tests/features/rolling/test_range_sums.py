"""Sums of ranges: right to the last digits wherever huge, infinite or missing values lie, short or long."""

import math

import numpy as np
import pytest

from ml_platform.features.rolling import range_sums as module
from ml_platform.features.rolling.range_sums import range_sums


@pytest.mark.parametrize("short", [1, 20, 1000])
def test_a_huge_or_missing_value_leaves_no_trace(monkeypatch, short):
    monkeypatch.setattr(module, "SHORT", short)
    random = np.random.default_rng(3)
    values = 10.0 ** random.uniform(-12, 12, 999) * random.choice([-1.0, 1.0], 999)
    values[100], values[200], values[300] = 1e300, math.inf, math.nan
    starts = random.integers(0, 1000, 5000)
    ends = np.minimum(starts + random.integers(0, 400, 5000), 999)
    starts = np.minimum(starts, ends)
    for start, end, found in zip(starts, ends, range_sums(values, starts, ends), strict=True):
        inside = values[start:end]
        wanted = math.fsum(inside) if np.isfinite(inside).all() else inside.sum()
        assert found == pytest.approx(wanted, rel=0, abs=1e-13 * np.abs(inside).sum(), nan_ok=True) or (
            found == wanted
        ), (start, end)
