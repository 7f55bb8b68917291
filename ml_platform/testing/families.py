"""What every family of estimators must hold, the engine's and a project's own alike: the conformance suite."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_platform.inference.matrix import UNKNOWN_LABEL
from ml_platform.registry.manifest import MISSING_CODE
from ml_platform.spec.types import Task
from ml_platform.testing.family_data import FamilyData, draw, large_numbers, many_categories, many_classes
from ml_platform.training.documents import ParityReport
from ml_platform.training.export.parity import check_parity
from ml_platform.training.families.base import EstimatorFamily
from ml_platform.training.families.fitting import train_estimator
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
    tasks_of_family = get_family(family).info.tasks
    return [
        FamilyCase(family, task, requirement, slow or (requirement in _ONCE and task != tasks_of_family[0]))
        for task in tasks_of_family
        for requirement, (_, tasks, slow) in _REQUIREMENTS.items()
        if task in tasks
    ]


def check_family(case: FamilyCase) -> None:
    """Check one requirement of a family.

    Raises
    ------
    AssertionError
        If it does not hold, with what was wanted and what was found.
    """
    check, _, _ = _REQUIREMENTS[case.requirement]
    try:
        check(get_family(case.family), case.task)
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{case}: wanted no error, found {type(error).__name__}: {error}") from error


def _same_scores(family: EstimatorFamily, task: Task) -> None:
    """Early stopping, determinism, and the export on real and nasty rows with its explanation."""
    data = draw(task, 800)
    stopped = _train(family, data, validation=(data.X[600:], data.y[600:]), rows=600)
    params = family.fitted_params(stopped, family.default_params(task))
    _hold(set(params) >= set(family.default_params(task)), "`fitted_params` to keep the parameters", params)
    estimator = _train(family, data, params=params, rows=600)
    again, stopped_scores = family.predict(estimator, task, data.X), family.predict(stopped, task, data.X)
    _hold_near(again, stopped_scores, family.info.tolerance, "the same model without validation rows")
    onnx = family.export(estimator, task, data.features)
    _hold(onnx == family.export(estimator, task, data.features), "two exports to have the same bytes", "they differ")
    twin = _train(family, data, params=params, rows=600)
    _hold_near(family.predict(twin, task, data.X), again, 0.0, "the same model from the same rows and seed")
    _hold(family.export(twin, task, data.features) == onnx, "an equal model to give an equal graph", "they differ")
    _parity(family, estimator, onnx, data)
    _check_signature(onnx, data)
    _check_explanation(family, onnx, data)
    weights = family.importance(estimator, task, data.features, data.X[:300])
    names = [feature.name for feature in data.features]
    _hold(list(weights) == names, f"importance of {names}", list(weights))
    _hold(all(np.isfinite(value) and value >= 0 for value in weights.values()), "weights from 0 on", weights)
    _hold(weights["noise"] < weights["signal"], "a feature that decides to weigh more than noise", weights)
    for name, content in family.native_files(estimator).items():
        _hold(bool(name) and isinstance(content, bytes) and bool(content), "files with content", name)


def _edge_columns(family: EstimatorFamily, task: Task) -> None:
    """Constant and all-null columns, and categories that never occur."""
    data = draw(task, 300)
    X = data.X.copy()
    X[:, 1], X[:, 2], X[:, 4] = 7.7, np.nan, MISSING_CODE
    _export(family, FamilyData(task, data.features, X, data.y))


def _three_rows(family: EstimatorFamily, task: Task) -> None:
    """A table with hardly any rows."""
    data = draw(task, 300)
    y = np.array([0.0, 1.0, 1.0])
    _export(family, FamilyData(task, data.features, data.X[:3], y))


def _one_class(family: EstimatorFamily, task: Task) -> None:
    """Rows of a single class are refused in words, whatever the library would make of them."""
    data = draw(task, 100)
    try:
        _train(family, FamilyData(task, data.features, data.X, np.zeros(100)))
    except ValueError as error:
        _hold("same class" in str(error), "an error that names the single class", error)
    else:
        raise AssertionError(f"family '{family.info.name}': wanted an error for rows of one class, found none")


def _unknown_class(family: EstimatorFamily, task: Task) -> None:
    """Validation rows may have a class that the training rows lack, or no other."""
    data = draw(task, 400)
    known = data.y[:300].clip(max=1.0)
    X_validation, y_validation = data.X[300:], np.where(data.y[300:] == 2, UNKNOWN_LABEL, data.y[300:])
    two_classes = FamilyData(task, data.features, data.X[:300], known)
    _train(family, two_classes, validation=(X_validation, np.full(100, UNKNOWN_LABEL)))
    estimator = _train(family, two_classes, validation=(X_validation, y_validation))
    onnx = family.export(estimator, task, data.features)
    _parity(family, estimator, onnx, two_classes)
    _check_explanation(family, onnx, two_classes)


def _many_categories(family: EstimatorFamily, task: Task) -> None:
    _export(family, many_categories(task, 5_000))


def _many_classes(family: EstimatorFamily, task: Task) -> None:  # noqa: ARG001 - of one task
    _export(family, many_classes(100))


def _large_numbers(family: EstimatorFamily, task: Task) -> None:
    """Epoch seconds, long ids, pascals, and numbers beyond those of float32."""
    _export(family, large_numbers(task))


def _suggestions(family: EstimatorFamily, task: Task) -> None:
    """The search space: what it draws has the names of the defaults, and exports as these do."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    data, names = draw(task, 600), set(family.default_params(task))
    for _ in range(_SUGGESTIONS):
        params = family.suggest(task, study.ask())
        _hold(set(params) == names, f"suggested parameters {sorted(names)}", sorted(params))
        estimator = _train(family, data, params=params, validation=(data.X[:200], data.y[:200]))
        _parity(family, estimator, family.export(estimator, task, data.features), data)


Check = Callable[[EstimatorFamily, Task], None]
_ALL: tuple[Task, ...] = ("binary", "multiclass", "regression")
_REQUIREMENTS: dict[str, tuple[Check, tuple[Task, ...], bool]] = {
    "same_scores": (_same_scores, _ALL, False),
    "edge_columns": (_edge_columns, _ALL, False),
    "three_rows": (_three_rows, _ALL, False),
    "one_class": (_one_class, ("binary", "multiclass"), False),
    "unknown_class": (_unknown_class, ("multiclass",), False),
    "large_numbers": (_large_numbers, _ALL, True),
    "many_categories": (_many_categories, _ALL, True),
    "many_classes": (_many_classes, ("multiclass",), True),
    "suggestions": (_suggestions, _ALL, True),
}
_ONCE = {"edge_columns", "three_rows"}  # quick, but not of every task when time matters


def _train(
    family: EstimatorFamily,
    data: FamilyData,
    *,
    params: dict[str, Any] | None = None,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    rows: int | None = None,
) -> Any:
    chosen = family.default_params(data.task) if params is None else params
    return train_estimator(family, data.task, data.features, chosen, 0, data.X[:rows], data.y[:rows], validation)


def _export(family: EstimatorFamily, data: FamilyData) -> None:
    """Train on all rows, stopping early on some of them to be quick, and hold the export against the estimator."""
    estimator = _train(family, data, validation=(data.X[-200:], data.y[-200:]))
    onnx = family.export(estimator, data.task, data.features)
    _parity(family, estimator, onnx, data)
    _check_explanation(family, onnx, data)


def _parity(family: EstimatorFamily, estimator: Any, onnx: bytes, data: FamilyData) -> ParityReport:
    native = functools.partial(family.predict, estimator, data.task)
    scores = native(data.X)
    wanted = (len(data.X), int(data.y.max()) + 1) if data.task == "multiclass" else (len(data.X),)
    _hold(
        scores.shape == wanted and scores.dtype == np.float64, f"float64 scores {wanted}", (scores.shape, scores.dtype)
    )
    if data.task != "regression":
        _hold(bool(((scores >= 0) & (scores <= 1)).all()), "probabilities", (scores.min(), scores.max()))
    return check_parity(native, onnx, data.task, data.features, data.X, tolerance=family.info.tolerance)


def _check_signature(onnx: bytes, data: FamilyData) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    found = [(one.name, one.type) for one in (*session.get_inputs(), *session.get_outputs())]
    _hold(found == [("X", "tensor(double)"), ("score", "tensor(double)")], "double input X and output score", found)
    (alone,) = session.run(["score"], {"X": data.X[:1]})
    (together,) = session.run(["score"], {"X": data.X[:50]})
    _hold_near(alone[0], together[0], 1e-12, "a row's score to be the same alone as among others")


def _check_explanation(family: EstimatorFamily, onnx: bytes, data: FamilyData) -> None:
    """Base and contributions add up to the raw score, whose probability is the score; nothing to check without one."""
    import onnxruntime

    from ml_platform.inference.explain import METADATA_KEY, unpack

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        return
    explainer = unpack(text, len(data.features))
    empty = [np.nan if feature.categories is None else MISSING_CODE for feature in data.features]
    rows = np.vstack([data.X[:5], [empty]])
    explained = explainer.explain(rows)
    raw = explained.base + explained.contributions.sum(axis=2)
    if data.task == "regression" or explainer.probabilities:
        scores = raw
    elif data.task == "binary":
        scores = 1 / (1 + np.exp(-raw))
    else:
        shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
        scores = shifted / shifted.sum(axis=1, keepdims=True)
    (wanted,) = session.run(["score"], {"X": rows})
    found = scores if data.task == "multiclass" else scores[:, 0]
    _hold_near(found, wanted, max(1e-8, family.info.tolerance), "base and contributions to add up to the score")


def _hold(held: bool, wanted: str, found: object) -> None:
    if not held:
        raise AssertionError(f"wanted {wanted}, found {found}")


def _hold_near(found: np.ndarray, wanted: np.ndarray, tolerance: float, what: str) -> None:
    apart = np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))
    _hold(bool((apart <= tolerance).all()), f"{what} (tolerance {tolerance:g})", f"a difference of {apart.max():g}")
