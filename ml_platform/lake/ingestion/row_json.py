"""Rows as JSON objects, and back: nothing of a value is lost, also of what JSON does not have.

Bytes are written as `base64:AP8=`, so that they are told from texts. NaN and infinity are written as texts, and so are
all numbers of a list or struct with one of them.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import polars as pl
from polars.datatypes import DataTypeClass

_BYTES = "base64:"
_OF_TEXT: dict[type, Callable[[str], Any]] = {
    pl.Date: date.fromisoformat,
    pl.Datetime: datetime.fromisoformat,
    pl.Decimal: Decimal,
    pl.Float64: float,
    pl.Float32: float,
}


def to_json(rows: pl.DataFrame) -> pl.Series:
    """Write each row as a JSON object."""
    writable = [
        _writable(pl.col(name), dtype, odd=_has_odd(rows[name])).alias(name) for name, dtype in rows.schema.items()
    ]
    return rows.select(pl.struct(writable).struct.json_encode()).to_series()


def read_back(rows: pl.DataFrame, types: Mapping[str, pl.DataType]) -> tuple[pl.DataFrame, dict[int, list[str]]]:
    """Read texts that stand for bytes, lists and structs, as `to_json` writes them, as the values that they were.

    Returns
    -------
    tuple
        The rows, and by position the reasons why some cannot be read.

    Examples
    --------
    >>> rows, wrong = read_back(pl.DataFrame({"scan": ["base64:AP8=", "base64:?"]}), {"scan": pl.Binary()})
    >>> rows["scan"].to_list(), wrong
    ([b'\\x00\\xff', None], {1: ['scan: not bytes in base64']})
    """
    wrong: dict[int, list[str]] = {}
    for name, dtype in types.items():
        if rows.schema.get(name) != pl.String or not (dtype.is_nested() or dtype == pl.Binary):
            continue
        values: list[Any] = []
        for place, text in enumerate(rows[name]):
            try:
                value = json.loads(text) if text is not None and dtype.is_nested() else text
                values.append(_value(value, dtype))
                pl.Series(values[-1:], dtype=dtype, strict=True)
            except (ValueError, TypeError, InvalidOperation, pl.exceptions.PolarsError):
                del values[place:]
                values.append(None)
                what = "bytes in base64" if dtype == pl.Binary else f"a value of type {dtype} in JSON"
                wrong.setdefault(place, []).append(f"{name}: not {what}")
        rows = rows.with_columns(pl.Series(name, values, dtype=dtype))
    return rows, wrong


def _has_odd(values: pl.Series) -> bool:
    """Whether NaN or infinity is among the values, at any depth."""
    if values.dtype.is_float():
        return not values.is_finite().all()
    if isinstance(values.dtype, pl.List | pl.Array):
        return _has_odd(values.explode())
    if isinstance(values.dtype, pl.Struct):
        return any(_has_odd(values.struct.field(field.name)) for field in values.dtype.fields)
    return False


def _writable(value: pl.Expr, dtype: pl.DataType | DataTypeClass, *, odd: bool) -> pl.Expr:
    """Replace bytes, and numbers where one is odd, by texts, at any depth."""
    if dtype == pl.Binary:
        return pl.lit(_BYTES) + value.bin.encode("base64")
    if dtype.is_float() and odd:
        return value.cast(pl.String)
    if isinstance(dtype, pl.Array):
        return _writable(value.arr.to_list(), pl.List(dtype.inner), odd=odd)
    if isinstance(dtype, pl.List):
        return value.list.eval(_writable(pl.element(), dtype.inner, odd=odd))
    if isinstance(dtype, pl.Struct) and dtype.fields:
        fields = [
            _writable(value.struct.field(field.name), field.dtype, odd=odd).alias(field.name) for field in dtype.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(fields))
    return value


def _value(value: Any, dtype: Any) -> Any:
    """Make a value of its JSON, at any depth."""
    if value is None:
        return None
    if dtype == pl.Binary:
        return _bytes(value)
    if isinstance(dtype, pl.List | pl.Array):
        if not isinstance(value, list):
            raise TypeError(f"a list was wanted, found {value!r}")
        return [_value(one, dtype.inner) for one in value]
    if isinstance(dtype, pl.Struct):
        if not isinstance(value, dict):
            raise TypeError(f"an object was wanted, found {value!r}")
        return {field.name: _value(value.get(field.name), field.dtype) for field in dtype.fields}
    read = _OF_TEXT.get(type(dtype))
    return read(value) if read is not None and isinstance(value, str) else value


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"bytes were wanted, found {text!r}")
    if not text.startswith(_BYTES):
        return text.encode()  # a text of the source, whose bytes are meant
    try:
        return base64.b64decode(text.removeprefix(_BYTES), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
