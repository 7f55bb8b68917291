"""Values of a query → the type that their column is declared with, each unchanged or refused with the value."""

import polars as pl

from ml_platform.lake.exact_casts import cast_exactly, first_lost, is_castable, shown
from ml_platform.spec.input_rules import FieldType

UTC_MICROSECONDS = pl.Datetime("us", "UTC")
DTYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "integer": pl.Int64(),
    "number": pl.Float64(),
    "boolean": pl.Boolean(),
    "timestamp": UTC_MICROSECONDS,
}


class Undeclared(ValueError):
    """A value that its column's declared type does not have.

    Attributes
    ----------
    row
        Position of the value; None if the type of all values is wrong.
    """

    def __init__(self, column: str, problem: str, row: int | None = None) -> None:
        super().__init__(f"column '{column}' {problem}")
        self.row = row


def cast_to_declared(values: pl.Series, type_: FieldType) -> pl.Series:
    """Convert a column to its declared type by the rule of `ml_platform.lake.exact_casts`; null where it is refused.

    Raises
    ------
    Undeclared
        If the types have no values in common.
    """
    dtype = DTYPES[type_]
    if not is_castable(values.dtype, dtype):
        raise Undeclared(values.name, f"is declared as {type_}, its values are {values.dtype}")
    return cast_exactly(values, dtype)


def as_declared(values: pl.Series, type_: FieldType) -> pl.Series:
    """Convert a column to its declared type by the rule of `ml_platform.lake.exact_casts`.

    Raises
    ------
    Undeclared
        If a value would change; the message names column, types and value.

    Examples
    --------
    >>> as_declared(pl.Series("bags", [3.0, None]), "integer").to_list()
    [3, None]
    """
    cast = cast_to_declared(values, type_)
    if (lost := first_lost(values, cast)) is not None:
        problem = f"is declared as {type_}, its values are {values.dtype}"
        raise Undeclared(values.name, f"{problem}, e.g. {shown(values, lost)}", lost)
    return cast
