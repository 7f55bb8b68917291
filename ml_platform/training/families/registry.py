"""The families by name. Their modules are loaded when they are first asked for, their libraries when they are used."""

from functools import cache
from typing import Final

from ml_platform.spec.families import BUILT_IN, family_class, family_info
from ml_platform.training.families.base import EstimatorFamily

_CLASSES: Final = {
    "logistic_regression": "sklearn_linear.LogisticRegressionFamily",
    "ridge": "sklearn_linear.RidgeFamily",
    "elastic_net": "sklearn_linear.ElasticNetFamily",
    "random_forest": "sklearn_trees.RandomForestFamily",
    "extra_trees": "sklearn_trees.ExtraTreesFamily",
    "hist_gradient_boosting": "sklearn_boosting.HistGradientBoostingFamily",
    "lightgbm": "lightgbm.LightGBMFamily",
    "xgboost": "xgboost.XGBoostFamily",
    "catboost": "catboost.CatBoostFamily",
    "torch_mlp": "torch_mlp.TorchMlpFamily",
    "keras_mlp": "keras_mlp.KerasMlpFamily",
}


@cache
def get_family(name: str) -> EstimatorFamily:
    """Give a family by its name, or a project's own by the dotted path of its class.

    Raises
    ------
    ValueError
        When there is no such family, its library is missing, or the class is no family.
    """
    family_info(name)
    path = f"{__package__}.{_CLASSES[name]}" if name in BUILT_IN else name
    found = family_class(path)
    if not (isinstance(found, type) and issubclass(found, EstimatorFamily)):
        raise ValueError(f"family '{name}': wanted a subclass of ml_platform.training.EstimatorFamily, found {found!r}")
    return found()
