"""The cluster t interval against the delta method, textbook cases and its own symmetries."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from ml_platform.spec.model import CLASSIFICATION_METRICS, REGRESSION_METRICS
from ml_platform.spec.types import Task
from ml_platform.training.evaluation.blocks import block_ids
from ml_platform.training.evaluation.cluster_interval import gain_interval, metric_interval
from ml_platform.training.evaluation.metrics import gain, weighted

CASES: list[tuple[Task, str]] = [
    *(("binary", name) for name in CLASSIFICATION_METRICS),
    *(("multiclass", name) for name in CLASSIFICATION_METRICS),
    *(("regression", name) for name in REGRESSION_METRICS),
]
ROWS = 300


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def sample(task: Task, rng: np.random.Generator, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores that know something of them; of a classification rounded to ten values where ties are asked."""
    if task == "regression":
        y = rng.normal(1e3, 2.0, ROWS)
        return y, y + rng.normal(0, 1.5, ROWS)
    if task == "binary":
        y = (rng.random(ROWS) < 0.3).astype(float)
        score = np.clip(0.3 + 0.2 * (y - 0.3) + rng.normal(0, 0.15, ROWS), 0.02, 0.98)
        return y, score.round(1).clip(0.1, 0.9) if ties else score
    labels = rng.integers(0, 3, ROWS)
    odds = np.exp(rng.normal(0, 1, (ROWS, 3)) + 1.2 * np.eye(3)[labels])
    score = odds / odds.sum(axis=1, keepdims=True)
    return labels.astype(float), score.round(1) + 0.01 if ties else score


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("task", "metric"), CASES)
def test_standard_error_is_near_the_delta_methods(
    task: Task, metric: str, ties: bool, rng: np.random.Generator
) -> None:
    """Each row's weight times the metric's derivative by it, summed by block: its spread over the blocks."""
    y, score = sample(task, rng, ties=ties)
    weights, blocks = rng.uniform(0.5, 3.0, ROWS), np.arange(ROWS) % 30
    step = 1e-5
    slopes = [weighted(metric, task, y, score, weights + sign * step * np.eye(ROWS), threshold=0.4) for sign in (1, -1)]
    sums = np.bincount(blocks, weights * (slopes[0] - slopes[1]) / (2 * step))
    found = metric_interval(metric, task, y, score, blocks=blocks, weights=weights, threshold=0.4)
    assert found is not None
    assert found.standard_error == pytest.approx(np.sqrt(30 / 29 * (sums @ sums)), rel=0.1)
    assert found.estimate == pytest.approx(weighted(metric, task, y, score, weights[None, :], threshold=0.4)[0])
    assert found.blocks == 30
    assert found.effective_blocks == pytest.approx(30, rel=0.05)


def test_many_blocks_are_left_out_in_groups(rng: np.random.Generator) -> None:
    """The standard error of a mean over independent rows, from a hundred groups of them; the same every time."""
    y, score = rng.normal(0, 1, 50_000), np.zeros(50_000)
    one, again = (metric_interval("mae", "regression", y, score, blocks=np.arange(50_000)) for _ in range(2))
    assert one is not None
    assert one == again
    assert one.standard_error == pytest.approx(np.abs(y).std() / np.sqrt(50_000), rel=0.2)
    assert one.blocks == 50_000


def test_mean_over_single_rows_has_the_textbook_interval() -> None:
    y = np.array([1.0, 2.0, 3.0, 4.0])
    found = metric_interval("mae", "regression", y, np.zeros(4), blocks=np.arange(4))
    assert found is not None
    error = np.std(y, ddof=1) / 2
    assert found.standard_error == pytest.approx(error)
    assert found.upper == pytest.approx(2.5 + 3.182446 * error)  # Student's quantile with 3 degrees of freedom


def test_a_row_of_weight_two_is_two_rows_of_its_block(rng: np.random.Generator) -> None:
    y, score = sample("binary", rng)
    twice = np.arange(ROWS) % 3 == 0
    blocks = np.arange(ROWS) // 20
    doubled = [np.concatenate([values, values[twice]]) for values in (y, score, blocks)]
    weighed = metric_interval("roc_auc", "binary", y, score, blocks=blocks, weights=1.0 + twice)
    repeated = metric_interval("roc_auc", "binary", doubled[0], doubled[1], blocks=doubled[2])
    assert weighed is not None
    assert repeated is not None
    assert (weighed.lower, weighed.upper) == pytest.approx((repeated.lower, repeated.upper))


def test_a_row_of_weight_zero_makes_no_block() -> None:
    y = np.tile([0.0, 1.0], 10)
    weights = np.repeat([1.0, 0.0], 10)
    found = metric_interval("brier", "binary", y, np.full(20, 0.4), blocks=np.repeat(np.arange(4), 5), weights=weights)
    assert found is not None
    assert found.blocks == 2


@pytest.mark.parametrize(("task", "metric"), CASES)
def test_gain_is_positive_when_better_and_turns_its_sign(task: Task, metric: str, rng: np.random.Generator) -> None:
    y, score = sample(task, rng)
    worse = score[rng.permutation(ROWS)]
    blocks = np.arange(ROWS) % 25
    found = gain_interval(metric, task, y, score, worse, blocks=blocks)
    back = gain_interval(metric, task, y, worse, score, blocks=blocks)
    assert found is not None
    assert back is not None
    assert 0 < found.lower < found.estimate < found.upper
    assert (back.lower, back.upper) == pytest.approx((-found.upper, -found.lower))
    values = [weighted(metric, task, y, one, np.ones((1, ROWS)))[0] for one in (score, worse)]
    assert found.estimate == pytest.approx(gain(metric, *values))


def test_pairing_cancels_what_both_models_share(rng: np.random.Generator) -> None:
    y, score = sample("binary", rng)
    blocks = np.arange(ROWS) % 25
    close = gain_interval("roc_auc", "binary", y, score + 1e-4 * rng.random(ROWS), score, blocks=blocks)
    alone = metric_interval("roc_auc", "binary", y, score, blocks=blocks)
    assert close is not None
    assert alone is not None
    assert close.standard_error < alone.standard_error / 20


def test_thresholds_belong_to_their_models(rng: np.random.Generator) -> None:
    y, score = sample("binary", rng)
    blocks = np.arange(ROWS) % 25
    found = gain_interval("f1", "binary", y, score, score / 2, blocks=blocks, thresholds=(0.4, 0.2))
    assert found is not None
    assert (found.estimate, found.lower, found.upper) == (0, 0, 0)


def test_few_large_blocks_count_for_little(rng: np.random.Generator) -> None:
    y, score = sample("binary", rng)
    blocks = np.minimum(np.arange(ROWS), 20)  # twenty rows by themselves, all others in one block
    found = metric_interval("brier", "binary", y, score, blocks=blocks)
    assert found is not None
    assert found.blocks == 21
    assert found.effective_blocks < 1.2


def test_a_bounded_metric_keeps_its_bounds() -> None:
    y = np.tile([0.0, 0.0, 1.0, 1.0], 5)
    score = np.where(np.arange(20) == 1, 0.95, np.where(y > 0, 0.9, 0.1))
    found = metric_interval("roc_auc", "binary", y, score, blocks=np.repeat(np.arange(5), 4))
    assert found is not None
    assert found.lower < found.estimate < found.upper == 1


def test_no_interval_without_both_classes_two_blocks_or_rows() -> None:
    y, blocks = np.tile([0.0, 1.0], 10), np.repeat(np.arange(5), 4)
    assert metric_interval("roc_auc", "binary", np.ones(20), y, blocks=blocks) is None
    assert metric_interval("average_precision", "binary", np.zeros(20), y, blocks=blocks) is None
    assert metric_interval("r2", "regression", np.ones(20), y, blocks=blocks) is None
    assert metric_interval("brier", "binary", y, y, blocks=np.zeros(20)) is None
    one_day_has_all_positives = np.where(y > 0, 0, blocks)
    assert metric_interval("roc_auc", "binary", y, y, blocks=one_day_has_all_positives) is None
    assert metric_interval("rmse", "regression", y[:0], y[:0], blocks=blocks[:0]) is None
    assert gain_interval("rmse", "regression", y[:0], y[:0], y[:0], blocks=blocks[:0]) is None


def test_models_that_never_miss_have_an_interval_without_width() -> None:
    y, blocks = np.tile([0.0, 1.0], 10), np.repeat(np.arange(5), 4)
    for task, metric in (("binary", "roc_auc"), ("regression", "rmse"), ("binary", "average_precision")):
        found = metric_interval(metric, task, y, y, blocks=blocks)  # type: ignore[arg-type]
        assert found is not None
        assert found.standard_error == pytest.approx(0, abs=1e-12)


def test_blocks_are_utc_days_iso_weeks_columns_or_rows() -> None:
    start = datetime(2026, 5, 2, 22, tzinfo=UTC)  # a Saturday evening
    rows = pl.DataFrame(
        {"at": [start + timedelta(hours=hours) for hours in (0, 3, 30)], "shop": ["b", None, "b"], "n": [1.5, 2.5, 1.5]}
    )
    assert block_ids(rows, "day", "at").tolist() == [0, 1, 2]
    assert block_ids(rows, "week", "at").tolist() == [0, 0, 1]
    assert block_ids(rows, "rows", "at").tolist() == [0, 1, 2]
    assert block_ids(rows, "shop", "at").tolist() == [0, -1, 0]
    assert block_ids(rows, "n", "at").tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match=r"'city' is neither day, week nor rows, .* at, shop, n"):
        block_ids(rows, "city", "at")
