"""Adaptive conformal inference: intervals and sets that follow the labels, so that they hold the wanted share.

Day by day, as labels come (Gibbs and Candès, 2021): where intervals of a level held fewer labels of a day than wanted,
fewer may be missed from then on, and the other way round, by `gamma` times the difference. Each side of a regression's
interval is corrected by itself. How wide an interval of so many misses is, the newest labelled days tell.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from ml_platform.inference.intervals import LEVELS, class_sets, interval_bounds
from ml_platform.monitoring.performance.answers import Answers
from ml_platform.monitoring.recalibration.labelled_answers import DAY, LabelledAnswers
from ml_platform.registry.adapted_conformal import AdaptedConformal, CountedDay
from ml_platform.registry.manifest import Conformal
from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Task
from ml_platform.training.artifacts.bundle import iso
from ml_platform.training.uncertainty.conformal import MIN_ROWS, conformal_with, measured, numbers_of

SHOWN_LEVEL = 0.9
_REMEMBERED_DAYS = 90
_SHOWN_DAYS = 28
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FEW_ROWS = 20  # a day of so many counts half


@dataclass(frozen=True)
class _State:
    misses: np.ndarray  # (levels × below and above)
    history: list[CountedDay]
    days: int


def adapt(
    labelled: LabelledAnswers,
    spec: ModelSpec,
    digest: str,
    *,
    base: Conformal | None,
    before: AdaptedConformal | None,
    now: datetime,
) -> AdaptedConformal | None:
    """Count the labelled days that were not counted yet, and make the numbers that serve from now on.

    A day is counted once a later one has labels: the newest may still be incomplete. Counted days are never counted
    again, so that this may be repeated at any time.

    Parameters
    ----------
    labelled
        Labelled answers, of at least `recalibration.interval_window` before the first day to count.
    spec
        The model.
    digest
        Bundle that the numbers will be of.
    base
        What served before any label came, from the manifest.
    before
        What served last, of this bundle or of one that only its calibration differs from.
    now
        Instant of the update.

    Returns
    -------
    AdaptedConformal | None
        None where neither labels nor the manifest give any numbers.
    """
    through = None if before is None else _day(before.through)
    newest = labelled.days[-1]
    state = _start(before)
    for day in labelled.days:
        if day < newest and (through is None or day >= through):
            rows = labelled.of_days(day, day)
            served = _numbers(labelled, spec, state, base, last=day - 1 - labelled.late_days)
            if served is not None:
                state = _counted(state, rows, spec, served, day)
    conformal = _numbers(labelled, spec, state, base, last=newest)
    if conformal is None:
        return None
    recent = state.history[-_SHOWN_DAYS:]
    answered = sum(one.rows for one in recent)
    covered, wide = (
        sum(one.rows * value for one, value in zip(recent, values, strict=True))
        for values in ([one.coverage for one in recent], [one.width for one in recent])
    )
    return AdaptedConformal(
        digest=digest,
        conformal=conformal_with(
            {name: getattr(conformal, name) for name in ("levels", "lower", "upper", "cutoffs")},
            rows=conformal.rows,
            first=conformal.first,
            last=conformal.last,
            coverage=covered / answered if answered else None,
            width=wide / answered if answered else None,
        ),
        misses=tuple((float(below), float(above)) for below, above in state.misses),
        through=iso(_EPOCH + max(newest, through or newest) * DAY),
        days=state.days,
        gamma=spec.recalibration.gamma,
        history=tuple(state.history[-_REMEMBERED_DAYS:]),
        updated_at=iso(now),
    )


def _start(before: AdaptedConformal | None) -> _State:
    if before is None or len(before.misses) != len(LEVELS):
        return _State(_wanted(), [] if before is None else list(before.history), 0 if before is None else before.days)
    return _State(np.array(before.misses), list(before.history), before.days)


def _wanted() -> np.ndarray:
    half = (1 - np.array(LEVELS)) / 2
    return np.column_stack([half, half])


def _numbers(
    labelled: LabelledAnswers, spec: ModelSpec, state: _State, base: Conformal | None, *, last: int
) -> Conformal | None:
    """What is served after the labels up to a day are known; the manifest's while these are too few."""
    window = max(1, round(spec.recalibration.interval_window / DAY))
    rows = labelled.of_days(last - window + 1, last)
    if rows.rows < max(MIN_ROWS, spec.recalibration.min_rows):
        return base
    days = rows.days
    return conformal_with(
        numbers_of(spec.task, rows.y, rows.score, [(float(low), float(high)) for low, high in state.misses]),
        rows=rows.rows,
        first=iso(_EPOCH + int(days.min()) * DAY),
        last=iso(_EPOCH + int(days.max()) * DAY),
    )


def _counted(state: _State, rows: Answers, spec: ModelSpec, served: Conformal, day: int) -> _State:
    """Move the misses by how a day went."""
    missed = np.array([_missed(spec.task, rows, served, level) for level in LEVELS])
    step = spec.recalibration.gamma * rows.rows / (rows.rows + _FEW_ROWS)
    misses = np.clip(state.misses + step * (_wanted() - missed), 0.0, 0.5)
    numbers = {name: getattr(served, name) for name in ("levels", "lower", "upper", "cutoffs")}
    covered, width = measured(spec.task, rows.y, rows.score, numbers, SHOWN_LEVEL)
    one = CountedDay(day=f"{_EPOCH + day * DAY:%Y-%m-%d}", rows=rows.rows, coverage=float(covered), width=float(width))
    return _State(misses, [*state.history, one], state.days + 1)


def _missed(task: Task, rows: Answers, served: Conformal, level: float) -> tuple[float, float]:
    """Share of a day's labels that are below and above the intervals; of those outside of sets, half on either side."""
    if task == "regression":
        low, high = interval_bounds(served, level)
        return float((rows.y < rows.score + low).mean()), float((rows.y > rows.score + high).mean())
    sets = class_sets(served, level, rows.score)
    labels = rows.y.astype(np.int64)
    covered = (labels >= 0) & sets[np.arange(len(labels)), np.maximum(labels, 0)]
    return (float(1 - covered.mean()) / 2,) * 2


def _day(instant: str) -> int:
    return (datetime.fromisoformat(instant) - _EPOCH) // DAY
