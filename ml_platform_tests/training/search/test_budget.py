import pytest
from pydantic import ValidationError

from ml_platform.spec.model import Tuning
from ml_platform.training.search.budget import Budget
from ml_platform.training.search.records import TrialRecord
from ml_platform_tests.toy_world import shop_spec

FAMILIES = ("ridge", "lightgbm")


def record(family: str, *, state: str = "complete", seconds: float = 1.0) -> TrialRecord:
    return TrialRecord.model_validate(
        {"number": 0, "family": family, "state": state, "suggested": {}, "params": {}, "seconds": seconds}
    )


@pytest.mark.parametrize(
    ("declared", "each", "total"),
    [
        ({}, 8, 16),
        ({"trials": 3}, 3, 6),
        ({"total_trials": 20}, None, 20),
        ({"total_trials": 20, "trials": 12}, 12, 20),
        ({"total_trials": 20, "trials": 5}, 5, 10),
    ],
)
def test_trials_of_each_family_and_of_all(declared: dict, each: int | None, total: int) -> None:
    tuning = Tuning(**declared)
    assert (tuning.trials_per_family, tuning.most_trials(2)) == (each, total)


def test_a_family_that_has_had_its_trials_is_closed_and_those_under_way_count() -> None:
    budget = Budget(FAMILIES, Tuning(trials=2))
    assert budget.open_families([], [], 0) == FAMILIES
    assert budget.open_families([record("ridge")], ["ridge"], 0) == ("lightgbm",)
    assert budget.open_families([record("ridge")] * 2, ["lightgbm"] * 2, 0) == ()


def test_time_ends_a_family_or_the_search_once_a_trial_has_succeeded() -> None:
    each = Budget(FAMILIES, Tuning(timeout_minutes=1))
    assert each.open_families([record("ridge", seconds=61)], [], 61) == ("lightgbm",)
    total = Budget(FAMILIES, Tuning(total_timeout_minutes=1))
    assert total.open_families([record("ridge")], [], 59) == FAMILIES
    assert total.open_families([record("ridge")], [], 61) == ()
    assert total.open_families([record("ridge", state="failed")], [], 61) == FAMILIES


def test_a_family_that_only_fails_is_closed() -> None:
    budget = Budget(FAMILIES, Tuning(total_trials=20))
    failed = [record("ridge", state="failed")] * 3
    assert budget.open_families(failed, [], 0) == ("lightgbm",)
    assert budget.open_families([record("ridge", state="pruned"), *failed], [], 0) == FAMILIES


def test_fewer_trials_than_families_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"tuning.total_trials: 1 is less than one trial for each of the 2 fam"):
        shop_spec(tuning={"total_trials": 1})
