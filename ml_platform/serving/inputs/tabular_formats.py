"""Translates requests as MLflow, Databricks and pandas write them into the body that `/predict/{model}` takes.

From there on they are checked, scored and logged like any other. What those formats leave open is decided here: a
timestamp without offset is UTC, a date alone its midnight, and a whole number written as 3.0 (as pandas writes integers
with missing values) is an integer.
"""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ml_platform.boolean_texts import BOOLEANS
from ml_platform.instants import has_offset
from ml_platform.registry.manifest import Input
from ml_platform.serving.http.problems import InvalidRequest, Problem
from ml_platform.serving.http.query_options import INTERVAL
from ml_platform.serving.inputs.request_decoder import MAX_ROWS
from ml_platform.serving.inputs.shared_inputs import SharedInputs
from ml_platform.serving.inputs.validation_errors import TOO_DEEP, not_json, parse

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_IGNORED = frozenset({"client_request_id", "usage_context"})  # of Databricks' clients; they change no prediction
_INFINITE = (math.inf, -math.inf)


def body_of(rows: Sequence[Any], inputs: Sequence[Input]) -> bytes:
    """Write rows as a body of `/predict/{model}` (raises InvalidRequest for values nested too deeply)."""
    timestamps = [field.name for field in inputs if field.type == "timestamp"]
    integers = [field.name for field in inputs if field.type == "integer"]
    for row in rows:
        if isinstance(row, dict):
            for name in timestamps:
                if isinstance(instant := row.get(name), str) and not has_offset(instant):
                    row[name] += "Z" if ":" in instant else "T00:00Z"
            for name in integers:
                if isinstance(number := row.get(name), float) and number.is_integer():
                    row[name] = int(number)
    try:
        return msgspec.json.encode({"rows": rows})
    except RecursionError as error:
        raise not_json(TOO_DEEP) from error


def rows_of_json(
    body: bytes, inputs: Sequence[Input], *, strict: bool = False, parameters: dict[str, Any] | None = None
) -> list[Any]:
    """Rows of a body in one of MLflow's four JSON formats; NaN, which Python clients send for missing values, is null.

    Of `params` it puts `interval` into `parameters`. As MLflow does for a model without parameters, it ignores others,
    other members of the body, and columns that are no inputs; with `strict` they are refused (the columns later, with
    the rows).

    Raises
    ------
    InvalidRequest
        When the body is not JSON, is in none or several of the formats, or does not hold rows.

    Examples
    --------
    >>> fields = [Input(name="a", type="integer"), Input(name="b", type="string")]
    >>> rows_of_json(b'{"dataframe_split": {"columns": ["b", "a"], "data": [["x", 1], ["y", 2]]}}', fields)
    [{'b': 'x', 'a': 1}, {'b': 'y', 'a': 2}]
    >>> rows_of_json(b'{"inputs": {"a": [1, 2], "b": ["x", "y"]}}', fields)
    [{'a': 1, 'b': 'x'}, {'a': 2, 'b': 'y'}]
    >>> rows_of_json(b'{"instances": [[1, "x"]]}', fields)
    [{'a': 1, 'b': 'x'}]
    """
    document = parse(body, nan_is_null=True)
    if not isinstance(document, dict):
        raise _invalid(None, f"wanted an object with one of {', '.join(FORMATS)}")
    formats = [name for name in document if name in FORMATS]
    if len(formats) != 1:
        given = ", ".join(sorted(document))[:200] or "nothing"
        raise _invalid(None, f"wanted exactly one of {', '.join(FORMATS)}, found {given}")
    if strict:
        _check_members(document)
    if parameters is not None and isinstance(document.get("params"), dict):
        parameters.update({name: value for name, value in document["params"].items() if name == INTERVAL})
    rows = _rows_in(formats[0], document[formats[0]], inputs)
    return rows if strict else _without_extras(rows, inputs)


def _check_members(document: Mapping[str, Any]) -> None:
    """Refuse parameters and unknown members (raises InvalidRequest)."""
    params = document.get("params")
    if not isinstance(params, dict | None) or (params or {}).keys() - {INTERVAL}:
        raise _invalid("params", f"the only parameter that models here take is `{INTERVAL}`: leave others out")
    if unknown := document.keys() - {*FORMATS, "params"} - _IGNORED:
        raise _invalid(None, f"wanted one of {', '.join(FORMATS)} and nothing else, found {sorted(unknown)[0][:40]}")


def _rows_in(form: str, value: Any, inputs: Sequence[Input]) -> list[Any]:
    if form == "dataframe_split":
        return _split(value)
    if form == "inputs" and isinstance(value, dict):
        return _columns(value)
    if not isinstance(value, list):
        raise _invalid(form, "wanted an array of rows")
    _check_count(len(value))
    if form == "dataframe_records":
        return value
    return [_positional(number, row, inputs) for number, row in enumerate(value)]


def _without_extras(rows: list[Any], inputs: Sequence[Input]) -> list[Any]:
    known = {field.name for field in inputs}
    return [
        row
        if not isinstance(row, dict) or row.keys() <= known
        else {name: value for name, value in row.items() if name in known}
        for row in rows
    ]


def rows_of_csv(body: bytes, inputs: Sequence[Input], *, strict: bool = False) -> list[Any]:
    """Rows of a CSV text with a header, with or without a byte order mark (Excel writes one); an empty field is null.

    Columns that are no inputs are ignored; with `strict` they are refused.

    Examples
    --------
    >>> rows_of_csv(b"a,b\\n1,\\n", [Input(name="a", type="integer"), Input(name="b", type="number")])
    [{'a': 1, 'b': None}]
    """
    try:
        lines = list(csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise InvalidRequest(400, [Problem(None, None, f"the body is not UTF-8 at byte {error.start}")]) from error
    except csv.Error as error:
        raise InvalidRequest(400, [Problem(None, None, f"the body is not CSV: {error}")]) from error
    lines = [line for line in lines if line]
    _check_count(len(lines) - 1)
    if not lines:
        raise InvalidRequest(400, [Problem(None, None, "the body is empty: wanted a header and rows")])
    kinds = {field.name: field.type for field in inputs}
    header = lines[0]
    if strict and "" in header:
        raise _invalid(
            "header", "a column has no name: if it is the index of pandas, leave it out with to_csv(index=False)"
        )
    rows = [
        {name: _cell(kinds.get(name, ""), text) for name, text in row.items()}
        for row in _split({"columns": header, "data": lines[1:]})
    ]
    return rows if strict else _without_extras(rows, inputs)


def _cell(kind: str, text: str) -> Any:
    """Convert a CSV field to its input's type; one that cannot be converted stays text, and is refused later."""
    if text == "":
        return None
    try:
        if kind in ("integer", "number") and "_" not in text:  # Python would accept 1_000
            number = int(text) if kind == "integer" and text.lstrip("+-").isdigit() else float(text)
            return text if number in _INFINITE else number  # JSON has no infinity
    except ValueError:
        return text
    return BOOLEANS.get(text.lower(), text) if kind == "boolean" else text


def _split(value: Any) -> list[Any]:
    if not isinstance(value, dict) or not {"columns", "data"} <= value.keys() <= {"columns", "data", "index"}:
        raise _invalid("dataframe_split", "wanted an object with columns and data, as DataFrame.to_dict('split') gives")
    columns, data = value["columns"], value["data"]
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise _invalid("columns", "wanted an array of names")
    if twice := sorted(name for name, count in Counter(columns).items() if count > 1):
        raise _invalid("columns", f"'{twice[0][:40]}' appears twice")
    if not isinstance(data, list):
        raise _invalid("data", "wanted an array of rows")
    _check_count(len(data))
    for number, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            description = f"{len(row)} values" if isinstance(row, list) else "no array"
            raise _invalid(None, f"wanted {len(columns)} values, one for each column, found {description}", number)
    return [dict(zip(columns, row, strict=True)) for row in data]


def _columns(value: Mapping[str, Any]) -> list[Any]:
    columns = {name: column if isinstance(column, list) else [column] for name, column in value.items()}
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name[:40]} {length}" for name, length in list(lengths.items())[:5])
        raise _invalid("inputs", f"wanted columns of one length, found {listed}")
    _check_count(max(lengths.values(), default=0))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _positional(number: int, row: Any, inputs: Sequence[Input]) -> Any:
    """A row as an object; the values of an array are in the order of the first version's inputs, or of all."""
    if not isinstance(row, list):
        return row
    if isinstance(inputs, SharedInputs) and len(row) == inputs.positional:
        inputs = inputs[: len(row)]
    if len(row) != len(inputs):
        names = ", ".join(field.name for field in inputs)
        raise _invalid(None, f"wanted {len(inputs)} values ({names}) or an object, found {len(row)} values", number)
    return dict(zip((field.name for field in inputs), row, strict=True))


def _check_count(rows: int) -> None:
    """Refuse too many rows before they are converted (raises InvalidRequest)."""
    if rows > MAX_ROWS:
        raise _invalid("rows", f"wanted at most {MAX_ROWS:,} rows, found {rows:,}")


def _invalid(field: str | None, message: str, row: int | None = None) -> InvalidRequest:
    return InvalidRequest(422, [Problem(row, field, message)])
