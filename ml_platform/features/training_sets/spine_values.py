"""The values of a spine, as a request would send them: of the declared types, or refused.

What serving answers with 422 cannot be an input here: a model would learn from values that no request has. Training is
refused as a whole; what scores leaves the rows out.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from ml_platform.features.training_sets.refused_values import RefusedValue
from ml_platform.features.views.declared_types import DTYPES, Undeclared, as_declared, cast_to_declared
from ml_platform.instants import FIRST_YEAR, LAST_YEAR
from ml_platform.lake.exact_casts import shown
from ml_platform.registry.input_contract import TYPES
from ml_platform.spec.input_rules import FieldType

_REMEDIES: dict[FieldType, str] = {
    "string": "write the text in the query as a request sends it (CAST(CAST(x AS BIGINT) AS VARCHAR))",
    "integer": "round it in the query (CAST(round(x) AS BIGINT))",
    "number": "cast it in the query (CAST(x AS DOUBLE))",
    "boolean": "say in the query what is true (x > 0)",
    "timestamp": "make it an instant in the query (x AT TIME ZONE 'UTC'; date_trunc('microseconds', x))",
}
_WANTED: dict[str, str] = {
    "number": "a finite number",
    "timestamp": f"a timestamp of the years {FIRST_YEAR} to {LAST_YEAR}",
}


class _Field(Protocol):
    """An input of a model, as the spec or the manifest declares it."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> FieldType: ...


def typed_inputs(
    rows: pl.DataFrame,
    inputs: Iterable[_Field],
    defaults: Mapping[str, Any],
    *,
    id_column: str,
    where: str,
    refused: list[RefusedValue] | None = None,
) -> pl.DataFrame:
    """Give the inputs their declared types, and replace their nulls as in serving.

    Parameters
    ----------
    rows
        Rows of a spine, with a column for each input.
    inputs
        The model's inputs.
    defaults
        Input → value that replaces its nulls.
    id_column
        Column that identifies a row in a message.
    where
        What gives the rows, for messages.
    refused
        Takes the values that would change, or that no request could send, and which become null; the caller leaves
        their rows out.

    Raises
    ------
    ValueError
        If there is such a value and `refused` is None, or the types have no values in common; the message names column,
        row, value and remedy.
    """
    columns = []
    for field in inputs:
        try:
            values = rows.get_column(field.name)
            if refused is None:
                typed = as_declared(values, field.type)
                _check_range(typed, field.type)
            else:
                typed = cast_to_declared(values, field.type)
                typed = typed.set(_outside(typed, field.type).fill_null(value=False), None)
                refused += _refused(values, typed, field, rows.get_column(id_column))
        except Undeclared as error:
            row = "" if error.row is None else f" in the row '{rows.get_column(id_column)[error.row]}'"
            remedy = f"{_REMEDIES[field.type]}, make it null, or declare another type"
            raise ValueError(f"{where}: {error}{row}; {remedy}") from error
        default = defaults.get(field.name)
        columns.append(typed if default is None else typed.fill_null(pl.lit(default, dtype=DTYPES[field.type])))
    return rows.with_columns(columns)


def placed_rows(rows: pl.DataFrame, columns: Sequence[str], *, id_column: str, where: str) -> pl.DataFrame:
    """Convert columns of instants to UTC microseconds, where they have a time zone.

    Raises
    ------
    ValueError
        If one is outside of the years 1 to 9999 (such as DuckDB's `infinity`) or has nanoseconds; the message names the
        row.
    """
    placed = []
    for name in set(columns) & set(rows.columns):  # a request feature is not there yet
        values = rows.get_column(name)
        if not isinstance(values.dtype, pl.Datetime) or values.dtype.time_zone is None:
            continue  # the point-in-time join says what is wanted
        try:
            placed.append(as_declared(values, "timestamp"))
        except Undeclared as error:
            row = rows.get_column(id_column)[error.row or 0]
            raise ValueError(f"{where}: {error} in the row '{row}'; leave it out, or make it null (NULLIF)") from error
    return rows.with_columns(placed)


def _check_range(values: pl.Series, type_: FieldType) -> None:
    """Refuse infinite numbers and instants that no request can send (raises Undeclared)."""
    for row in _outside(values, type_).arg_true().head(1):
        raise Undeclared(values.name, f"wants {_WANTED[type_]}, as a request does; found {values[row]}", row)


def _outside(values: pl.Series, type_: FieldType) -> pl.Series:
    """Tell which values of a declared type no request can send."""
    if type_ == "number":
        return values.is_infinite()
    if type_ == "timestamp":
        return ~values.dt.year().is_between(FIRST_YEAR, LAST_YEAR)
    return values.is_null() & values.is_not_null()


def _refused(values: pl.Series, typed: pl.Series, field: _Field, ids: pl.Series) -> Iterable[RefusedValue]:
    wanted = _WANTED.get(field.type, TYPES[field.type])
    for row in (values.is_not_null() & typed.is_null()).arg_true():
        yield RefusedValue(str(ids[row]), field.name, "type", f"wanted {wanted}, found {shown(values, row)}")
