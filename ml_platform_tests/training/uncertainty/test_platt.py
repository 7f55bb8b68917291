"""Platt scaling recovers what bent the probabilities, refuses what it cannot learn of, and composes."""

from datetime import UTC, datetime

import numpy as np
import pytest

from ml_platform.inference.calibration import calibrated
from ml_platform.registry.manifest import Calibration
from ml_platform.training.evaluation.calibration import expected_calibration_error
from ml_platform.training.uncertainty.platt import NotCalibratable, compose, fit_platt

DAY = datetime(2024, 1, 1, tzinfo=UTC)


def fitted(task, y, score, **more) -> Calibration:
    return fit_platt(task, y, score, fitted_on="validation", first=DAY, last=DAY, **more)


def softmax(values: np.ndarray) -> np.ndarray:
    shares = np.exp(values)
    return shares / shares.sum(axis=1, keepdims=True)


def bent(rows: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    """Labels of true log-odds, and scores whose log-odds are twice that, and one too high."""
    random = np.random.default_rng(5)
    odds = random.normal(-1, 1.2, rows)
    y = (random.random(rows) < 1 / (1 + np.exp(-odds))).astype(np.float64)
    return y, 1 / (1 + np.exp(-(2 * odds + 1)))


def test_it_undoes_what_bent_the_log_odds():
    y, score = bent()
    found = fitted("binary", y, score)
    assert found.slope == pytest.approx(0.5, abs=0.02)
    assert found.shifts[0] == pytest.approx(-0.5, abs=0.04)
    assert found.error_before > 0.1
    assert found.error_after < 0.01
    assert expected_calibration_error("binary", y, calibrated(found, score)) == found.error_after


def test_it_is_what_scikit_learn_fits_on_the_same_log_odds():
    from sklearn.linear_model import LogisticRegression

    y, score = bent(4_000)
    odds = np.log(score / (1 - score))[:, None]
    other = LogisticRegression(C=np.inf).fit(odds, y)
    found = fitted("binary", y, score)
    assert found.slope == pytest.approx(other.coef_[0, 0], rel=2e-3)  # whose labels are not smoothed
    assert found.shifts[0] == pytest.approx(other.intercept_[0], abs=5e-3)


def test_of_several_classes_it_finds_one_slope_and_a_shift_each():
    random = np.random.default_rng(6)
    odds = random.normal(0, 1, (40_000, 3))
    y = (softmax(odds).cumsum(axis=1) < random.random((40_000, 1))).sum(axis=1)
    score = softmax(1.6 * odds + np.array([0.8, 0.0, -0.5]))
    found = fitted("multiclass", np.where(np.arange(40_000) % 50, y, -1), score)
    assert found.rows == 39_200  # without those of an unknown class
    assert found.slope == pytest.approx(1 / 1.6, abs=0.02)
    assert np.abs(calibrated(found, score) - softmax(odds)).max() < 0.03
    assert found.error_after < 0.01 < found.error_before


def test_a_class_without_rows_keeps_its_share_of_the_others():
    random = np.random.default_rng(7)
    score = softmax(random.normal(0, 1, (2_000, 4)))
    y = 1 + (score[:, 1] < score[:, 2])
    y = np.where(random.random(2_000) < 0.2, 3 - y, y)
    found = fitted("multiclass", y, score)
    assert len(found.shifts) == 4
    assert np.isfinite(calibrated(found, score)).all()


def test_probabilities_of_0_and_1_are_held_at_what_rows_can_tell():
    y, score = bent(4_000)
    rounded = np.round(score, 2)
    found = fitted("binary", y, rounded)
    assert found.floor == pytest.approx(1e-3)
    answers = calibrated(found, np.array([0.0, 1e-30, 1.0]))
    assert 0 < answers[0] == answers[1] < 0.05
    assert 0.9 < answers[2] < 1
    assert fitted("binary", y, score).floor == 1e-12


@pytest.mark.parametrize(
    ("y", "score", "said"),
    [
        (np.ones(5_000), np.linspace(0.1, 0.9, 5_000), "0 of them of other classes"),
        (np.tile([0.0, 1.0], 40), np.linspace(0.1, 0.9, 80), "80 rows"),
        (np.repeat([1.0, 0.0], 500), np.linspace(0.1, 0.9, 1_000), "ranks the wrong way"),
        (np.tile([0.0, 1.0], 500), np.linspace(0.1, 0.9, 1_000), "hardly ranks"),
    ],
)
def test_what_cannot_be_learned_of_is_refused_with_the_reason(y, score, said):
    with pytest.raises(NotCalibratable, match=said):
        fitted("binary", y, score)


def test_one_after_the_other_is_one():
    y, score = bent(4_000)
    first = fitted("binary", y, score)
    second = fitted("binary", 1 - y[::-1].round(), 1 - score[::-1])
    both = compose(first, second)
    assert np.allclose(calibrated(both, score), calibrated(second, calibrated(first, score)), atol=1e-12)
    assert compose(None, second) is second


def test_rows_that_stand_for_several_count_so():
    y, score = bent(3_000)
    weights = np.where(y > 0.5, 3.0, 1.0)
    found = fitted("binary", y, score, weights=weights)
    repeated = np.repeat(np.arange(3_000), weights.astype(int))
    assert found.slope == pytest.approx(fitted("binary", y[repeated], score[repeated]).slope, rel=0.01)
