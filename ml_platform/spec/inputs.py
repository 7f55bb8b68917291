"""What a field of a prediction request is, and which of its values are right: the items of `inputs` in `defs.yaml`."""

from difflib import get_close_matches
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ml_platform.spec.types import Strict

FieldType = Literal["string", "integer", "number", "boolean", "timestamp"]

_LISTABLE: dict[Any, type] = {"string": str, "integer": int}
_PLAIN: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


class InputField(Strict):
    """One field of a prediction request; the same column of the spine offline."""

    name: str
    type: FieldType
    description: str = ""
    unit: str | None = None
    required: bool = Field(True, description="False: may be left out or null.")
    feature: bool = Field(True, description="False: the model never sees it (an identifier, a raw timestamp).")
    minimum: float | None = Field(None, description="Smallest value, of an integer or a number.")
    maximum: float | None = Field(None, description="Largest value, of an integer or a number.")
    allowed: tuple[Any, ...] | None = Field(None, description="The only values, of a string or an integer.")
    nulls: Literal["reject", "accept", "flag"] | None = Field(
        None, description="What a null or missing value gets; `reject` where it is required, else `accept`."
    )
    default: Any = Field(None, description="Stands for a null or missing value, in training too.")
    on_violation: Literal["reject", "flag"] = Field(
        "reject", description="What a value out of range or not allowed gets: 422, or an answer that carries a flag."
    )
    example: Any = None

    @field_validator("minimum", "maximum")
    @classmethod
    def _is_bound(cls, bound: float | None, info: ValidationInfo) -> float | None:
        kind, minimum = info.data.get("type"), info.data.get("minimum")
        if bound is not None and kind not in {"integer", "number", None}:
            raise ValueError(f"a {kind} has no {info.field_name}; only integers and numbers have")
        if bound is not None and minimum is not None and info.field_name == "maximum" and bound < minimum:
            raise ValueError(f"{bound:g} is less than the minimum, {minimum:g}: no value would do")
        return bound

    @field_validator("allowed")
    @classmethod
    def _is_a_set(cls, allowed: tuple[Any, ...] | None, info: ValidationInfo) -> tuple[Any, ...] | None:
        if allowed is None:
            return None
        kind = info.data.get("type")
        if kind not in _LISTABLE:
            raise ValueError(f"only strings and integers can be listed, not a {kind}; numbers take minimum and maximum")
        if wrong := [value for value in allowed if type(value) is not _LISTABLE[kind]]:
            raise ValueError(f"{wrong[0]!r} is no {kind}; quote what YAML takes for something else")
        if not allowed or len(set(allowed)) < len(allowed):
            raise ValueError("wanted at least one value, each once")
        if (info.data.get("minimum"), info.data.get("maximum")) != (None, None):
            raise ValueError("say which values are allowed, or their minimum and maximum, not both")
        return allowed

    @field_validator("nulls")
    @classmethod
    def _agrees_with_required(cls, nulls: str | None, info: ValidationInfo) -> str | None:
        if nulls == "reject" and not info.data.get("required", True):
            raise ValueError("'reject' and required: false cannot be set together; leave one of the two out")
        return nulls

    @field_validator("default", "example")
    @classmethod
    def _keeps_the_contract(cls, value: Any, info: ValidationInfo) -> Any:
        kind, allowed = info.data.get("type"), info.data.get("allowed")
        minimum, maximum = info.data.get("minimum"), info.data.get("maximum")
        if value is None or kind is None:
            return value
        if info.field_name == "default":
            if info.data.get("nulls") is not None:
                raise ValueError("stands for a null already: leave `nulls` out")
            if kind == "timestamp":
                raise ValueError("a timestamp has none: no instant is right for all requests")
        if kind in _PLAIN and (not isinstance(value, _PLAIN[kind]) or isinstance(value, bool) != (kind == "boolean")):
            raise ValueError(f"{value!r} is no {kind}")
        if allowed is not None and value not in allowed:
            near = get_close_matches(str(value), [str(one) for one in allowed], n=1)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            raise ValueError(f"{value!r} is not allowed{meant} Allowed: {', '.join(map(str, allowed))}")
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            raise ValueError(f"{value!r} is out of the field's own range")
        return value

    @property
    def rejects_null(self) -> bool:
        """Whether a null or missing value is refused."""
        return self.default is None and (self.nulls == "reject" or (self.nulls is None and self.required))
