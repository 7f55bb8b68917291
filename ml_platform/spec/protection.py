"""What a contract or view declares of who sees which rows and values: a row filter, masks and tags of columns."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ml_platform.spec.types import Declared

_KINDS = ("user:", "service:", "group:")


def _principal(text: str) -> str:
    if not text.startswith(_KINDS) or text.endswith(":"):
        raise ValueError(f"wanted user:<name>, service:<key name> or group:<name>, found {text!r}")
    return text


def _from_text(value: Any) -> Any:
    return {"sql": value} if isinstance(value, str) else value


PrincipalText = Annotated[str, AfterValidator(_principal)]


class Rule(Declared):
    """An SQL expression, and who is exempt from it."""

    sql: str = Field(
        min_length=1,
        description="Expression over the table's own columns. `current_principal()` is who asks, as `user:ada`, and "
        "`is_member('analysts')` whether they are in that group.",
    )
    exempt: tuple[PrincipalText, ...] = Field(
        (), description="Principals for whom it does not count: `user:<name>`, `service:<key name>`, `group:<name>`."
    )


RuleOrText = Annotated[Rule, BeforeValidator(_from_text)]
TagName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$")]


class Protection(Declared):
    """Which rows and values of a table are for whom, once an access policy is in force.

    Examples
    --------
    >>> protection = Protection.model_validate({"row_filter": "region = 'EU'", "masks": {"mail": "NULL"}})
    >>> protection.row_filter.sql, protection.masks["mail"].exempt
    ("region = 'EU'", ())
    """

    row_filter: RuleOrText | None = Field(
        None,
        description="SQL condition: rows for which it is not true are absent for all who are not exempt.",
    )
    masks: dict[str, RuleOrText] = Field(
        {},
        description="Column → SQL expression of the column's type that stands in its place for all who are not exempt.",
    )
    tags: dict[str, tuple[TagName, ...]] = Field({}, description="Column → its tags, such as pii, for policies by tag.")

    @property
    def is_empty(self) -> bool:
        """Whether it protects and tags nothing."""
        return self.row_filter is None and not self.masks and not any(self.tags.values())

    @model_validator(mode="after")
    def _no_empty_names(self) -> Self:
        _check_names(self.masks)
        return self


def _check_names(names: Mapping[str, Any]) -> None:
    lower = [name.lower() for name in names]
    if twice := [name for name in lower if lower.count(name) > 1]:
        raise ValueError(f"masks: {twice[0]} has two masks; names of columns do not differ by case")
