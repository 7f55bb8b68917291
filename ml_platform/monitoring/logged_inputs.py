"""The inputs of logged requests, read again from the JSON that was sent."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any

import msgspec
import polars as pl

from ml_platform.features.views.declared_types import DTYPES
from ml_platform.instants import read_instant
from ml_platform.registry.manifest import Input
from ml_platform.spec.inputs import InputField


def logged_inputs(
    sent: pl.Series,
    inputs: Iterable[InputField | Input],
    *,
    hidden: Collection[str] = (),
    unlike: list[tuple[int, str]] | None = None,
) -> pl.DataFrame:
    """Read the inputs of logged rows, in their declared types.

    Parameters
    ----------
    sent
        JSON of each row, as it was sent.
    inputs
        Which to read; what was not sent has its default.
    hidden
        Inputs that the log does not have: null.
    unlike
        Takes row and field of each value that is none of the type, and becomes null: what answered the row may have
        declared the field otherwise. Without it such a value is an error.

    Examples
    --------
    >>> rows = pl.Series(['{"kg": 3, "at": "2024-01-01T00:00:00Z"}', '{"kg": "heavy"}'])
    >>> odd = []
    >>> logged_inputs(rows, [Input(name="kg", type="number")], unlike=odd)["kg"].to_list(), odd
    ([3.0, None], [(1, 'kg')])
    """
    parsed = [msgspec.json.decode(text) for text in sent]
    columns = {}
    for field in inputs:
        columns[field.name] = [None] * len(parsed) if field.name in hidden else _column(parsed, field, unlike)
    return pl.DataFrame(columns, schema={field.name: DTYPES[field.type] for field in inputs})


def _column(
    rows: Sequence[Mapping[str, Any]], field: InputField | Input, unlike: list[tuple[int, str]] | None
) -> list[Any]:
    name, kind, default = field.name, field.type, field.default
    values = []
    for number, row in enumerate(rows):
        value = row.get(name)
        try:
            values.append(_value(default if value is None else value, kind))
        except (TypeError, ValueError, OverflowError):
            if unlike is None:
                raise
            unlike.append((number, name))
            values.append(None)
    return values


def _value(value: Any, kind: str) -> Any:
    """A value as its type has it; raises for one that is none."""
    if value is None:
        return None
    if kind == "timestamp":
        return read_instant(value, recorded=True).astimezone(UTC)
    if kind == "string":
        if not isinstance(value, str):
            raise TypeError(f"wanted a string, found {value!r}")
        return value
    if isinstance(value, str):
        raise TypeError(f"wanted {kind}, found {value!r}")
    if kind == "integer":
        if value != int(value):
            raise ValueError(f"wanted an integer, found {value!r}")
        return int(value)  # a caller may write 3.0, and 1 for true
    return bool(value) if kind == "boolean" else float(value)
