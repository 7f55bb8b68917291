"""Adaptive intervals and sets on drawn answers: they hold the wanted share where the world moves; days count once."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from ml_platform.inference.intervals import LEVELS
from ml_platform.monitoring.performance.answers import Answers
from ml_platform.monitoring.recalibration.adapt import adapt
from ml_platform.monitoring.recalibration.labelled_answers import LabelledAnswers
from ml_platform.registry.adapted_conformal import AdaptedConformal
from ml_platform.registry.manifest import Conformal
from ml_platform.training.uncertainty.conformal import conformal_with, measured, numbers_of
from ml_platform_tests.toy_world import multiclass_spec, regression_spec, shop_spec

NOW = datetime(2024, 6, 1, tzinfo=UTC)
FIRST, ROWS = 19_000, 300  # day since 1970, answers of a day
SPECS = {"binary": shop_spec(), "multiclass": multiclass_spec(), "regression": regression_spec()}


def answers(task: str, days: int, *, spread: Any = lambda day: 1.0, seed: int = 0) -> LabelledAnswers:
    """Answers of days whose errors have a spread of their own."""
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(days), ROWS)
    if task == "regression":
        score = random.normal(50, 10, len(number))
        y = score + np.array([spread(day) for day in range(days)])[number] * random.gumbel(0, 3, len(number))
    else:
        classes = 2 if task == "binary" else 4
        odds = random.normal(0, 1.5, (len(number), classes))
        # A larger spread makes labels less certain than the scores say.
        true = odds / np.array([spread(day) for day in range(days)])[number][:, None]
        shares = [np.exp(one) / np.exp(one).sum(axis=1, keepdims=True) for one in (odds, true)]
        y = (shares[1].cumsum(axis=1) < random.random((len(number), 1))).sum(axis=1).astype(np.float64)
        score = shares[0][:, 1] if task == "binary" else shares[0]
    return LabelledAnswers(Answers(y, score, np.ones(len(y)), FIRST + number), 0, ())


def until(labelled: LabelledAnswers, days: int) -> LabelledAnswers:
    return LabelledAnswers(labelled.of_days(FIRST, FIRST + days - 1), 0, ())


def base_of(task: str) -> Conformal:
    labelled = answers(task, 5, seed=9)
    return conformal_with(numbers_of(SPECS[task].task, labelled.answers.y, labelled.answers.score), rows=1500)


def adapted(labelled: LabelledAnswers, task: str, before: AdaptedConformal | None = None) -> AdaptedConformal:
    found = adapt(labelled, SPECS[task], "a" * 64, base=base_of(task), before=before, now=NOW)
    assert found is not None
    return found


def numbers(conformal: Conformal) -> dict[str, tuple[float, ...]]:
    return {name: getattr(conformal, name) for name in ("levels", "lower", "upper", "cutoffs")}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_year_that_grows_uncertain_is_held_where_the_holdouts_numbers_fail(task: str) -> None:
    days = 60
    labelled = answers(task, days, spread=lambda day: 1 + 2 * day / days)
    later = labelled.of_days(FIRST + days // 2, FIRST + days)
    fixed, _ = measured(SPECS[task].task, later.y, later.score, numbers(base_of(task)))
    assert fixed < 0.86
    state, covered = None, []
    for day in range(2, days):
        state = adapted(until(labelled, day), task, state)
        if day >= days // 2:
            new = labelled.of_days(FIRST + day, FIRST + day)
            covered.append(measured(SPECS[task].task, new.y, new.score, numbers(state.conformal))[0])
    assert np.mean(covered) == pytest.approx(0.9, abs=0.015)


def test_each_side_of_an_interval_misses_alike() -> None:
    labelled = answers("regression", 40, spread=lambda day: 1 + day / 20)
    found = adapted(labelled, "regression")
    rows = labelled.of_days(FIRST + 30, FIRST + 39)
    low, high = (found.conformal.lower[LEVELS.index(0.9)], found.conformal.upper[LEVELS.index(0.9)])
    assert (rows.y < rows.score + low).mean() == pytest.approx(0.05, abs=0.025)
    assert (rows.y > rows.score + high).mean() == pytest.approx(0.05, abs=0.025)


@pytest.mark.parametrize("steps", [[20], [5, 20], list(range(2, 21)), [20, 20, 20], [3, 3, 19, 20]])
def test_however_often_it_runs_each_day_counts_once(steps: list[int]) -> None:
    labelled = answers("regression", 20, spread=lambda day: 1 + day / 10)
    state = None
    for days in steps:
        state = adapted(until(labelled, days), "regression", state)
    assert state is not None
    assert state.days == 19  # the newest may be incomplete
    assert [one.day for one in state.history] == sorted({one.day for one in state.history})
    whole = adapted(labelled, "regression")
    assert np.allclose(state.misses, whole.misses)
    assert msgspec.structs.replace(state.conformal, last="") == msgspec.structs.replace(whole.conformal, last="")


def test_few_answers_leave_the_manifests_numbers_and_none_there_are_none() -> None:
    labelled = answers("regression", 2)
    few = LabelledAnswers(labelled.of_days(FIRST, FIRST), 0, ())
    few = LabelledAnswers(
        Answers(few.answers.y[:50], few.answers.score[:50], np.ones(50), few.answers.days[:50]), 0, ()
    )
    assert numbers(adapted(few, "regression").conformal) == numbers(base_of("regression"))
    assert adapt(few, SPECS["regression"], "a" * 64, base=None, before=None, now=NOW) is None


def test_gamma_of_zero_only_rolls() -> None:
    rules = SPECS["regression"].recalibration.model_copy(update={"gamma": 0.0})
    spec = SPECS["regression"].model_copy(update={"recalibration": rules})
    labelled = answers("regression", 20, spread=lambda day: 1 + day / 5)
    found = adapt(labelled, spec, "a" * 64, base=base_of("regression"), before=None, now=NOW)
    assert found is not None
    assert found.misses == tuple(((1 - level) / 2, (1 - level) / 2) for level in LEVELS)


def test_misses_stay_within_bounds_where_nothing_is_ever_held() -> None:
    labelled = answers("regression", 40, spread=lambda day: 3.0**day)
    found = adapted(labelled, "regression")
    assert all(0 <= below <= 0.5 and 0 <= above <= 0.5 for below, above in found.misses)
    assert np.isfinite(found.conformal.upper).all()


def test_labels_of_classes_that_are_not_known_count_as_missed() -> None:
    labelled = answers("multiclass", 20)
    y = np.where(np.arange(len(labelled.answers.y)) % 5 == 0, -1.0, labelled.answers.y)
    one = labelled.answers
    found = adapted(LabelledAnswers(Answers(y, one.score, one.weights, one.days), 0, ()), "multiclass")
    assert found.conformal.coverage is not None
    assert found.conformal.coverage < 0.82  # a fifth can never be held
