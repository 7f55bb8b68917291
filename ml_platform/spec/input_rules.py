"""The rules that an input's values may have to keep: the one place that says what each is.

A rule knows its keys in `defs.yaml` and in manifests, which types may have it, which values keep it, and how it reads
in messages, in JSON schemas and in HTML forms. What checks, decodes, documents or asks for values goes through the
rules of a field (`rules_of`). A new one is a class here, listed in `RULES`, its kind in `Violated`, and its keys in
`RuleKeys` and `RuleValues`.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import msgspec
from pydantic import Field, ValidationInfo, field_validator

from ml_platform.spec.text_pattern import LONGEST_TEXT, text_pattern
from ml_platform.spec.types import Strict

FieldType = Literal["string", "integer", "number", "boolean", "timestamp"]
Violated = Literal["null", "range", "allowed", "pattern"]  # what of an input's contract a value breaks

INT64 = (-(2**63), 2**63 - 1)
MOST_LISTED = 10  # allowed values that a message names


class Rule(ABC):
    """What the values of an input keep, nulls aside. The attributes of a rule are its keys."""

    kind: ClassVar[Violated]
    broken_words: ClassVar[str]  # a value that breaks it, on the console's page

    @classmethod
    def key_names(cls) -> tuple[str, ...]:
        """Its keys in `defs.yaml` and in manifests."""
        return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]  # each rule is a dataclass

    @classmethod
    def of(cls, declared: Mapping[str, Any]) -> Self | None:
        """The rule that some keys and values declare; None when they do not."""
        values = {key: declared.get(key) for key in cls.key_names()}
        return None if all(value is None for value in values.values()) else cls(**values)

    @classmethod
    @abstractmethod
    def check_key(cls, key: str, value: Any, declared: Mapping[str, Any]) -> None:
        """Refuse a value of one of its keys; `declared` has the type and the keys before it (raises ValueError)."""

    @abstractmethod
    def keeps(self, value: Any) -> bool:
        """Whether a value of the right type keeps it."""

    def broken_in(self, values: Iterable[Any]) -> set[Any]:
        """The distinct values of a column, without nulls, that break it."""
        return {value for value in values if not self.keeps(value)}

    @abstractmethod
    def wanted(self, noun: str) -> str:
        """Describe what is wanted, given a noun for any value of the type."""

    def meant(self, value: Any) -> str | None:  # noqa: ARG002 - most rules cannot know
        """The value that was probably meant by one that breaks it."""
        return None

    @abstractmethod
    def own_problem(self, value: Any) -> str:
        """Say what is wrong with a default or an example that breaks it."""

    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """Its keywords in a JSON schema; in `enum`, null is yet to be added where it may be."""

    @abstractmethod
    def table_words(self) -> list[str]:
        """Its words in the Markdown table of the API page."""

    @abstractmethod
    def hint(self) -> str:
        """Its words beside a form's control."""

    @abstractmethod
    def examples(self) -> Iterable[Any]:
        """Values that may keep it, the plainest first; whoever shows one checks it, for its type too."""

    def form_attributes(self) -> dict[str, Any]:
        """Attributes of an HTML input that enforce it."""
        return {}

    # What a decoder can check by itself, at no cost.
    @property
    def literals(self) -> tuple[str | int, ...] | None:
        """The only values, where they can be listed."""
        return None

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """The smallest and the largest value."""
        return None, None

    @property
    def is_decoded(self) -> bool:
        """Whether `literals` and `bounds` say all of it."""
        return self.literals is not None or self.bounds != (None, None)


@dataclass(frozen=True)
class _Range(Rule):
    """Numbers from a minimum to a maximum, both included."""

    minimum: float | None
    maximum: float | None

    kind = "range"
    broken_words = "a number outside its range"

    @classmethod
    def check_key(cls, key: str, value: Any, declared: Mapping[str, Any]) -> None:
        kind, minimum = declared.get("type"), declared.get("minimum")
        if kind not in {"integer", "number", None}:
            raise ValueError(f"a {kind} has no {key}; only integers and numbers have")
        if not math.isfinite(value):
            raise ValueError(f"wanted a finite number, found {value}; leave {key} out where there is no limit")
        if minimum is not None and key == "maximum" and value < minimum:
            raise ValueError(f"{value:g} is less than the minimum, {minimum:g}: no value would do")
        low, high = (value, None) if key == "minimum" else (minimum, value)
        least = math.ceil(INT64[0] if low is None else max(low, INT64[0]))
        if kind == "integer" and least > math.floor(INT64[1] if high is None else min(high, INT64[1])):
            raise ValueError(f"no integer of 64 bits is {cls(low, high).hint()}")

    def keeps(self, value: Any) -> bool:
        low, high = self.minimum, self.maximum
        return not ((low is not None and value < low) or (high is not None and value > high))

    def wanted(self, noun: str) -> str:
        return f"{noun} of {' and '.join(self._limits('at least {:g}', 'at most {:g}'))}"

    def own_problem(self, value: Any) -> str:
        return f"{value!r} is out of the field's own range"

    def schema(self) -> dict[str, Any]:
        return _given(minimum=self.minimum, maximum=self.maximum)

    def table_words(self) -> list[str]:
        return self._limits("≥ {:g}", "≤ {:g}")

    def hint(self) -> str:
        low, high = (None if bound is None else f"{bound:,.10g}" for bound in self.bounds)
        if low is not None and high is not None:
            return f"{low} to {high}"
        return f"at least {low}" if low is not None else f"at most {high}"

    def examples(self) -> Iterable[int | float]:
        low, high = self.bounds
        if low is not None and math.isfinite(low):
            yield from (math.ceil(low), low)
        if high is not None and math.isfinite(high):
            yield from (math.floor(high), high)

    def form_attributes(self) -> dict[str, Any]:
        return _given(min=self.minimum, max=self.maximum)

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        return self.minimum, self.maximum

    def _limits(self, *words: str) -> list[str]:
        return [word.format(bound) for word, bound in zip(words, self.bounds, strict=True) if bound is not None]


@dataclass(frozen=True)
class _Allowed(Rule):
    """The only values."""

    allowed: tuple[str | int, ...]

    kind = "allowed"
    broken_words = "a value that is not among those allowed"
    listable: ClassVar[dict[Any, type]] = {"string": str, "integer": int}

    @classmethod
    def check_key(cls, key: str, value: Any, declared: Mapping[str, Any]) -> None:  # noqa: ARG003 - it has one key
        kind = declared.get("type")
        if kind not in cls.listable:
            raise ValueError(f"only strings and integers can be listed, not a {kind}; numbers take minimum and maximum")
        if wrong := [one for one in value if type(one) is not cls.listable[kind]]:
            raise ValueError(f"{wrong[0]!r} is no {kind}; quote what YAML takes for something else")
        if not value or len(set(value)) < len(value):
            raise ValueError("wanted at least one value, each once")
        if _Range.of(declared) is not None:
            raise ValueError("say which values are allowed, or their minimum and maximum, not both")

    def keeps(self, value: Any) -> bool:
        return value in self._among

    def wanted(self, noun: str) -> str:  # noqa: ARG002 - the values say their type
        listed = ", ".join(shown(value) for value in self.allowed[:MOST_LISTED])
        more = len(self.allowed) - MOST_LISTED
        return f"one of {listed} and {more:,} more" if more > 0 else f"one of {listed}"

    def meant(self, value: Any) -> str | None:
        if not isinstance(value, str) or len(value) > 100:
            return None
        return next(iter(get_close_matches(value, [str(one) for one in self.allowed], n=1)), None)

    def own_problem(self, value: Any) -> str:
        near = get_close_matches(str(value), [str(one) for one in self.allowed], n=1)
        meant = f"; did you mean {near[0]!r}?" if near else "."
        return f"{value!r} is not allowed{meant} Allowed: {', '.join(map(str, self.allowed))}"

    def schema(self) -> dict[str, Any]:
        return {"enum": [*self.allowed]}

    def table_words(self) -> list[str]:
        return [f"one of {', '.join(map(str, self.allowed))}"]

    def hint(self) -> str:
        return f"{len(self.allowed)} known values"

    def examples(self) -> Iterable[str | int]:
        return self.allowed

    @property
    def literals(self) -> tuple[str | int, ...]:
        return self.allowed

    @cached_property
    def _among(self) -> frozenset[str | int]:
        return frozenset(self.allowed)


@dataclass(frozen=True)
class _Pattern(Rule):
    """A regular expression that the whole text matches (`ml_platform.spec.text_pattern`)."""

    pattern: str

    kind = "pattern"
    broken_words = "a text that does not match its pattern"

    @classmethod
    def check_key(cls, key: str, value: Any, declared: Mapping[str, Any]) -> None:
        kind = declared.get("type")
        if kind not in {"string", None}:
            raise ValueError(f"{'an' if kind == 'integer' else 'a'} {kind} has no {key}; only strings have")
        if _Allowed.of(declared) is not None:
            raise ValueError("say which values are allowed, or their pattern, not both")
        text_pattern(value)

    def keeps(self, value: Any) -> bool:
        return text_pattern(self.pattern).matches(value)

    def wanted(self, noun: str) -> str:
        return f"{noun} that matches {self.pattern}"

    def own_problem(self, value: Any) -> str:
        return f"{value!r} does not match the field's own pattern, {self.pattern}"

    def schema(self) -> dict[str, Any]:
        return {"pattern": text_pattern(self.pattern).portable, "maxLength": LONGEST_TEXT}

    def table_words(self) -> list[str]:
        return ["matches `" + self.pattern.replace("|", "\\|") + "`"]

    def hint(self) -> str:
        return f"matches {self.pattern}"

    def examples(self) -> Iterable[str]:
        return (text_pattern(self.pattern).example,)

    def form_attributes(self) -> dict[str, Any]:
        return {"pattern": text_pattern(self.pattern).portable, "title": self.hint()}


RULES: tuple[type[Rule], ...] = (_Range, _Allowed, _Pattern)  # in the order in which they are checked
RULE_OF_KEY: dict[str, type[Rule]] = {key: rule for rule in RULES for key in rule.key_names()}


class RuleKeys(Strict):
    """The keys of the rules, as `defs.yaml` has them, after name and type, with which they are checked."""

    name: str = Field(description="Name of the input: a field of requests, and the same column of the spine.")
    type: FieldType = Field(
        description="Type of its values; a value of another is refused, in requests and in training."
    )
    minimum: float | None = Field(None, description="Smallest value, of an integer or a number.")
    maximum: float | None = Field(None, description="Largest value, of an integer or a number.")
    allowed: tuple[Any, ...] | None = Field(None, description="The only values, of a string or an integer.")
    pattern: str | None = Field(None, description="Regular expression that the whole of a string matches.")

    @field_validator(*RULE_OF_KEY)
    @classmethod
    def _is_declared_rightly(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.field_name is not None:
            RULE_OF_KEY[info.field_name].check_key(info.field_name, value, info.data)
        return value


class RuleValues(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The keys of the rules, as manifests have them."""

    name: str
    type: FieldType
    minimum: float | None = None
    maximum: float | None = None
    allowed: tuple[str | int, ...] | None = None
    pattern: str | None = None


def rules_among(declared: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules that some keys and values declare."""
    return tuple(present for rule in RULES if (present := rule.of(declared)) is not None)


def rules_of(field: RuleKeys | RuleValues) -> tuple[Rule, ...]:
    """The rules of an input, in the order in which they are checked.

    Examples
    --------
    >>> [rule.wanted("a string") for rule in rules_of(RuleValues(name="tail", type="string", pattern="N.*"))]
    ['a string that matches N.*']
    """
    return rules_among(rule_values(field))


def rule_values(field: RuleKeys | RuleValues) -> dict[str, Any]:
    """The values of all rules' keys, None where an input has not that rule."""
    return {key: getattr(field, key) for key in RULE_OF_KEY}


def shown(value: Any) -> str:
    """Show a value as JSON, cut off when it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:36]}…"


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
