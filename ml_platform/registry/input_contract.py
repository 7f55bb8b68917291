"""The contract of a model's inputs, checked in the same way for one request, many rows and tables.

A violation is either refused or only flagged, as the input's owner chose. In serving, decoding refuses already, so only
flags are found here; batch scoring, which decodes nothing, uses both.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ml_platform.registry.manifest import Input
from ml_platform.spec.input_rules import Rule, Violated, rules_of, shown

if TYPE_CHECKING:
    from ml_platform.spec.inputs import InputField  # serving needs no spec

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

    def __init__(self, checks: "Sequence[_Check]", defaults: Mapping[str, Any]) -> None:
        self._checks = tuple(checks)
        self._defaults = tuple(defaults.items())

    @classmethod
    def flagging(cls, inputs: Iterable[Input]) -> Self | None:
        """Make the contract of flagged violations and defaults; None when no input declares either."""
        inputs = tuple(inputs)
        checks = [_Check(field, nulls="null" in field.flagged, flagged=True) for field in inputs if field.flagged]
        defaults = defaults_of(inputs)
        return cls(checks, defaults) if checks or defaults else None

    @classmethod
    def refusing(cls, inputs: Iterable[Input]) -> Self:
        """Make the contract of violations that serving refuses, given values of the right type."""
        checks = [_Check(field, nulls="null" not in field.flagged, flagged=False) for field in inputs]
        return cls([check for check in checks if check.says_something], {})

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the inputs with a rule or a default."""
        return tuple(dict.fromkeys([*(name for name, _ in self._defaults), *(check.name for check in self._checks)]))

    def rules_of(self, field: str) -> frozenset[str]:
        """What is checked of an input: kinds of violations."""
        return frozenset(kind for check in self._checks if check.name == field for kind in check.kinds)

    def check_row(self, values: MutableMapping[str, Any], number: int = 0) -> list[Violation]:
        """Replace nulls of one row (values by name) by defaults, in place, and list its violations."""
        for name, default in self._defaults:
            if values[name] is None:
                values[name] = default
        return [
            Violation(number, check.name, kind, check.message(values[check.name]))
            for check in self._checks
            if (kind := check.violated_by(values[check.name])) is not None
        ]

    def check_columns(self, columns: MutableMapping[str, list[Any]]) -> list[Violation]:
        """Do what `check_row` does for many rows by column; violations are in the order of the rows."""
        for name, default in self._defaults:
            if None in columns[name]:
                columns[name] = [default if value is None else value for value in columns[name]]
        violations = []
        for check in self._checks:
            values = columns[check.name]
            if bad := check.violated_in(values):
                violations += [
                    Violation(number, check.name, bad[value], check.message(value))
                    for number, value in enumerate(values)
                    if value in bad
                ]
        return sorted(violations, key=lambda violation: violation.row)


class _Check:
    """Null and the rules of one input, as far as what breaks them is flagged, or refused."""

    def __init__(self, field: Input, *, nulls: bool, flagged: bool) -> None:
        self.name = field.name
        self._field = field
        self._null: Violated | None = "null" if nulls and not accepts_null(field) else None
        rules = [rule for rule in rules_of(field) if rule.kind in field.flagged] if flagged else refused_rules(field)
        self._rules = tuple((rule.kind, rule.keeps) for rule in rules)

    @property
    def says_something(self) -> bool:
        return self._null is not None or bool(self._rules)

    @property
    def kinds(self) -> frozenset[Violated]:
        return frozenset([*([self._null] if self._null else []), *(kind for kind, _ in self._rules)])

    def violated_by(self, value: Any) -> Violated | None:
        if value is None:
            return self._null
        for kind, keeps in self._rules:
            if not keeps(value):
                return kind
        return None

    def violated_in(self, values: Iterable[Any]) -> dict[Any, Violated]:
        """The distinct values of a column that break it, with what they break."""
        return {value: kind for value in set(values) if (kind := self.violated_by(value)) is not None}

    def message(self, value: Any) -> str:
        return f"wanted {wanted_of(self._field)}, found {found_of(self._field, value)}"


def accepts_null(field: Input) -> bool:
    """Whether null is neither refused nor flagged."""
    return not field.required and "null" not in field.flagged


def refused_rules(field: Input) -> tuple[Rule, ...]:
    """The rules of a field whose violations are refused."""
    return tuple(rule for rule in rules_of(field) if rule.kind not in field.flagged)


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
    wanted = TYPES[field.type]
    for rule in rules_of(field):
        wanted = rule.wanted(wanted)
    return wanted


def found_of(field: Input, value: Any) -> str:
    """Show a value that does not fit, with the one that was probably meant."""
    meant = next((near for rule in rules_of(field) if (near := rule.meant(value)) is not None), None)
    return shown(value) if meant is None else f"{shown(value)}; did you mean {shown(meant)}?"
