"""Decodes a request's body into rows, and checks them against the model's signature.

A body is one row as a JSON object, or many as `{"rows": [{…}, …]}`. A valid body is decoded by a msgspec struct made
from the manifest, which costs about a microsecond per row. Only when that fails, or a key may appear twice, does
`validation_errors` read the body again, slowly, to report everything that is wrong at once. Timestamps that RFC 3339
does not know, such as those without seconds, and those with parts of a microsecond, whole numbers that are written with
a point, numbers beyond 2^53, and 1 and 0 for booleans are read on this slow way too.
"""

import json
import keyword
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec.structs import astuple

from ml_platform.features.expressions.column_operations import NotVectorised
from ml_platform.features.expressions.columns import Columns, microseconds
from ml_platform.instants import FIRST_YEAR, LAST_YEAR, read_instant
from ml_platform.json_keys import key_marks
from ml_platform.registry.input_contract import refused_rules
from ml_platform.registry.manifest import Input, Manifest
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.inputs.validation_errors import WHOLE_DOUBLES, find_problems, not_json
from ml_platform.spec.input_rules import INT64, Rule

MAX_ROWS = 10_000
MANY = re.compile(rb'\s*\{\s*"rows"\s*:')  # begins a body of many rows
MANY_BYTES = 2_000  # some ten rows: above this, decoding by column costs less than by row

_YEARS = frozenset(range(FIRST_YEAR, LAST_YEAR + 1))
# Between these, an instant is within the years whatever its offset, which is less than a day.
_FIRST_INSTANT, _LAST_INSTANT = microseconds(
    [datetime(FIRST_YEAR, 1, 2, tzinfo=UTC), datetime(LAST_YEAR, 12, 30, tzinfo=UTC)]
).tolist()

_NUMBERS: dict[str, Callable[[Any], int | float]] = {"integer": int, "number": float, "boolean": bool}
_UTC = frozenset({UTC})
_NO_VALUES = frozenset({None, msgspec.UNSET})
# msgspec would round them. A pattern that begins with one character is looked for much faster, and points are rare.
_NANOSECONDS = re.compile(rb"\.(?<=\d:\d\d\.)\d{6}0*[1-9]")
_ESCAPED = re.compile(rb"\\u00(?:2[eE]|3[0-9aA])")  # a digit, colon or point, which may be a part of a time
_TYPES: dict[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "timestamp": datetime}


def field_type(field: Input) -> Any:
    """Python type by which msgspec checks an input's non-null values, with the bounds of its contract.

    Examples
    --------
    >>> msgspec.convert(12, field_type(Input(name="distance", type="number", minimum=0)))
    12.0
    """
    rules = refused_rules(field)
    if (listed := next((rule.literals for rule in rules if rule.literals is not None), None)) is not None:
        return Literal[listed]
    if field.type == "timestamp":
        return Annotated[datetime, msgspec.Meta(tz=True)]
    if field.type == "integer":
        return _within(int, rules, *INT64)
    return _within(float, rules) if field.type == "number" else _TYPES[field.type]


def _within(base: type, rules: Iterable[Rule], least: float | None = None, most: float | None = None) -> Any:
    """Type of numbers from `least` to `most` that are within the bounds of some rules too."""
    lows = [least, *(rule.bounds[0] for rule in rules)]
    highs = [most, *(rule.bounds[1] for rule in rules)]
    bounds: dict[str, Any] = {
        "ge": max((low for low in lows if low is not None), default=None),
        "le": min((high for high in highs if high is not None), default=None),
    }
    bounds = {name: bound for name, bound in bounds.items() if bound is not None}
    if base is int:
        bounds = {"ge": math.ceil(bounds["ge"]), "le": math.floor(bounds["le"])}
    return Annotated[base, msgspec.Meta(**bounds)] if bounds else base


class Rows(NamedTuple):
    """The decoded rows of a request.

    `sent` is what the log keeps: the structs, or a short body's own text. `values` are the same rows as dictionaries by
    input name, with None for what was left out and timestamps in UTC.
    """

    sent: Sequence[Any]
    values: Sequence[dict[str, Any]]


class RowDecoder:
    """Decodes and validates the rows that one model takes.

    Examples
    --------
    >>> carrier, distance = Input(name="carrier", type="string"), Input(name="distance", type="number", required=False)
    >>> decoder = RowDecoder((carrier, distance))
    >>> decoder.decode(b'{"carrier": "UA"}').values
    [{'carrier': 'UA', 'distance': None}]
    >>> decoder.decode(b'{"rows": [{"carrier": "UA", "distance": 229}]}').values
    [{'carrier': 'UA', 'distance': 229.0}]
    >>> decoder.decode(b'{"carrier": 7}')
    Traceback (most recent call last):
        ...
    ml_platform.serving.http.problems.InvalidRequest: carrier: wanted a string, found 7
    """

    def __init__(self, inputs: Sequence[Input], nullable: Collection[str] = (), others: Collection[str] = ()) -> None:
        """Take the inputs, names of required ones that may be null, and further fields that are passed over."""
        self.inputs = tuple(inputs)
        self.others = tuple(others)
        self._types: Mapping[str, Any] = {
            field.name: field_type(field) | None if field.name in nullable else field_type(field) for field in inputs
        }
        attributes = {
            field.name: field.name if _is_attribute(field.name) else f"field_{number}_"
            for number, field in enumerate(inputs)
        }
        surely_exact = {
            field.name: _within_whole_doubles(field) | None if field.name in nullable else _within_whole_doubles(field)
            for field in inputs
            if field.type == "number"
        }
        self._decoders = _decoders(self.inputs, {**self._types, **surely_exact}, attributes, self.others)
        self._decoders_of_large = _decoders(self.inputs, self._types, attributes, self.others)
        self._names = tuple(attributes)
        self._attributes = attributes
        self._kinds = {field.name: field.type for field in inputs}
        self._optional = tuple(field.name for field in inputs if not field.required)
        self._timestamps = tuple(field.name for field in inputs if field.type == "timestamp")
        self._undecoded = tuple(
            (attributes[field.name], rule) for field in inputs for rule in refused_rules(field) if not rule.is_decoded
        )

    def decode(self, body: bytes) -> Rows:
        """Decode a body into rows.

        Raises
        ------
        InvalidRequest
            With status 400 when the body is not JSON, and 422 naming row and field when it does not fit the signature.
        """
        sent, keys = self._structs(body)
        values = []
        for number, row in enumerate(sent):
            value = dict(zip(self._names, astuple(row), strict=False))  # behind them are the others
            keys += len(value)
            for name in self._optional:
                if value[name] is msgspec.UNSET:
                    value[name] = None
                    keys -= 1
            for name in self._timestamps:
                instant = value[name]
                if instant is not None:
                    if not FIRST_YEAR <= instant.year <= LAST_YEAR:
                        message = f"wanted a year from {FIRST_YEAR} to {LAST_YEAR}, found {instant.year}"
                        raise InvalidRequest(422, [Problem(number if len(sent) > 1 else None, name, message)])
                    if instant.tzinfo is not UTC:
                        value[name] = instant.astimezone(UTC)
            values.append(value)
        has_others = False
        if self.others and (number := self._count_others(sent)):
            has_others, keys = True, keys + number
        self._check_keys(body, keys)
        if has_others:
            return Rows([self._own(row) for row in sent], values)
        is_line = len(sent) == 1 and len(body) < MANY_BYTES and b"\n" not in body and b"\r" not in body
        if is_line and MANY.match(body) is None:
            sent = [msgspec.Raw(body)]
        return Rows(sent, values)

    def is_long(self, body: bytes) -> bool:
        """Whether a body holds so many rows that `decode_columns` costs less than `decode`."""
        return len(body) >= MANY_BYTES and MANY.match(body) is not None and "rows" not in self._types

    def count(self, body: bytes) -> int:
        """Number of rows in a body (raises InvalidRequest)."""
        return len(self._structs(body)[0])

    def decode_columns(self, body: bytes) -> Columns:
        """Decode the rows of a long body into columns: the values of `decode`, input by input (raises InvalidRequest).

        Examples
        --------
        >>> columns = RowDecoder((Input(name="n", type="integer"),)).decode_columns(b'{"rows": [{"n": 1}, {"n": 2}]}')
        >>> columns.objects("n")
        [1, 2]
        """
        sent, keys = self._structs(body)
        values = dict(zip(self._kinds, map(list, zip(*map(astuple, sent), strict=True)), strict=False))
        keys += len(values) * len(sent)
        if self.others:
            keys += self._count_others(sent)
        for name in self._optional:
            if absent := values[name].count(msgspec.UNSET):
                keys -= absent
                values[name] = [None if value is msgspec.UNSET else value for value in values[name]]
        columns = Columns(values, self._kinds, len(sent))
        for name in self._timestamps:
            if not _in_years(columns, name):
                self.decode(body)  # raises an error that names the row
            if {instant.tzinfo for instant in values[name] if instant is not None} - _UTC:
                instants = [None if instant is None else instant.astimezone(UTC) for instant in values[name]]
                columns.lists[name] = instants
        self._check_keys(body, keys)
        return columns

    def own_rows(self, body: bytes) -> bytes:
        """A body of many rows, which was decoded, without the fields that are passed over.

        Examples
        --------
        >>> RowDecoder((Input(name="n", type="integer"),), others=["m"]).own_rows(b'{"rows": [{"n": 1, "m": 2}]}')
        b'{"rows":[{"n":1}]}'
        """
        if not self.others or (b"\\u" not in body and not any(f'"{name}"'.encode() in body for name in self.others)):
            return body
        return msgspec.json.encode({"rows": [self._own(row) for row in self._structs(body)[0]]})

    def _count_others(self, rows: Sequence[Any]) -> int:
        """Number of fields that are passed over in some rows."""
        first = len(self._names)
        return sum(value is not msgspec.UNSET for row in rows for value in astuple(row)[first:])

    def _own(self, row: Any) -> Any:
        """A decoded row without the fields that are passed over, as it is logged."""
        return msgspec.structs.replace(row, **dict.fromkeys(row.__struct_fields__[len(self._names) :], msgspec.UNSET))

    def _structs(self, body: bytes) -> tuple[Sequence[Any], int]:
        """Decode rows as structs; also give the number of keys that the body has beside those of its rows."""
        try:
            sent, keys = self._convert(body)
            if self._timestamps and (
                _NANOSECONDS.search(body) is not None or (b"\\" in body and _ESCAPED.search(body) is not None)
            ):
                raise msgspec.ValidationError  # perhaps only of a text
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            sent, keys = self._convert_leniently(body, error)
        if not 0 < len(sent) <= MAX_ROWS:
            problem = "at least one row" if not sent else f"at most {MAX_ROWS:,} rows"
            raise InvalidRequest(422, [Problem(None, "rows", f"wanted {problem}, found {len(sent):,}")])
        for attribute, rule in self._undecoded:
            values = {getattr(row, attribute) for row in sent} - _NO_VALUES
            if broken := rule.broken_in(values):
                fault = Problem(None, None, rule.own_problem(min(broken)))  # never needed: it finds the same
                raise find_problems(body, self.inputs, self._types, MAX_ROWS, self.others) or InvalidRequest(
                    422, [fault]
                )
        return sent, keys

    def _check_keys(self, sent: bytes, keys: int) -> None:
        """Refuse a key that appears twice, of which msgspec silently takes the last.

        When `":` appears more often than there are keys, some key appears twice or some text contains `":`.
        """
        if key_marks(sent) != keys and (
            problems := find_problems(sent, self.inputs, self._types, MAX_ROWS, self.others)
        ):
            raise problems

    def _convert(self, body: bytes, *, large: bool = False) -> tuple[Sequence[Any], int]:
        decode_row, decode_many = self._decoders_of_large if large else self._decoders
        if MANY.match(body) is not None and "rows" not in self._types:
            return decode_many(body).rows, 1
        return [decode_row(body)], 0

    def _convert_leniently(self, body: bytes, error: Exception) -> tuple[Sequence[Any], int]:
        """Explain what is wrong (raises InvalidRequest); where only msgspec takes no such values, rewrite them."""
        if problems := find_problems(body, self.inputs, self._types, MAX_ROWS, self.others):
            raise problems from error
        if not isinstance(error, msgspec.ValidationError):
            raise not_json(str(error)) from error
        try:
            return self._convert(self._with_plain_values(body), large=True)
        except msgspec.ValidationError as other:
            raise InvalidRequest(422, [Problem(None, None, str(other))]) from other

    def _with_plain_values(self, body: bytes) -> bytes:
        """Write a valid body's timestamps as RFC 3339 has them, numbers and booleans as their types are written."""
        document = json.loads(body)
        many = isinstance(document.get("rows"), list) and "rows" not in self._types
        for row in document["rows"] if many else [document]:
            for name in self._timestamps:
                if isinstance(row.get(name), str):
                    row[name] = read_instant(row[name]).isoformat()
            for name, kind in self._kinds.items():
                if kind in _NUMBERS and isinstance(row.get(name), int | float) and not isinstance(row[name], bool):
                    row[name] = _NUMBERS[kind](row[name])
        return msgspec.json.encode(document)


def _within_whole_doubles(field: Input) -> Any:
    """Type of numbers within the field's bounds that are the same value for certain, however they are written."""
    most = WHOLE_DOUBLES - 1  # 2^53 + 1 is read as 2^53
    return _within(float, refused_rules(field), -most, most)


def _decoders(
    inputs: Sequence[Input], types: Mapping[str, Any], attributes: Mapping[str, str], others: Sequence[str]
) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any]]:
    """Decoders of one row and of many, whose structs have the inputs under their attributes, then the others."""
    fields: list[Any] = []
    for field in inputs:
        kind, attribute = types[field.name], attributes[field.name]
        fields.append(
            (attribute, kind) if field.required else (attribute, kind | None | msgspec.UnsetType, msgspec.UNSET)
        )
    unread = {f"_other_{number}": name for number, name in enumerate(others)}  # no attribute of an input begins so
    fields += [(attribute, msgspec.Raw, msgspec.UNSET) for attribute in unread]
    row = msgspec.defstruct(
        "Row",
        fields,
        rename={**{attribute: name for name, attribute in attributes.items()}, **unread},
        forbid_unknown_fields=True,
        kw_only=True,
        frozen=True,
        gc=False,  # rows hold no containers, and tracking thousands of them costs more than decoding
    )
    many: Any = msgspec.defstruct("Rows", [("rows", list[row])], forbid_unknown_fields=True)  # type: ignore[valid-type]
    return msgspec.json.Decoder(row).decode, msgspec.json.Decoder(many).decode


def decoder_of(manifest: Manifest, others: Collection[str] = ()) -> RowDecoder:
    """Build the decoder of a model's requests, which may have the fields of other versions too."""
    return RowDecoder(manifest.inputs, others=others)


def _in_years(columns: Columns, name: str) -> bool:
    """Whether all instants of a column are certainly in the years that are accepted."""
    try:
        first, last = columns.vector(name).bounds
    except NotVectorised:
        return {instant.year for instant in columns.objects(name) if instant is not None} <= _YEARS
    return first >= _FIRST_INSTANT and last <= _LAST_INSTANT


def _is_attribute(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
