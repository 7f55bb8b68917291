"""The contract of a model's inputs, checked in the same way for one request, many rows and tables.

A violation is either refused or only flagged, as the input's owner chose. In serving, decoding refuses already, so only
flags are found here; batch scoring, which decodes nothing, uses both.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ml_platform.registry.manifest import Input, Violated

if TYPE_CHECKING:
    from ml_platform.spec.inputs import InputField  # serving needs no spec

# The whole years that nanosecond timestamps span: date arithmetic cannot overflow in them.
FIRST_YEAR, LAST_YEAR = 1678, 2261
MOST_LISTED = 10  # allowed values that a message names

TYPES = {
    "string": "a string",
    "integer": "an integer",
    "number": "a finite number",
    "boolean": "true or false",
    "timestamp": "a timestamp with UTC offset such as 2013-07-01T12:00:00Z",
}


class Violation(msgspec.Struct, frozen=True):
    """One value that breaks the contract; rows are numbered from 0."""

    row: int
    field: str
    kind: Violated
    message: str


class Contract:
    """Checks the values of some inputs, and replaces their nulls by defaults.

    Examples
    --------
    >>> distance = Input(name="distance", type="number", maximum=6000, flagged=("range",))
    >>> contract = Contract.flagging([distance])
    >>> [(found.row, found.message) for found in contract.check_columns({"distance": [1400.0, 7000.0]})]
    [(1, 'wanted a finite number of at most 6000, found 7000.0')]
    >>> Contract.refusing([distance]).check_row({"distance": None})[0].message
    'wanted a finite number of at most 6000, found null'
    """

    def __init__(self, rules: "Sequence[_Rule]", defaults: Mapping[str, Any]) -> None:
        self._rules = tuple(rules)
        self._defaults = tuple(defaults.items())

    @classmethod
    def flagging(cls, inputs: Iterable[Input]) -> Self | None:
        """Make the contract of flagged violations and defaults; None when no input declares either."""
        inputs = tuple(inputs)
        rules = [_Rule(field, field.flagged) for field in inputs if field.flagged]
        defaults = defaults_of(inputs)
        return cls(rules, defaults) if rules or defaults else None

    @classmethod
    def refusing(cls, inputs: Iterable[Input]) -> Self:
        """Make the contract of violations that serving refuses, given values of the right type."""
        kinds: tuple[Violated, ...] = ("null", "range", "allowed")
        rules = [_Rule(field, [kind for kind in kinds if kind not in field.flagged]) for field in inputs]
        return cls([rule for rule in rules if rule.says_something], {})

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the inputs with a rule or a default."""
        return tuple(dict.fromkeys([*(name for name, _ in self._defaults), *(rule.name for rule in self._rules)]))

    def check_row(self, values: MutableMapping[str, Any], number: int = 0) -> list[Violation]:
        """Replace nulls of one row (values by name) by defaults, in place, and list its violations."""
        for name, default in self._defaults:
            if values[name] is None:
                values[name] = default
        return [
            Violation(number, rule.name, kind, rule.message(values[rule.name]))
            for rule in self._rules
            if (kind := rule.violated_by(values[rule.name])) is not None
        ]

    def check_columns(self, columns: MutableMapping[str, list[Any]]) -> list[Violation]:
        """Do what `check_row` does for many rows by column; violations are in the order of the rows."""
        for name, default in self._defaults:
            if None in columns[name]:
                columns[name] = [default if value is None else value for value in columns[name]]
        found = []
        for rule in self._rules:
            values = columns[rule.name]
            bad = {value: kind for value in set(values) if (kind := rule.violated_by(value)) is not None}
            if bad:
                found += [
                    Violation(number, rule.name, bad[value], rule.message(value))
                    for number, value in enumerate(values)
                    if value in bad
                ]
        return sorted(found, key=lambda violation: violation.row)


class _Rule:
    """The rule of one input, restricted to some kinds of violations."""

    def __init__(self, field: Input, kinds: Iterable[Violated]) -> None:
        kinds = set(kinds)
        self.name = field.name
        self._field = field
        self._null: Violated | None = "null" if "null" in kinds and not accepts_null(field) else None
        self._allowed = frozenset(field.allowed) if field.allowed is not None and "allowed" in kinds else None
        self._minimum = field.minimum if "range" in kinds else None
        self._maximum = field.maximum if "range" in kinds else None

    @property
    def says_something(self) -> bool:
        checks = (self._null, self._allowed, self._minimum, self._maximum)
        return any(check is not None for check in checks)

    def violated_by(self, value: Any) -> Violated | None:
        if value is None:
            return self._null
        if self._allowed is not None and value not in self._allowed:
            return "allowed"
        if self._minimum is not None and value < self._minimum:
            return "range"
        if self._maximum is not None and value > self._maximum:
            return "range"
        return None

    def message(self, value: Any) -> str:
        return f"wanted {wanted_of(self._field)}, found {found_of(self._field, value)}"


def accepts_null(field: Input) -> bool:
    """Whether null is neither refused nor flagged."""
    return not field.required and "null" not in field.flagged


def defaults_of(inputs: "Iterable[Input | InputField]") -> dict[str, Any]:
    """Defaults for nulls, by the name of the input."""
    return {field.name: field.default for field in inputs if field.default is not None}


def violations_by_field(violations: Iterable[Violation]) -> dict[tuple[str, Violated], int]:
    """Count violations by field and kind.

    Examples
    --------
    >>> violations_by_field([Violation(0, "origin", "null", ""), Violation(3, "origin", "null", "")])
    {('origin', 'null'): 2}
    """
    return dict(Counter((violation.field, violation.kind) for violation in violations))


def wanted_of(field: Input) -> str:
    """Describe what a field's values must be, for a message.

    Examples
    --------
    >>> wanted_of(Input(name="distance", type="number", minimum=0))
    'a finite number of at least 0'
    >>> wanted_of(Input(name="origin", type="string", allowed=("EWR", "JFK")))
    'one of "EWR", "JFK"'
    """
    if field.allowed is not None:
        listed = ", ".join(shown(value) for value in field.allowed[:MOST_LISTED])
        more = len(field.allowed) - MOST_LISTED
        return f"one of {listed} and {more:,} more" if more > 0 else f"one of {listed}"
    bounds = (("at least", field.minimum), ("at most", field.maximum))
    limits = [f"{word} {limit:g}" for word, limit in bounds if limit is not None]
    return f"{TYPES[field.type]} of {' and '.join(limits)}" if limits else TYPES[field.type]


def found_of(field: Input, value: Any) -> str:
    """Show a value that does not fit, with the allowed one that was probably meant."""
    if field.allowed is not None and isinstance(value, str) and len(value) <= 100:
        near = get_close_matches(value, [str(one) for one in field.allowed], n=1)
        if near:
            return f"{shown(value)}; did you mean {shown(near[0])}?"
    return shown(value)


def shown(value: Any) -> str:
    """Show a value as JSON, cut off when it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:36]}…"
