"""What every family of estimators must hold, the engine's and a project's own alike: the conformance suite."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ml_platform.inference.matrix import UNKNOWN_LABEL
from ml_platform.registry.manifest import MISSING_CODE
from ml_platform.spec.types import Task
from ml_platform.testing.family_checks import (
    check_calibration,
    check_explanation,
    check_export,
    check_scores,
    check_signature,
    hold,
    hold_near,
    train,
)
from ml_platform.testing.family_data import FamilyData, draw, large_numbers, many_categories, many_classes
from ml_platform.testing.family_objectives import class_weights, monotone, quantile, row_weights, typed_rows
from ml_platform.training.families.base import EstimatorFamily
from ml_platform.training.families.registry import get_family

_SUGGESTIONS = 3


@dataclass(frozen=True)
class FamilyCase:
    """One requirement, for one family and task.

    Attributes
    ----------
    family
        Name or dotted path.
    task
        Kind of model.
    requirement
        Name of what is checked.
    slow
        Whether it takes more than a second or two.
    """

    family: str
    task: Task
    requirement: str
    slow: bool

    def __str__(self) -> str:
        """Name the case in reports of tests."""
        return f"{self.family.rpartition('.')[2]}-{self.task}-{self.requirement}"


def family_cases(family: str) -> list[FamilyCase]:
    """List what a family must hold, to parametrise a test with.

    Parameters
    ----------
    family
        Name of one of the engine's families, or the dotted path of a class of your own.

    Raises
    ------
    ValueError
        When there is no such family, or its library is not installed.

    Examples
    --------
    >>> [str(case) for case in family_cases("ridge")][:2]
    ['ridge-regression-same_scores', 'ridge-regression-edge_columns']
    """
    info = get_family(family).info
    return [
        FamilyCase(family, task, name, wanted.slow or (wanted.once and task != info.tasks[0]))
        for task in info.tasks
        for name, wanted in _REQUIREMENTS.items()
        if task in wanted.tasks and (wanted.capability is None or getattr(info, wanted.capability))
    ]


def check_family(case: FamilyCase) -> None:
    """Check one requirement of a family.

    Raises
    ------
    AssertionError
        If it does not hold, with what was wanted and what was found.
    """
    try:
        _REQUIREMENTS[case.requirement].check(get_family(case.family), case.task)
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{case}: wanted no error, found {type(error).__name__}: {error}") from error


def _same_scores(family: EstimatorFamily, task: Task) -> None:
    """Early stopping, determinism, and the export on real and nasty rows, with explanation and calibration."""
    data = draw(task, 800)
    stopped = train(family, data, validation=(data.X[600:], data.y[600:]), rows=600)
    params = family.fitted_params(stopped, family.default_params(task))
    hold(set(params) >= set(family.default_params(task)), "`fitted_params` to keep the parameters", params)
    estimator = train(family, data, params=params, rows=600)
    again, stopped_scores = family.predict(estimator, task, data.X), family.predict(stopped, task, data.X)
    hold_near(again, stopped_scores, family.info.tolerance, "the same model without validation rows")
    onnx = family.export(estimator, task, data.features)
    hold(onnx == family.export(estimator, task, data.features), "two exports to have the same bytes", "they differ")
    twin = train(family, data, params=params, rows=600)
    hold_near(family.predict(twin, task, data.X), again, 0.0, "the same model from the same rows and seed")
    hold(family.export(twin, task, data.features) == onnx, "an equal model to give an equal graph", "they differ")
    check_scores(family, estimator, onnx, data)
    check_signature(onnx, data)
    check_explanation(family, onnx, data)
    if task != "regression":
        check_calibration(family, onnx, data)
    weights = family.importance(estimator, task, data.features, data.X[:300])
    names = [feature.name for feature in data.features]
    hold(list(weights) == names, f"importance of {names}", list(weights))
    hold(all(np.isfinite(value) and value >= 0 for value in weights.values()), "weights from 0 on", weights)
    hold(weights["noise"] < weights["signal"], "a feature that decides to weigh more than noise", weights)
    for name, content in family.native_files(estimator).items():
        hold(bool(name) and isinstance(content, bytes) and bool(content), "files with content", name)


def _edge_columns(family: EstimatorFamily, task: Task) -> None:
    """Constant and all-null columns, and categories that never occur."""
    data = draw(task, 300)
    X = data.X.copy()
    X[:, 1], X[:, 2], X[:, 4] = 7.7, np.nan, MISSING_CODE
    check_export(family, FamilyData(task, data.features, X, data.y))


def _three_rows(family: EstimatorFamily, task: Task) -> None:
    """A table with hardly any rows."""
    data = draw(task, 300)
    y = np.array([0.0, 1.0, 1.0])
    check_export(family, FamilyData(task, data.features, data.X[:3], y))


def _one_class(family: EstimatorFamily, task: Task) -> None:
    """Rows of a single class are refused in words, whatever the library would make of them."""
    data = draw(task, 100)
    try:
        train(family, FamilyData(task, data.features, data.X, np.zeros(100)))
    except ValueError as error:
        hold("same class" in str(error), "an error that names the single class", error)
    else:
        raise AssertionError(f"family '{family.info.name}': wanted an error for rows of one class, found none")


def _unknown_class(family: EstimatorFamily, task: Task) -> None:
    """Validation rows may have a class that the training rows lack, or no other."""
    data = draw(task, 400)
    known = data.y[:300].clip(max=1.0)
    X_validation, y_validation = data.X[300:], np.where(data.y[300:] == 2, UNKNOWN_LABEL, data.y[300:])
    two_classes = FamilyData(task, data.features, data.X[:300], known)
    train(family, two_classes, validation=(X_validation, np.full(100, UNKNOWN_LABEL)))
    estimator = train(family, two_classes, validation=(X_validation, y_validation))
    onnx = family.export(estimator, task, data.features)
    check_scores(family, estimator, onnx, two_classes)
    check_explanation(family, onnx, two_classes)


def _many_categories(family: EstimatorFamily, task: Task) -> None:
    check_export(family, many_categories(task, 5_000))


def _many_classes(family: EstimatorFamily, task: Task) -> None:  # noqa: ARG001 - of one task
    check_export(family, many_classes(100))


def _large_numbers(family: EstimatorFamily, task: Task) -> None:
    """Epoch seconds, long ids, pascals, and numbers beyond those of float32."""
    check_export(family, large_numbers(task))


def _suggestions(family: EstimatorFamily, task: Task) -> None:
    """The search space: what it draws has the names of the defaults, and exports as these do."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    data, names = draw(task, 600), set(family.default_params(task))
    for _ in range(_SUGGESTIONS):
        params = family.suggest(task, study.ask())
        hold(set(params) == names, f"suggested parameters {sorted(names)}", sorted(params))
        estimator = train(family, data, params=params, validation=(data.X[:200], data.y[:200]))
        check_scores(family, estimator, family.export(estimator, task, data.features), data)


Check = Callable[[EstimatorFamily, Task], None]
_CLASSES: tuple[Task, ...] = ("binary", "multiclass")
_ALL: tuple[Task, ...] = (*_CLASSES, "regression")


@dataclass(frozen=True)
class _Requirement:
    """What is checked, of which tasks, and of which families."""

    check: Check
    tasks: tuple[Task, ...] = _ALL
    slow: bool = False
    once: bool = False  # quick, but not of every task when time matters
    capability: str | None = None  # attribute of `FamilyInfo` that says whether a family has to hold it


_REQUIREMENTS: dict[str, _Requirement] = {
    "same_scores": _Requirement(_same_scores),
    "edge_columns": _Requirement(_edge_columns, once=True),
    "three_rows": _Requirement(_three_rows, once=True),
    "one_class": _Requirement(_one_class, _CLASSES),
    "unknown_class": _Requirement(_unknown_class, ("multiclass",)),
    "large_numbers": _Requirement(_large_numbers, slow=True),
    "many_categories": _Requirement(_many_categories, slow=True),
    "many_classes": _Requirement(_many_classes, ("multiclass",), slow=True),
    "suggestions": _Requirement(_suggestions, slow=True),
    "typed_rows": _Requirement(typed_rows, once=True),
    "row_weights": _Requirement(row_weights, once=True, capability="weights"),
    "class_weights": _Requirement(class_weights, _CLASSES, once=True, capability="weights"),
    "monotone": _Requirement(monotone, ("binary", "regression"), once=True, capability="monotone"),
    "quantile": _Requirement(quantile, ("regression",), capability="quantile"),
}
