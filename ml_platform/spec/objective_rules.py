"""What a fit cannot do: keys of `defs.yaml` that the task or a family does not have, refused when they are read."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from ml_platform.spec.families import BUILT_IN, FamilyInfo, family_info
from ml_platform.spec.inputs import InputField
from ml_platform.spec.types import Task

_BINARY = ("false", "true")


class _Spec(Protocol):
    """The keys of a model that are looked at here."""

    @property
    def task(self) -> Task: ...
    @property
    def target(self) -> str: ...
    @property
    def families(self) -> tuple[str, ...]: ...
    @property
    def inputs(self) -> Sequence[InputField]: ...
    @property
    def weight(self) -> str | None: ...
    @property
    def class_weights(self) -> str | Mapping[str, float] | None: ...
    @property
    def quantile(self) -> float | None: ...
    @property
    def monotone(self) -> Mapping[str, str]: ...


def check_objective(spec: _Spec) -> None:
    """Refuse weights, quantiles and monotone features that the task or one of the families does not have.

    Raises
    ------
    ValueError
        Naming the key, the families, and those that can.
    """
    if spec.weight == spec.target:
        raise ValueError(f"weight: '{spec.weight}' is the target; name the column that says how much a row counts")
    if spec.class_weights is not None:
        _check_classes(spec.task, spec.class_weights)
    if spec.quantile is not None and spec.task != "regression":
        raise ValueError(f"quantile: only a regression has one, not task '{spec.task}'; leave it out")
    if spec.monotone:
        _check_monotone(spec)
    wanted = {
        "weight": spec.weight is not None,
        "class_weights": spec.class_weights is not None,
        "quantile": spec.quantile is not None,
        "monotone": bool(spec.monotone),
    }
    for key in (key for key, is_set in wanted.items() if is_set):
        if unable := sorted(name for name in spec.families if not _can(family_info(name), key)):
            able = ", ".join(info.name for info in BUILT_IN.values() if _can(info, key) and spec.task in info.tasks)
            raise ValueError(
                f"{key}: {unable} under `families` cannot do that; of the engine's families can: {able}. Leave the "
                f"others out, or leave `{key}` out"
            )


def _can(info: FamilyInfo, key: str) -> bool:
    return {"quantile": info.quantile, "monotone": info.monotone}.get(key, info.weights)


def _check_classes(task: Task, class_weights: str | Mapping[str, float]) -> None:
    if task == "regression":
        raise ValueError("class_weights: a regression has no classes; `weight` names a column with a weight per row")
    wrong = [] if isinstance(class_weights, str) else sorted(set(class_weights) - set(_BINARY))
    if task == "binary" and wrong:
        raise ValueError(f"class_weights: {wrong} are no classes of a binary task, which are true and false")


def _check_monotone(spec: _Spec) -> None:
    if spec.task == "multiclass":
        raise ValueError("monotone: scores of several classes cannot all rise together; only binary and regression do")
    if spec.quantile is not None:
        raise ValueError(
            "monotone and quantile cannot be set together: the values of leaves are set anew for the quantile, after "
            "the constraint was held"
        )
    for field in spec.inputs:
        if field.name not in spec.monotone:
            continue
        if not field.feature:
            raise ValueError(f"monotone: the input '{field.name}' is no feature (feature: false)")
        if field.type in {"string", "timestamp"}:
            raise ValueError(f"monotone: the input '{field.name}' is a {field.type}; only numbers have an order")
