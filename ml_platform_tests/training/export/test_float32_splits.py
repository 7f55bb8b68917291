"""Thresholds for doubles that part them as comparisons of float32 do."""

import numpy as np
import pytest

from ml_platform.training.export.float32_splits import double_thresholds


@pytest.mark.parametrize("inclusive", [True, False])
def test_every_double_goes_the_way_that_its_rounding_goes(inclusive: bool) -> None:
    random = np.random.default_rng(0)
    splits = np.concatenate(
        [
            random.normal(size=2_000) * 10.0 ** random.integers(-30, 30, 2_000),
            random.normal(size=500).astype(np.float32),  # some are float32 themselves
            [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-40, 2.0**24, 2.0**24 + 1],
        ]
    )
    thresholds = double_thresholds(splits, inclusive=inclusive)
    near = splits.astype(np.float32)
    neighbours = [np.nextafter(near, np.float32(side)).astype(np.float64) for side in (-np.inf, np.inf)]
    middles = [(near.astype(np.float64) + one) / 2 for one in neighbours]
    for value in (splits, near.astype(np.float64), thresholds, *neighbours, *middles):
        for beside in (np.nextafter(value, -np.inf), value, np.nextafter(value, np.inf)):
            rounded = beside.astype(np.float32).astype(np.float64)
            np.testing.assert_array_equal(beside <= thresholds, rounded <= splits if inclusive else rounded < splits)
