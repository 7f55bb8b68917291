import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from ml_platform.training.bootstrap import gain_interval
from ml_platform.training.metrics import best_f1_threshold, gain, measure, weighted

N = 700
RANDOM = np.random.default_rng(1)
Y = (RANDOM.random(N) < 0.3).astype(float)
SCORE = np.round(np.clip(Y * 0.25 + RANDOM.random(N) * 0.7, 0.001, 0.999), 2)  # rounded: many ties


@pytest.fixture
def rng() -> np.random.Generator:
    """Numbers that are the same whichever tests have run before."""
    return np.random.default_rng(2)


def test_binary_metrics_are_scikit_learns() -> None:
    found = measure("binary", Y, SCORE, threshold=0.4)
    assert found["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(Y, SCORE), abs=1e-12)
    assert found["average_precision"] == pytest.approx(sklearn_metrics.average_precision_score(Y, SCORE), abs=1e-12)
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(Y, SCORE), abs=1e-12)
    assert found["brier"] == pytest.approx(sklearn_metrics.brier_score_loss(Y, SCORE), abs=1e-12)
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(Y, SCORE >= 0.4), abs=1e-12)
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(Y, SCORE >= 0.4), abs=1e-12)


def test_regression_metrics_are_scikit_learns(rng: np.random.Generator) -> None:
    y, score = rng.normal(size=N), rng.normal(size=N)
    found = measure("regression", y, score)
    assert found["rmse"] == pytest.approx(sklearn_metrics.root_mean_squared_error(y, score))
    assert found["mae"] == pytest.approx(sklearn_metrics.mean_absolute_error(y, score))
    assert found["r2"] == pytest.approx(sklearn_metrics.r2_score(y, score))


def test_multiclass_metrics_are_scikit_learns(rng: np.random.Generator) -> None:
    y = rng.integers(0, 3, N).astype(float)
    score = rng.dirichlet(np.ones(3), N)
    found = measure("multiclass", y, score)
    assert found["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(y, score, multi_class="ovr"))
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(y, score))
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(y, score.argmax(axis=1), average="macro"))
    assert found["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(y, score.argmax(axis=1)))
    expected = np.mean([sklearn_metrics.average_precision_score(y == k, score[:, k]) for k in range(3)])
    assert found["average_precision"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "log_loss", "f1", "accuracy"])
def test_weights_are_repetitions(name: str) -> None:
    """A row with weight 2 counts as that row twice: what a bootstrap resample is."""
    weights = np.bincount(np.random.default_rng(3).integers(0, N, N), minlength=N)
    repeated = np.repeat(np.arange(N), weights)
    by_weight = weighted(name, "binary", Y, SCORE, weights[None].astype(float), threshold=0.4)[0]
    assert by_weight == pytest.approx(measure("binary", Y[repeated], SCORE[repeated], threshold=0.4)[name], abs=1e-12)


def test_undefined_metric_is_left_out() -> None:
    found = measure("binary", np.ones(5), np.linspace(0.1, 0.9, 5))
    assert "roc_auc" not in found
    assert "log_loss" in found


def test_gain_is_positive_when_better() -> None:
    assert gain("roc_auc", 0.8, 0.7) == pytest.approx(0.1)
    assert gain("rmse", 10.0, 12.0) == pytest.approx(2.0)


def test_threshold_has_the_best_f1_of_all() -> None:
    chosen = best_f1_threshold(Y, SCORE)
    best = max(measure("binary", Y, SCORE, threshold=cut)["f1"] for cut in np.unique(SCORE))
    assert measure("binary", Y, SCORE, threshold=chosen)["f1"] == pytest.approx(best)


def test_interval_holds_the_gain_and_is_the_same_every_time(rng: np.random.Generator) -> None:
    worse = np.clip(SCORE + rng.normal(0, 0.3, N), 0.001, 0.999)
    one, two = (gain_interval("roc_auc", "binary", Y, SCORE, worse, confidence=0.95, seed=5) for _ in range(2))
    assert one is not None
    assert one == two
    assert one.lower < one.gain < one.upper
    assert one.lower > 0
    back = gain_interval("roc_auc", "binary", Y, worse, SCORE, confidence=0.95, seed=5)
    assert back is not None
    assert back.upper == pytest.approx(-one.lower)


def test_pairing_cancels_what_both_models_share(rng: np.random.Generator) -> None:
    """Two nearly equal models differ by far less than either varies from sample to sample."""
    close = gain_interval("roc_auc", "binary", Y, SCORE + 1e-4 * rng.random(N), SCORE, confidence=0.95)
    assert close is not None
    assert close.upper - close.lower < 0.01


def test_no_interval_without_both_classes_or_rows() -> None:
    assert gain_interval("roc_auc", "binary", np.ones(50), SCORE[:50], SCORE[:50], confidence=0.95) is None
    assert gain_interval("rmse", "regression", Y[:0], Y[:0], Y[:0], confidence=0.95) is None
