"""What the gate's intervals promise, by simulation: 95 % of them hold the truth, whatever a day does to its rows."""

import numpy as np
import pytest

from ml_platform.training.evaluation.cluster_interval import gain_interval, metric_interval
from ml_platform.training.evaluation.metrics import weighted

ROWS_PER_DAY = 100
REPETITIONS = 1_000  # the share of a true 95 % varies by 0.7 points then
METRICS, EFFECTS, DAYS = ["roc_auc", "log_loss"], [0, 0.3, 0.6], [14, 28]

pytestmark = pytest.mark.slow


def probability(log_odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-log_odds))


def draw(
    rng: np.random.Generator, days: int, effect: float, *, models: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, the scores of two equally good models, and days.

    Each day shifts the true log-odds of its rows by a normal value of standard deviation `effect`, and what each model
    makes of them by a value of standard deviation `models`, all independent of one another.
    """
    day = np.repeat(np.arange(days), ROWS_PER_DAY)
    known = rng.normal(-0.5, 1.0, len(day))
    shifts = (rng.normal(0, 1, (3, days)) * [[effect], [models], [models]])[:, day]
    y = (rng.random(len(day)) < probability(known + shifts[0])).astype(np.float64)
    one, other = (probability(known + rng.normal(0, 0.5, len(day)) + shift) for shift in shifts[1:])
    return y, one, other, day


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("days", DAYS)
def test_95_percent_of_the_intervals_of_a_gain_hold_the_truth(days: int, effect: float, metric: str) -> None:
    """Two models that are equally good, and err each by the day: no gain is the truth."""
    rng = np.random.default_rng(days)
    lower, upper = np.zeros(REPETITIONS), np.zeros(REPETITIONS)
    for repetition in range(REPETITIONS):
        y, one, other, day = draw(rng, days, effect, models=effect)
        found = gain_interval(metric, "binary", y, one, other, blocks=day)
        assert found is not None
        lower[repetition], upper[repetition] = found.lower, found.upper
    assert np.mean((lower <= 0) & (upper >= 0)) == pytest.approx(0.95, abs=0.02)
    assert np.mean(lower > 0) <= 0.05  # of equally good challengers would be called better


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("days", DAYS)
def test_95_percent_of_the_intervals_of_one_model_hold_the_truth(days: int, effect: float, metric: str) -> None:
    rng = np.random.default_rng(days)
    y, score, _, _ = draw(np.random.default_rng(0), 20_000, effect, models=0)
    truth = weighted(metric, "binary", y, score, np.ones((1, len(y))))[0]
    held = []
    for _ in range(REPETITIONS):
        y, score, _, day = draw(rng, days, effect, models=0)
        found = metric_interval(metric, "binary", y, score, blocks=day)
        assert found is not None
        held.append(found.lower <= truth <= found.upper)
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_rows_taken_for_independent_hold_the_truth_far_too_seldom() -> None:
    """What the blocks are for: the same intervals over single rows."""
    rng = np.random.default_rng(2)
    held = []
    for _ in range(300):
        y, one, other, day = draw(rng, 28, 0.6, models=0.6)
        found = gain_interval("log_loss", "binary", y, one, other, blocks=np.arange(len(day)))
        assert found is not None
        held.append(found.lower <= 0 <= found.upper)
    assert np.mean(held) < 0.85
