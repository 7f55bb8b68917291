"""What a field of a prediction request is, and which of its values are right: the items of `inputs` in `defs.yaml`."""

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ml_platform.spec.input_rules import RuleKeys, rules_among
from ml_platform.spec.input_values import type_problem


class InputField(RuleKeys):
    """One field of a prediction request; the same column of the spine offline."""

    description: str = Field("", description="What it means, shown at `/docs` and in the console's form.")
    unit: str | None = Field(None, description="Unit of its values, shown beside them.")
    required: bool = Field(True, description="False: may be left out or null.")
    feature: bool = Field(True, description="False: the model never sees it (an identifier, a raw timestamp).")
    nulls: Literal["reject", "accept", "flag"] | None = Field(
        None, description="What a null or missing value gets; `reject` where it is required, else `accept`."
    )
    default: Any = Field(None, description="Stands for a null or missing value, in training too.")
    on_violation: Literal["reject", "flag"] = Field(
        "reject", description="What a value that breaks a rule gets: 422, or an answer that carries a flag."
    )
    example: Any = Field(
        None,
        description="Value shown at `/docs` and filled into the console's form; one that fits when absent.",
    )

    @field_validator("nulls")
    @classmethod
    def _agrees_with_required(cls, nulls: str | None, info: ValidationInfo) -> str | None:
        if nulls == "reject" and not info.data.get("required", True):
            raise ValueError("'reject' and required: false cannot be set together; leave one of the two out")
        return nulls

    @field_validator("default", "example")
    @classmethod
    def _keeps_the_contract(cls, value: Any, info: ValidationInfo) -> Any:
        kind = info.data.get("type")
        if value is None or kind is None:
            return value
        if info.field_name == "default":
            if info.data.get("nulls") is not None:
                raise ValueError("stands for a null already: leave `nulls` out")
            if kind == "timestamp":
                raise ValueError("a timestamp has none: no instant is right for all requests")
        if (problem := type_problem(value, kind)) is not None:
            raise ValueError(problem)
        for rule in rules_among(info.data):
            if not rule.keeps(value):
                raise ValueError(rule.own_problem(value))
        return value

    @property
    def rejects_null(self) -> bool:
        """Whether a null or missing value is refused."""
        return self.default is None and (self.nulls == "reject" or (self.nulls is None and self.required))
