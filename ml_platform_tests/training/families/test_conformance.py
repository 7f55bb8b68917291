"""Every family of the engine against the conformance suite that a project's own are checked by."""

import os

import pytest

from ml_platform.spec.families import BUILT_IN
from ml_platform.testing import FamilyCase, check_family, family_cases

FRAMEWORKS = {"torch", "tensorflow"}  # extras that `make setup-families` installs, for the slow tests alone
# What LightGBM and XGBoost show in less time in the fast tests.
OBJECTIVES = {"typed_rows", "row_weights", "class_weights", "monotone", "quantile"}
LONG = {"extra_trees", "hist_gradient_boosting", "catboost"}


def cases() -> list[object]:
    """The cases of all families; one that says what to install, of a family without its library."""
    found: list[object] = []
    for name, info in BUILT_IN.items():
        heavy = info.extra in FRAMEWORKS
        try:
            for case in family_cases(name):
                slow = heavy or case.slow or (name in LONG and case.requirement in OBJECTIVES)
                found.append(pytest.param(case, marks=[pytest.mark.slow] * slow, id=str(case)))
        except ValueError as error:
            found.append(pytest.param(error, marks=[pytest.mark.slow] * heavy, id=name))
    return found


@pytest.mark.parametrize("case", cases())
def test_family_conforms(case: FamilyCase | ValueError) -> None:
    if isinstance(case, ValueError):
        assert "CI" not in os.environ, f"continuous integration has all families: {case}"
        pytest.skip(f"{case}, or `make setup-families`")
    check_family(case)
