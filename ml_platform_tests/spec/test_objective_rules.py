"""Weights, classes, quantiles and monotone features that a task or family does not have are refused when read."""

from typing import Any

import pytest
from pydantic import ValidationError

from ml_platform.spec.model import ModelSpec
from ml_platform_tests.toy_world import shop_spec

REGRESSION = {"task": "regression", "target": "minutes", "families": ["lightgbm"]}
MULTICLASS = {"task": "multiclass", "target": "outcome"}
TREES = {"families": ["lightgbm"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight": "late"}, "weight: 'late' is the target"),
        ({**REGRESSION, "class_weights": "balanced"}, "a regression has no classes; `weight` names a column"),
        ({"class_weights": {"late": 2}}, r"\['late'\] are no classes of a binary task, which are true and false"),
        ({"class_weights": "balance"}, "wanted `balanced`, or a positive number for each class"),
        ({"class_weights": {True: 0}}, "greater than 0"),
        ({"quantile": 0.9}, "quantile: only a regression has one, not task 'binary'"),
        ({**REGRESSION, "quantile": 1}, "less than 1"),
        (
            {**REGRESSION, "quantile": 0.9, "families": ["lightgbm", "ridge", "random_forest"]},
            r"quantile: \['random_forest', 'ridge'\] under `families` cannot do that; of the engine's families can: "
            "hist_gradient_boosting, lightgbm, xgboost, catboost, torch_mlp, keras_mlp",
        ),
        ({**REGRESSION, "quantile": 0.9, "promotion": {"metric": "rmse"}}, "'rmse' is not one of pinball for a quan"),
        ({**REGRESSION, "promotion": {"metric": "pinball"}}, "'pinball' is not one of rmse, .*r2 for regression"),
        (
            {"monotone": {"weight": "increasing"}},
            r"monotone: \['logistic_regression'\] under `families` cannot do that; of the engine's families can: "
            "hist_gradient_boosting, lightgbm, xgboost, catboost. Leave the others out, or leave `monotone` out",
        ),
        ({**TREES, "monotone": {"weight": "up"}}, "'increasing' or 'decreasing'"),
        ({**TREES, "monotone": {"shop": "increasing"}}, "the input 'shop' is a string; only numbers have an order"),
        ({**TREES, "monotone": {"ordered_at": "increasing"}}, "the input 'ordered_at' is no feature"),
        ({**TREES, **MULTICLASS, "monotone": {"weight": "increasing"}}, "scores of several classes cannot all rise"),
        (
            {**REGRESSION, "quantile": 0.5, "monotone": {"weight": "increasing"}},
            "monotone and quantile cannot be set together",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        shop_spec(**changes)


def test_what_can_be_fitted_is_read() -> None:
    spec = shop_spec(weight="weight", class_weights={True: 5}, families=["xgboost"], monotone={"weight": "decreasing"})
    assert spec.class_weights == {"true": 5.0}, "YAML reads `true` as a boolean"
    assert shop_spec(**MULTICLASS, class_weights={1: 2, "b": 3}).class_weights == {"1": 2.0, "b": 3.0}
    quantile = shop_spec(**REGRESSION, quantile=0.9)
    assert (quantile.metric, quantile.higher_is_better) == ("pinball", False)
    assert ModelSpec.model_validate(spec.model_dump()) == spec
