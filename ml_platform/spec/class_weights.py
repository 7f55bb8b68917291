"""How much the rows of each class count in fitting: the key `class_weights` of a model's `defs.yaml`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

_WANTED = "wanted `balanced`, or a positive number for each class ({late: 5, on_time: 1})"


def _named(given: Any) -> Any:
    """Write classes as texts, as YAML reads some of them as booleans or numbers."""
    if not isinstance(given, dict):
        if given in (None, "balanced"):
            return given
        raise ValueError(f"{_WANTED}; found {given!r}")
    return {str(name).lower() if isinstance(name, bool) else str(name): weight for name, weight in given.items()}


ClassWeight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ClassWeights = Annotated[Literal["balanced"] | dict[str, ClassWeight] | None, BeforeValidator(_named)]
