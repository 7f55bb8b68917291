"""From which probability a binary model says true: a fixed one, or one that is chosen on the validation rows."""

from typing import Any, Self

from pydantic import Field, model_validator

from ml_platform.spec.types import Declared

_WANTED = "wanted a number from 0 to 1, best_f1, or cost: {false_positive: …, false_negative: …}"


class ErrorCost(Declared):
    """What a wrong answer costs, in any unit; only their ratio matters."""

    false_positive: float = Field(gt=0, allow_inf_nan=False, description="True was answered, and it was false.")
    false_negative: float = Field(gt=0, allow_inf_nan=False, description="False was answered, and it was true.")


class Threshold(Declared):
    """How the threshold is chosen; written as a number, as `best_f1`, or as `cost: …`.

    Examples
    --------
    >>> Threshold.model_validate(0.3).value, Threshold.model_validate("best_f1") == Threshold()
    (0.3, True)
    """

    value: float | None = Field(None, ge=0, le=1, description="The threshold itself.")
    cost: ErrorCost | None = Field(None, description="The one with the lowest cost of wrong answers is taken.")

    @model_validator(mode="before")
    @classmethod
    def _in_short(cls, given: Any) -> Any:
        if given == "best_f1":
            return {}
        if isinstance(given, int | float) and not isinstance(given, bool):
            return {"value": given}
        if not isinstance(given, dict | cls):
            raise ValueError(f"{_WANTED}; found {given!r}")
        return given

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.value is not None and self.cost is not None:
            raise ValueError("say the threshold itself or the costs that decide it, not both")
        return self

    @property
    def in_words(self) -> str:
        """How a threshold is chosen.

        Examples
        --------
        >>> Threshold().in_words
        'the best F1 on the validation rows'
        >>> Threshold(cost=ErrorCost(false_positive=1, false_negative=5)).in_words
        'the lowest cost on the validation rows, where a false positive costs 1 and a false negative 5'
        """
        if self.cost is not None:
            return (
                f"the lowest cost on the validation rows, where a false positive costs {self.cost.false_positive:g} "
                f"and a false negative {self.cost.false_negative:g}"
            )
        return "the best F1 on the validation rows" if self.value is None else "as `threshold` in defs.yaml says"
