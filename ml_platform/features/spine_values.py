"""The values of a spine, as a request would send them: of the declared types, or the training set is refused.

What serving answers with 422 cannot be an input here: a model would learn from values that no request has.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from ml_platform.features.declared_types import DTYPES, Undeclared, as_declared
from ml_platform.inference.contract import FIRST_YEAR, LAST_YEAR
from ml_platform.spec import FieldType

_REMEDIES: dict[FieldType, str] = {
    "string": "write the text in the query as a request sends it (CAST(CAST(x AS BIGINT) AS VARCHAR))",
    "integer": "round it in the query (CAST(round(x) AS BIGINT))",
    "number": "cast it in the query (CAST(x AS DOUBLE))",
    "boolean": "say in the query what is true (x > 0)",
    "timestamp": "make it an instant in the query (x AT TIME ZONE 'UTC'; date_trunc('microseconds', x))",
}


class _Field(Protocol):
    """An input of a model, as the spec or the manifest declares it."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> FieldType: ...


def typed_inputs(
    rows: pl.DataFrame, inputs: Iterable[_Field], defaults: Mapping[str, Any], *, id_column: str, where: str
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

    Raises
    ------
    ValueError
        If a value would change, or no request could send it; the message names column, row, value and remedy.
    """
    columns = []
    for field in inputs:
        try:
            typed = as_declared(rows.get_column(field.name), field.type)
            _check_range(typed, field.type)
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
    if type_ == "number":
        outside, wanted = values.is_infinite(), "a finite number"
    elif type_ == "timestamp":
        outside = ~values.dt.year().is_between(FIRST_YEAR, LAST_YEAR)
        wanted = f"a timestamp of the years {FIRST_YEAR} to {LAST_YEAR}"
    else:
        return
    for row in outside.arg_true().head(1):
        raise Undeclared(values.name, f"wants {wanted}, as a request does; found {values[row]}", row)
