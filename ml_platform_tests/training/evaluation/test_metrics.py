import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from ml_platform.spec.model import CLASSIFICATION_METRICS
from ml_platform.spec.threshold import ErrorCost, Threshold
from ml_platform.training.evaluation.metrics import best_f1_threshold, choose_threshold, gain, measure, weighted

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


def test_a_class_without_rows_has_no_part_in_an_average(rng: np.random.Generator) -> None:
    """What scikit-learn does where it has an answer at all: it has none for the ROC AUC of an absent class."""
    y = rng.integers(0, 3, N).astype(float)
    score = rng.dirichlet(np.ones(4), N)
    score[:, 3] /= 100  # never predicted either
    score /= score.sum(axis=1, keepdims=True)
    found = measure("multiclass", y, score)
    assert set(found) == set(CLASSIFICATION_METRICS)
    aucs = [sklearn_metrics.roc_auc_score(y == k, score[:, k]) for k in range(3)]
    assert found["roc_auc"] == pytest.approx(np.mean(aucs))
    assert found["average_precision"] == pytest.approx(
        np.mean([sklearn_metrics.average_precision_score(y == k, score[:, k]) for k in range(3)])
    )
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(y, score.argmax(axis=1), average="macro"))
    labels = [0, 1, 2, 3]
    assert found["log_loss"] == pytest.approx(sklearn_metrics.log_loss(y, score, labels=labels))
    assert found["brier"] == pytest.approx(
        sklearn_metrics.brier_score_loss(y, score, labels=labels, scale_by_half=False)
    )
    alone = measure("multiclass", np.ones(5), score[:5])
    assert set(alone) == set(CLASSIFICATION_METRICS) - {"roc_auc"}


def test_labels_of_unknown_classes_are_errors(rng: np.random.Generator) -> None:
    """They are one more class, to which the model gives no probability."""
    y = rng.integers(-1, 3, N).astype(float)
    score = rng.dirichlet(np.ones(3), N)
    wider = np.column_stack([score, np.zeros(N)])
    found = measure("multiclass", y, score)
    assert found == measure("multiclass", np.where(y < 0, 3, y), wider)
    assert found["accuracy"] == pytest.approx(np.mean(y == score.argmax(axis=1)))
    assert found["log_loss"] > 30 * np.mean(y < 0)
    actual = np.where(y < 0, 3, y)
    assert found["f1"] == pytest.approx(sklearn_metrics.f1_score(actual, score.argmax(axis=1), average="macro"))
    right = np.eye(3)[[0] * 10]
    mostly_unknown = measure("multiclass", np.array([0.0] * 10 + [-1.0] * 90), np.vstack([right] * 10))
    assert mostly_unknown["accuracy"] == pytest.approx(0.1)


@pytest.mark.parametrize("offset", [0.0, 1e6, 1e9, -1e12])
def test_r2_does_not_depend_on_where_zero_is(rng: np.random.Generator, offset: float) -> None:
    y = rng.normal(size=N)
    score = y + rng.normal(size=N) / 4
    expected = sklearn_metrics.r2_score(y, score)
    assert measure("regression", y + offset, score + offset)["r2"] == pytest.approx(expected, abs=1e-3)
    assert "r2" not in measure("regression", np.full(N, 0.1 + offset), score)


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


@pytest.mark.parametrize("costs", [(1.0, 1.0), (1.0, 6.0), (9.0, 1.0), (1.0, 1e-6)])
def test_threshold_has_the_lowest_cost_of_all(costs: tuple[float, float]) -> None:
    def cost(cut: float) -> float:
        return costs[0] * ((cut <= SCORE) & (Y == 0)).sum() + costs[1] * ((cut > SCORE) & (Y == 1)).sum()

    rule = Threshold(cost=ErrorCost(false_positive=costs[0], false_negative=costs[1]))
    chosen = choose_threshold(rule, Y, SCORE)
    cuts = [*np.unique(SCORE), 2.0]
    assert cost(chosen) == pytest.approx(min(map(cost, cuts)))
    assert chosen == pytest.approx(max(cut for cut in (*cuts[:-1], chosen) if cost(cut) == cost(chosen)))
    assert choose_threshold(Threshold(value=0.25), Y, SCORE) == 0.25
    assert choose_threshold(Threshold(), Y, SCORE) == best_f1_threshold(Y, SCORE)


def test_the_loss_of_a_quantile_is_scikit_learns_and_least_at_the_quantile(rng: np.random.Generator) -> None:
    y = rng.exponential(size=N)
    score = rng.normal(size=N)
    found = measure("regression", y, score, quantile=0.9)
    assert set(found) == {"pinball", "coverage"}
    assert found["pinball"] == pytest.approx(sklearn_metrics.mean_pinball_loss(y, score, alpha=0.9))
    assert found["coverage"] == pytest.approx((y <= score).mean())
    losses = {q: measure("regression", y, np.full(N, np.quantile(y, q)), quantile=0.9)["pinball"] for q in (0.8, 0.9)}
    assert losses[0.9] < losses[0.8]
    assert gain("pinball", losses[0.9], losses[0.8]) > 0
    with pytest.raises(ValueError, match="or wants a quantile"):
        weighted("pinball", "regression", y, score, np.ones((1, N)))
