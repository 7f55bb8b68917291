"""Finds everything that is wrong with a request, in words for its sender. Slow: runs only for refused requests."""

import difflib
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice
from types import NoneType
from typing import Any, NamedTuple, get_args

import msgspec

from ml_platform.instants import read_instant
from ml_platform.json_keys import key_marks, objects_of
from ml_platform.registry.input_contract import TYPES, found_of, refused_rules, wanted_of
from ml_platform.registry.manifest import Input
from ml_platform.serving.http.problems import MOST_COUNTED, MOST_PROBLEMS, InvalidRequest, Problem, ProblemKind
from ml_platform.spec.input_rules import FieldType, Rule, rules_of, shown

WHOLE_DOUBLES = 2**53  # up to here a 64-bit float has every whole number
TOO_DEEP = "it is nested too deeply"
_CONTAINERS = (dict, list)  # quicker to test for than their union
_NAME = 100  # characters shown of an unknown name
_PLAIN: dict[FieldType, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "timestamp": datetime}


def not_json(reason: str) -> InvalidRequest:
    """Refuse a body that cannot be read at all."""
    return InvalidRequest(400, [Problem(None, None, f"the body is not JSON: {reason}")])


class _Field(NamedTuple):
    """An input, the type that its values must convert to, and the rules whose violations are refused."""

    input: Input
    kind: Any
    rules: tuple[Rule, ...]


class _Duplicate(dict[str, Any]):
    """A JSON object in which keys appear twice."""

    twice: tuple[str, ...] = ()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = _Duplicate(pairs)
    if len(names) == len(pairs):
        return dict(pairs)
    names.twice = tuple(sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1))
    return names


def find_problems(
    body: bytes, inputs: Sequence[Input], types: Mapping[str, Any], max_rows: int, others: Collection[str] = ()
) -> InvalidRequest | None:
    """Everything that is wrong with a body, or None when nothing is.

    Timestamps may have any form that `read_instant` reads.

    Parameters
    ----------
    body
        As it was sent.
    inputs, types
        The model's inputs, and the type that each must convert to.
    max_rows
        Rows that one request may hold.
    others
        Names of fields that a row may have too, with any value.
    """
    try:
        document = _parse(body)
    except InvalidRequest as refusal:
        return refusal
    if not isinstance(document, dict):
        message = f'wanted an object with one row, or {{"rows": [...]}}, found {_kind(document)}'
        return InvalidRequest(422, [Problem(None, None, message)])
    fields = {field.name: _Field(field, types[field.name], refused_rules(field)) for field in inputs}
    if "rows" not in document or "rows" in fields:
        return _refusal(_row_problems(None, document, fields, others))
    problems = _strange_names(None, document, ["rows"])
    rows = document["rows"]
    if not isinstance(rows, list):
        problems.append(Problem(None, "rows", f"wanted an array of objects, found {_kind(rows)}"))
    elif not 0 < len(rows) <= max_rows:
        wanted = f"at most {max_rows:,} rows" if rows else "at least one row"
        problems.append(Problem(None, "rows", f"wanted {wanted}, found {len(rows):,}"))
    else:
        for number, row in enumerate(rows):
            if len(problems) >= MOST_COUNTED:
                break
            if isinstance(row, dict):
                problems += _row_problems(number, row, fields, others)
            else:
                problems.append(Problem(number, None, f"wanted an object, found {_kind(row)}"))
    return _refusal(problems)


def _parse(body: bytes, constant: Callable[[str], Any] = float) -> Any:
    try:
        # Unlike msgspec it takes NaN and Infinity, so that their field can be named.
        return json.loads(body.decode(), object_pairs_hook=_object, parse_constant=constant)
    except RecursionError:
        reason = TOO_DEEP
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except json.JSONDecodeError as error:
        reason = str(error)
    except ValueError:
        reason = "it holds a number of thousands of digits"
    raise not_json(reason)


def parse(body: bytes, *, nan_is_null: bool = False) -> Any:
    """Parse any JSON document, as fast as possible; with `nan_is_null`, NaN is read as null.

    Raises
    ------
    InvalidRequest
        When the body is not JSON, is nested too deeply, or has an object in which a key appears twice.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        parsed = _parse(body, _null_for_nan)  # explains most faults better
        if not nan_is_null or b"NaN" not in body:
            raise not_json(str(error)) from error
        _refuse_twice(parsed)
        try:
            body = json.dumps(parsed, allow_nan=False).encode()
        except RecursionError as deep:
            raise not_json(TOO_DEEP) from deep
        except ValueError as infinite:
            raise not_json("it holds an infinite number") from infinite
        return parse(body)
    if key_marks(body) > _count_keys(document):
        _refuse_twice(_parse(body))
    return document


def _null_for_nan(name: str) -> float | None:
    return None if name == "NaN" else float(name)


def _refuse_twice(document: Any) -> None:
    """Refuse a document with an object in which a key appears twice (raises InvalidRequest)."""
    if twice := _first_twice(document):
        raise InvalidRequest(422, [Problem(None, twice[:40], "appears twice")])


def _count_keys(document: Any) -> int:
    return sum(map(len, objects_of(document)))


def _first_twice(document: Any) -> str | None:
    """A key that appears twice in some object, if there is one."""
    return next((duplicate.twice[0] for duplicate in objects_of(document) if isinstance(duplicate, _Duplicate)), None)


def _refusal(problems: list[Problem]) -> InvalidRequest | None:
    return InvalidRequest(422, problems) if problems else None


def _row_problems(
    number: int | None, row: dict[str, Any], fields: Mapping[str, _Field], others: Collection[str]
) -> list[Problem]:
    problems = _strange_names(number, row, [*fields, *others] if others else fields)
    for name, field in fields.items():
        if name not in row:
            if field.input.required:
                problems.append(Problem(number, name, f"is missing; wanted {wanted_of(field.input)}", "null"))
        elif problem := _problem_of(field, row[name]):
            kind, message = problem
            problems.append(Problem(number, name, message, kind))
    return problems


def _problem_of(field: _Field, value: Any) -> tuple[ProblemKind, str] | None:
    is_text_of_time = field.input.type == "timestamp" and isinstance(value, str)
    return _timestamp_problem(value) if is_text_of_time else _value_problem(field, value)


def _value_problem(field: _Field, value: Any) -> tuple[ProblemKind, str] | None:
    kind = field.input.type
    if value is None:
        may_be_null = not field.input.required or NoneType in get_args(field.kind)
        return None if may_be_null else ("null", f"wanted {wanted_of(field.input)}, found null")
    if isinstance(value, float) and not math.isfinite(value):
        return "type", f"wanted {TYPES[kind]}, found {'NaN' if math.isnan(value) else 'an infinite number'}"
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if kind == "boolean" and isinstance(value, int | float) and value in (0, 1):
        return None
    return _conversion_problem(field, value)


def _conversion_problem(field: _Field, value: Any) -> tuple[ProblemKind, str] | None:
    kind = field.input.type
    if kind == "number" and isinstance(value, int) and not is_a_double(value):
        return "type", f"wanted a number that a 64-bit float has, found {_shown(value)}"
    if not _is_of_type(value, kind):
        return "type", f"wanted {TYPES[kind]}, found {_shown(value)}"
    for rule in field.rules:
        if not rule.keeps(value):
            return rule.kind, f"wanted {wanted_of(field.input)}, found {found_of(field.input, value)}"
    try:
        msgspec.convert(value, field.kind)
    except msgspec.ValidationError:  # an integer beyond 64 bits
        limits = wanted_of(field.input) if rules_of(field.input) else f"{TYPES[kind]} of 64 bits"
        return "range", f"wanted {limits}, found {_shown(value)}"
    return None


def _is_of_type(value: Any, kind: FieldType) -> bool:
    try:
        msgspec.convert(value, _PLAIN[kind])
    except msgspec.ValidationError:
        return False
    return True


def is_a_double(value: int) -> bool:
    """Whether a whole number is the same as a 64-bit float, or its shortest spelling, as JavaScript writes it.

    Examples
    --------
    >>> is_a_double(2**53), is_a_double(2**53 + 1), is_a_double(9223372036854776000)
    (True, False, True)
    """
    if abs(value) <= WHOLE_DOUBLES:
        return True
    try:
        number = float(value)
    except OverflowError:
        return False
    return int(number) == value or Decimal(repr(number)) == value


def _timestamp_problem(text: str) -> tuple[ProblemKind, str] | None:
    try:
        read_instant(text)
    except ValueError as error:
        return "type", f"wanted {TYPES['timestamp']}, found {shown(text)}: {error}"
    return None


def _strange_names(number: int | None, row: dict[str, Any], known: Collection[str]) -> list[Problem]:
    """Problems of names: those that appear twice, and unknown ones."""
    twice = getattr(row, "twice", ())[:MOST_COUNTED]
    unknown = list(islice((name[:_NAME] for name in row if name not in known), MOST_COUNTED))
    problems = [Problem(number, name[:_NAME], "appears twice") for name in twice]
    problems += [Problem(number, name, _unknown(name, known)) for name in unknown[:MOST_PROBLEMS]]
    return problems + [Problem(number, name, "is not a field of this request") for name in unknown[MOST_PROBLEMS:]]


def _unknown(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
    return f"is not a field of this request; {hint}"


def _shown(value: Any) -> str:
    """Show a value that was found; of an object or array only its kind."""
    return _kind(value) if isinstance(value, dict | list) else shown(value)


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return next((name for kind, name in names.items() if isinstance(value, kind)), "null")
