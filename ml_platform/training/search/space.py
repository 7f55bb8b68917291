"""The study's space: a family, and under it the parameters that the family suggests."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ml_platform.spec.families import Parameter
from ml_platform.spec.types import Task
from ml_platform.training.families.registry import get_family
from ml_platform.training.search.pruning import FAMILY

if TYPE_CHECKING:
    import optuna


class _FamilyTrial:
    """A trial as its family sees it: names of parameters stand for the family's own in the study.

    Families have parameters of the same name and other bounds, such as `learning_rate`.
    """

    def __init__(self, trial: "optuna.Trial", family: str) -> None:
        self._trial, self._family = trial, family

    def suggest_float(self, name: str, *bounds: Any, **options: Any) -> float:
        return self._trial.suggest_float(own_name(self._family, name), *bounds, **options)

    def suggest_int(self, name: str, *bounds: Any, **options: Any) -> int:
        return self._trial.suggest_int(own_name(self._family, name), *bounds, **options)

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        return self._trial.suggest_categorical(own_name(self._family, name), choices)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)


def own_name(family: str, parameter: str) -> str:
    """Name of a family's parameter in the study."""
    return f"{family}.{parameter}"


def suggest_params(family: str, task: Task, trial: "optuna.Trial") -> dict[str, Parameter]:
    """Draw a family's parameters from a trial of the study."""
    return get_family(family).suggest(task, cast("optuna.Trial", _FamilyTrial(trial, family)))


def default_point(family: str, task: Task) -> Mapping[str, Parameter]:
    """A family's default parameters as a point of the study's space."""
    defaults = get_family(family).default_params(task)
    return {FAMILY: family, **{own_name(family, name): value for name, value in defaults.items()}}
