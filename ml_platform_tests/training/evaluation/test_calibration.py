"""The calibration error against plain definitions, ties, several classes and unknown labels."""

import numpy as np
import pytest

from ml_platform.training.evaluation.calibration import calibration_bins, expected_calibration_error


def test_it_is_the_weighted_gap_of_bins_of_equal_size():
    random = np.random.default_rng(3)
    score = random.permutation(np.linspace(0.01, 0.99, 500))
    y = (random.random(500) < score**2).astype(np.float64)
    order = np.argsort(score)
    gaps = [abs(score[part].mean() - y[part].mean()) for part in np.split(order, 10)]
    assert expected_calibration_error("binary", y, score) == pytest.approx(np.mean(gaps))
    assert [one.rows for one in calibration_bins("binary", y, score)] == [50] * 10


def test_perfect_probabilities_have_a_small_error_and_wrong_ones_their_own():
    random = np.random.default_rng(0)
    score = random.uniform(0.05, 0.95, 200_000)
    y = (random.random(len(score)) < score).astype(np.float64)
    assert expected_calibration_error("binary", y, score) < 0.006
    assert expected_calibration_error("binary", y, np.clip(score - 0.05, 0, 1)) == pytest.approx(0.05, abs=0.004)


def test_rows_of_equal_probability_stay_together_in_whatever_order_they_come():
    y = np.array([1.0] * 30 + [0.0] * 70)
    constant = np.full(100, 0.3)
    assert expected_calibration_error("binary", y, constant) == pytest.approx(0.0, abs=1e-12)
    assert len(calibration_bins("binary", y, constant)) == 1
    score = np.round(np.random.default_rng(1).random(100), 1)
    shuffled = np.random.default_rng(2).permutation(100)
    assert expected_calibration_error("binary", y, score) == pytest.approx(
        expected_calibration_error("binary", y[shuffled], score[shuffled])
    )


def test_of_several_classes_the_most_probable_counts_and_an_unknown_label_is_a_miss():
    score = np.array([[0.8, 0.1, 0.1]] * 10)
    labels = np.array([0] * 8 + [2, -1])
    assert expected_calibration_error("multiclass", labels, score) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error("multiclass", np.full(10, -1), score) == pytest.approx(0.8)


def test_a_regression_and_no_rows_have_none():
    with pytest.raises(ValueError, match="a regression has none"):
        expected_calibration_error("regression", np.zeros(2), np.zeros(2))
    assert np.isnan(expected_calibration_error("binary", np.zeros(0), np.zeros(0)))
