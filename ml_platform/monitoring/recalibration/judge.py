"""Whether a calibration that is learned on the newest days may take the place of the one that serves.

Each of the newest days is answered by a calibration that is learned on the days before it whose labels were known then,
as a schedule would have done. What serves answers the same rows. Both are compared by log-loss and by expected
calibration error, each with a cluster t interval over the days: rows of one day are alike.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from ml_platform.inference.calibration import calibrated
from ml_platform.monitoring.performance.answers import Answers
from ml_platform.monitoring.recalibration.labelled_answers import DAY, LabelledAnswers
from ml_platform.registry.manifest import Calibration
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Interval
from ml_platform.training.evaluation.calibration import expected_calibration_error
from ml_platform.training.evaluation.cluster_interval import gain_interval
from ml_platform.training.uncertainty.platt import NotCalibratable, fit_platt

MIN_DAYS = 3  # judged ones, below which their differences say nothing
CONFIDENCE = 0.95


class NotJudged(ValueError):
    """The labelled answers do not tell whether another calibration is better; the message is the reason."""


@dataclass(frozen=True)
class Judgement:
    """What a new calibration does to answers that it was not learned on."""

    calibration: Calibration  # of the scores that serve, learned on the newest window
    y: np.ndarray  # labels of the judged rows
    scores: tuple[np.ndarray, np.ndarray]  # as served, and calibrated anew
    rows: int
    first: datetime
    last: datetime
    days: int
    log_loss: tuple[float, float]  # as served, and calibrated anew
    error: tuple[float, float]  # expected calibration error, likewise
    log_loss_gain: Interval
    error_gain: Interval
    change: float  # mean change of a probability on the newest window
    release: bool
    reasons: tuple[str, ...]
    blocks: np.ndarray  # day of each judged row
    groups: pl.DataFrame  # of the judged rows: columns that guardrails group them by


def judge_recalibration(labelled: LabelledAnswers, spec: ModelSpec) -> Judgement:
    """Learn a calibration on the newest window, and judge this way of learning it on the days of that window.

    Raises
    ------
    NotJudged
        With fewer labelled rows or days than it takes.
    """
    window = max(1, round(spec.recalibration.window / DAY))
    newest = labelled.days[-1]
    current = labelled.of_days(newest - window + 1, newest)
    if current.rows < spec.recalibration.min_rows:
        raise NotJudged(
            f"{current.rows:,} labelled answers of the last {window} days, fewer than recalibration.min_rows = "
            f"{spec.recalibration.min_rows}"
        )
    try:
        found = learned(spec, current)
    except NotCalibratable as error:
        raise NotJudged(str(error)) from error
    judged, anew = [], []
    for day in [one for one in labelled.days if one > newest - window]:
        last = day - 1 - labelled.late_days
        try:
            earlier = learned(spec, labelled.of_days(last - window + 1, last))
        except NotCalibratable:
            continue
        rows = labelled.of_days(day, day)
        judged.append(rows)
        anew.append(calibrated(earlier, rows.score))
    if len(judged) < MIN_DAYS:
        raise NotJudged(
            f"{len(judged)} of the last {window} days have enough labelled answers before them to learn from, "
            f"{MIN_DAYS} are wanted"
        )
    y, score, days, weights = (
        np.concatenate([getattr(one, name) for one in judged]) for name in ("y", "score", "days", "weights")
    )
    groups = pl.concat([one.groups for one in judged], how="diagonal_relaxed")
    judgement = _judgement(spec, found, current, y, score, np.concatenate(anew), days, weights)
    return replace(judgement, groups=groups)


def learned(spec: ModelSpec, answers: Answers) -> Calibration:
    """Learn a calibration of answers' own scores (raises NotCalibratable)."""
    days = answers.days if answers.rows else np.zeros(1, dtype=np.int64)
    return fit_platt(
        spec.task,
        answers.y,
        answers.score,
        fitted_on="labelled",
        first=_instant(days.min()),
        last=_instant(days.max() + 1),
        weights=answers.weights,
    )


def _judgement(  # noqa: PLR0917 - private
    spec: ModelSpec,
    found: Calibration,
    current: Answers,
    y: np.ndarray,
    score: np.ndarray,
    anew: np.ndarray,
    days: np.ndarray,
    weights: np.ndarray,
) -> Judgement:
    loss = gain_interval("log_loss", spec.task, y, anew, score, blocks=days, confidence=CONFIDENCE, weights=weights)
    if loss is None:
        raise NotJudged("log-loss is undefined on the labelled answers")
    blocks = len(np.unique(days))
    loss_gain = Interval(
        gain=loss.estimate,
        lower=loss.lower,
        upper=loss.upper,
        confidence=CONFIDENCE,
        standard_error=loss.standard_error,
        blocks=blocks,
        block="day",
    )
    error_gain = _error_gain(spec, y, score, anew, days)
    losses = tuple(float(np.average(_losses(spec, y, one), weights=weights)) for one in (score, anew))
    errors = tuple(expected_calibration_error(spec.task, y, one) for one in (score, anew))
    change = float(np.abs(calibrated(found, current.score) - current.score).mean())
    verdicts = [
        (change >= spec.recalibration.min_change, f"it changes a probability by {change:.4f} on average, at least "
         f"{spec.recalibration.min_change:g} wanted (recalibration.min_change)"),
        (loss_gain.upper >= 0, f"log-loss {losses[0]:.4f} → {losses[1]:.4f}: {_words(loss_gain)}; not surely worse "
         "wanted"),
        (error_gain.upper >= 0, f"expected calibration error {errors[0]:.4f} → {errors[1]:.4f}: {_words(error_gain)}; "
         "not surely worse wanted"),
        (loss_gain.gain > 0 or error_gain.gain > 0, "one of both better wanted"),
    ]  # fmt: skip
    reasons = tuple(f"{'Passed' if passed else 'Failed'}: {said}." for passed, said in verdicts)
    return Judgement(
        calibration=found,
        y=y,
        scores=(score, anew),
        rows=len(y),
        first=_instant(days.min()),
        last=_instant(days.max() + 1),
        days=blocks,
        log_loss=(losses[0], losses[1]),
        error=(errors[0], errors[1]),
        log_loss_gain=loss_gain,
        error_gain=error_gain,
        change=change,
        release=all(passed for passed, _ in verdicts),
        reasons=reasons,
        blocks=days,
        groups=pl.DataFrame(),
    )


def _error_gain(spec: ModelSpec, y: np.ndarray, score: np.ndarray, anew: np.ndarray, days: np.ndarray) -> Interval:
    """How much smaller the expected calibration error becomes: a jackknife over days, and Student's t."""
    from scipy.stats import t

    def gain(chosen: np.ndarray) -> float:
        before, after = (expected_calibration_error(spec.task, y[chosen], one[chosen]) for one in (score, anew))
        return before - after

    each = np.unique(days)
    whole = gain(np.ones(len(y), dtype=bool))
    without = np.array([gain(days != day) for day in each])
    blocks = len(each)
    deviation = float(np.sqrt((blocks - 1) / blocks * ((without - without.mean()) ** 2).sum()))
    reach = float(t.ppf((1 + CONFIDENCE) / 2, blocks - 1)) * deviation
    return Interval(
        gain=whole,
        lower=whole - reach,
        upper=whole + reach,
        confidence=CONFIDENCE,
        standard_error=deviation,
        blocks=blocks,
        block="day",
    )


def _losses(spec: ModelSpec, y: np.ndarray, score: np.ndarray) -> np.ndarray:
    from ml_platform.training.evaluation.metrics import row_loss

    return row_loss("log_loss", spec.task, y, score)


def _words(interval: Interval) -> str:
    return (
        f"gain {interval.gain:+.4f}, {100 * interval.confidence:.4g}% interval {interval.lower:+.4f} to "
        f"{interval.upper:+.4f} over {interval.blocks} days"
    )


def _instant(day: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=int(day))
