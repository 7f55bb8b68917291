"""The guards: what two equal versions must hardly ever do, and what a worse one must not get through with."""

from dataclasses import replace

import numpy as np
import pytest

from ml_platform.monitoring.canary.guards import GUARDS, chance_of, judge_step
from ml_platform.registry.manifest import CanaryPolicy
from ml_platform_tests.monitoring.canary.walks import requests

POLICY = CanaryPolicy()
SHARES = [step / 100 for step in POLICY.steps[:-1]]


def breaches(seed: int, number: int = 1000, **effects: float) -> set[str]:
    """Guards that a whole walk breaches."""
    random, found = np.random.default_rng(seed), set()
    for share in SHARES:
        judged = judge_step(requests(random, share, number, **effects), POLICY, is_end=True)  # type: ignore[arg-type]
        found |= {finding.guard for finding in judged.breaches}
    return found


@pytest.mark.parametrize(
    ("guard", "effects"),
    [
        ("errors", {"more_errors": 0.08}),
        ("latency", {"slower": 2.0}),
        ("flags", {"more_flags": 0.15}),
        ("scores", {"shift": 1.2}),
    ],
)
def test_each_guard_finds_its_own(guard: str, effects: dict[str, float]) -> None:
    assert breaches(1, 2000, **effects) == {guard}


def test_an_equal_version_passes_and_all_is_told() -> None:
    judged = judge_step(requests(np.random.default_rng(2), 0.25, 500), POLICY, is_end=True)
    assert not judged.breaches
    assert tuple(finding.guard for finding in judged.findings) == GUARDS
    assert all(finding.said and 0 <= finding.chance <= 1 for finding in judged.findings)


def test_a_version_that_fails_wholly_is_found_by_the_first_look() -> None:
    outcomes = requests(np.random.default_rng(3), 0.05, 200, more_errors=1.0)
    judged = judge_step(outcomes, POLICY, is_end=False)
    assert {finding.guard for finding in judged.breaches} == {"errors"}
    assert int(outcomes.is_canary[: judged.requests].sum()) == 25


def test_later_requests_change_nothing_about_earlier_looks() -> None:
    """Whoever repeats a look, after a kill, finds the same."""
    outcomes = requests(np.random.default_rng(4), 0.05, 400, more_errors=0.5)
    whole = judge_step(outcomes, POLICY, is_end=False)
    assert whole.breaches
    assert judge_step(outcomes.first(whole.requests), POLICY, is_end=False) == whole
    assert not judge_step(outcomes.first(whole.requests - 1), POLICY, is_end=False).breaches


def test_one_client_that_fails_is_no_fault_of_its_version() -> None:
    """All requests of an id go to one version: a hundred failures of one client are one failure."""
    random = np.random.default_rng(5)
    outcomes = requests(random, 0.25, 500, errors=0.0)
    client = np.flatnonzero(outcomes.is_canary)[:150]
    unit, failed = outcomes.unit.copy(), outcomes.failed.copy()
    unit[client], failed[client] = 7, True
    judged = judge_step(replace(outcomes, unit=unit, failed=failed), POLICY, is_end=True)
    assert judged.findings[0].difference > 0.2
    assert not judged.breaches
    assert chance_of(failed, outcomes.is_canary, outcomes.unit) < 1e-10  # were they many clients


@pytest.mark.parametrize("side", [True, False])
def test_too_few_ids_are_not_judged(side: bool) -> None:
    outcomes = requests(np.random.default_rng(6), 0.25, 500, more_errors=1.0)
    unit = outcomes.unit.copy()
    unit[outcomes.is_canary == side] %= 9
    assert not judge_step(replace(outcomes, unit=unit), POLICY, is_end=True).breaches


def test_nothing_but_one_side_is_not_judged() -> None:
    outcomes = requests(np.random.default_rng(7), 0.25, 100)
    for side in (True, False):
        alone = replace(outcomes, is_canary=np.full_like(outcomes.is_canary, side))
        assert judge_step(alone, POLICY, is_end=True).findings == ()
    assert judge_step(outcomes.first(0), POLICY, is_end=True).findings == ()


def test_a_class_that_is_given_more_often_is_found() -> None:
    random = np.random.default_rng(8)
    outcomes = requests(random, 0.25, 2000, ids=10**5)
    other = random.random(len(outcomes.scores))
    owner = outcomes.is_canary[outcomes.score_request]
    other = np.where(owner, other**2, other)
    three = np.column_stack([outcomes.scores[:, 0] / 9, other, 1 - other - outcomes.scores[:, 0] / 9])
    [scores] = judge_step(replace(outcomes, scores=three), POLICY, is_end=True).breaches
    assert scores.guard == "scores"


@pytest.mark.slow
@pytest.mark.parametrize("number", [200, 1000])
def test_an_equal_version_is_hardly_ever_rolled_back(number: int) -> None:
    """`false_alarm`, 1 %, holds for the whole walk: of 400, more than 11 have a chance of 0.1 % at 1 %."""
    alarms = [breaches(seed, number) for seed in range(400)]
    assert sum(map(bool, alarms)) <= 11, alarms


@pytest.mark.slow
@pytest.mark.parametrize(
    ("effects", "least"),
    [({"errors": 0.0, "more_errors": 0.05}, 0.9), ({"slower": 2.0}, 0.75), ({"more_flags": 0.15}, 0.9)],
)
def test_a_worse_version_seldom_gets_through(effects: dict[str, float], least: float) -> None:
    found = [bool(breaches(seed, 1000, **effects)) for seed in range(100)]
    assert np.mean(found) >= least
