"""Families of estimators by name: what each can do and which library it needs, known without importing any of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from ml_platform.distribution import DISTRIBUTION
from ml_platform.spec.types import Task
from ml_platform.yaml_documents import unknown

Parameter = bool | int | float | str

CLASSES: Final[tuple[Task, ...]] = ("binary", "multiclass")
ALL: Final[tuple[Task, ...]] = (*CLASSES, "regression")


@dataclass(frozen=True)
class FamilyInfo:
    """What is known of a family without its library.

    Attributes
    ----------
    name
        What it is called in releases, in MLflow and, for those of the engine, in `defs.yaml`.
    tasks
        What it can predict.
    summary
        One line for the documentation.
    tolerance
        Largest difference between a score of the exported graph and the library's own (relative to its size for
        regression, from 1 on) that is rounding and not an error.
    missing
        What it makes of a missing number.
    library
        Module that it needs besides those of the extra `platform`.
    extra
        Extra of the distribution that brings the library.
    weights
        Whether its `fit` takes a weight per row, as `weight` and `class_weights` in `defs.yaml` need it.
    monotone
        Whether it has `monotone_params`, for scores that only rise or only fall with a feature.
    quantile
        Whether it has `quantile_params`, for a regression that gives a quantile.
    distributed
        Whether it has a `shard_booster`, by which several workers train one model, each on its part of the rows.
    """

    name: str
    tasks: tuple[Task, ...]
    summary: str = ""
    tolerance: float = 1e-10
    missing: str = "native"
    library: str | None = None
    extra: str | None = None
    weights: bool = False
    monotone: bool = False
    quantile: bool = False
    distributed: bool = False


_MEDIAN: Final = "the median"
_MEDIAN_AND_FLAG: Final = "the median, with a flag"
BUILT_IN: Final[Mapping[str, FamilyInfo]] = {
    info.name: info
    for info in (
        FamilyInfo(
            "logistic_regression",
            CLASSES,
            "scikit-learn: L2-regularised logistic regression",
            missing=_MEDIAN,
            weights=True,
        ),
        FamilyInfo(
            "ridge", ("regression",), "scikit-learn: L2-regularised linear regression", missing=_MEDIAN, weights=True
        ),
        FamilyInfo(
            "elastic_net",
            ("regression",),
            "scikit-learn: linear regression that leaves out features",
            missing=_MEDIAN,
            weights=True,
        ),
        FamilyInfo("random_forest", ALL, "scikit-learn: averaged deep trees", weights=True),
        FamilyInfo("extra_trees", ALL, "scikit-learn: averaged trees of random splits", weights=True),
        FamilyInfo(
            "hist_gradient_boosting", ALL, "scikit-learn: boosted trees", weights=True, monotone=True, quantile=True
        ),
        FamilyInfo(
            "lightgbm",
            ALL,
            "LightGBM: boosted trees, leaf by leaf",
            weights=True,
            monotone=True,
            quantile=True,
            distributed=True,
        ),
        FamilyInfo(
            "xgboost",
            ALL,
            "XGBoost: boosted trees, level by level",
            tolerance=1e-5,  # it adds its trees in float32
            library="xgboost",
            extra="xgboost",
            weights=True,
            monotone=True,
            quantile=True,
            distributed=True,
        ),
        FamilyInfo(
            "catboost",
            ALL,
            "CatBoost: boosted symmetric trees",
            missing="the smallest",
            library="catboost",
            extra="catboost",
            weights=True,
            monotone=True,
            quantile=True,
        ),
        FamilyInfo(
            "torch_mlp",
            ALL,
            "PyTorch: multilayer perceptron",
            tolerance=1e-9,
            missing=_MEDIAN_AND_FLAG,
            library="torch",
            extra="torch",
            weights=True,
            quantile=True,
        ),
        FamilyInfo(
            "keras_mlp",
            ALL,
            "Keras on TensorFlow: multilayer perceptron",
            tolerance=1e-9,
            missing=_MEDIAN_AND_FLAG,
            library="tensorflow",
            extra="tensorflow",
            weights=True,
            quantile=True,
        ),
    )
}


def family_info(name: str) -> FamilyInfo:
    """Describe a family by its name, or a project's own by the dotted path of its class.

    Raises
    ------
    ValueError
        When there is no such family, or its library is not installed; the message says what there is, or what to
        install.

    Examples
    --------
    >>> family_info("ridge").tasks
    ('regression',)
    >>> family_info("rigde")
    Traceback (most recent call last):
    ValueError: unknown family 'rigde'; did you mean 'ridge'? ...
    """
    if "." in name:
        return family_class(name).info
    if name not in BUILT_IN:
        message = unknown(name, BUILT_IN, what="family")
        raise ValueError(f"{message}. One of your own is named by the dotted path of its class")
    info = BUILT_IN[name]
    if info.library and find_spec(info.library) is None:
        raise ValueError(f"family '{name}' needs {info.library}: pip install '{DISTRIBUTION}[{info.extra}]'")
    return info


def family_class(path: str) -> Any:
    """Import a family's class by its dotted path.

    Raises
    ------
    ValueError
        When it cannot be imported, or is no family.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"family '{path}': wanted the dotted path of a class (your_project.defs.families.module.Class): {error}"
        ) from error
    if not isinstance(getattr(found, "info", None), FamilyInfo):
        raise ValueError(
            f"family '{path}': wanted a subclass of ml_platform.training.EstimatorFamily with "
            f"`info = FamilyInfo(…)`, found {found!r}"
        )
    return found
