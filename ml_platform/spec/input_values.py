"""Single values of an input that somebody writes down or is shown: its default, its example."""

import math
from datetime import datetime
from typing import Any

from ml_platform.instants import FIRST_YEAR, LAST_YEAR, read_instant
from ml_platform.spec.input_rules import INT64, FieldType, RuleKeys, RuleValues, rules_of

_PLAINEST: dict[FieldType, Any] = {
    "string": "text",
    "integer": 1,
    "number": 1.0,
    "boolean": True,
    "timestamp": "2013-07-01T12:00:00Z",
}
_TYPES: dict[FieldType, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


def type_problem(value: Any, kind: FieldType) -> str | None:
    """Say why a value is none of an input's type, as requests are decoded; None if it is one.

    Parameters
    ----------
    value
        As YAML or a manifest has it; an instant is a `datetime` or a text.

    Examples
    --------
    >>> type_problem(3.5, "integer"), type_problem("2013-07-01T12:00:00Z", "timestamp")
    ('3.5 is no integer', None)
    >>> type_problem("2013-07-01", "timestamp")
    "'2013-07-01' is no timestamp: it is a date without a time"
    """
    if kind == "timestamp":
        return _instant_problem(value)
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool) != (kind == "boolean"):
        return f"{value!r} is no {kind}"
    if kind == "integer" and not INT64[0] <= value <= INT64[1]:
        return f"{value!r} is no integer of 64 bits"
    if kind == "number" and not _is_double(value):
        return f"{value!r} is no finite number that a 64-bit float has"
    return None


def example_of(field: RuleKeys | RuleValues, *given: Any) -> Any:
    """Give a value that an input takes.

    Parameters
    ----------
    field
        The input: its type and its rules.
    given
        What is taken first, if the input takes it: the owner's example, the default. None is no value.

    Returns
    -------
    Any
        The first value that is of the type and keeps the rules; None if none is known.

    Examples
    --------
    >>> example_of(RuleValues(name="tail", type="string", pattern=r"N\\d{1,5}"))
    'N0'
    >>> example_of(RuleValues(name="share", type="number", minimum=0.2, maximum=0.8), 7, None)
    0.2
    """
    rules = rules_of(field)
    candidates = (*given, _PLAINEST[field.type], *(value for rule in rules for value in rule.examples()))
    return next((value for value in candidates if value is not None and _is_taken(value, field, rules)), None)


def _is_taken(value: Any, field: RuleKeys | RuleValues, rules: Any) -> bool:
    return type_problem(value, field.type) is None and all(rule.keeps(value) for rule in rules)


def _is_double(value: float) -> bool:
    try:
        return math.isfinite(value) and float(value) == value
    except OverflowError:  # a whole number beyond all floats
        return False


def _instant_problem(value: Any) -> str | None:
    try:
        instant = value if isinstance(value, datetime) else read_instant(str(value))
    except ValueError as error:
        return f"{value!r} is no timestamp: {error}"
    if instant.tzinfo is None:
        return f"{value!r} is no timestamp: it has no offset from UTC"
    if not FIRST_YEAR <= instant.year <= LAST_YEAR:
        return f"{value!r} is not of the years {FIRST_YEAR} to {LAST_YEAR}"
    return None
