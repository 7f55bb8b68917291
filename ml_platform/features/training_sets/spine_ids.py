"""The ids of a spine: one for each row, never null, and the same text in the lake as in a request's answer.

Scores, labels and logged answers meet by the text of the id. An id therefore has a type of which each value has one
spelling: text, whole numbers or dates. Numbers with a fraction are none; whole ones that are stored as floats or
decimals are read as the integers they are, by the rule of `ml_platform.lake.exact_casts`.
"""

import polars as pl

from ml_platform.features.training_sets.refused_values import RefusedValue
from ml_platform.features.views.declared_types import Undeclared, as_declared
from ml_platform.lake.exact_casts import cast_exactly, first_lost, is_text, shown
from ml_platform.spec.input_rules import FieldType


def typed_ids(ids: pl.Series, declared: FieldType | None, where: str) -> pl.Series:
    """Read ids as the type that they are declared with, else as text, integers or dates.

    Parameters
    ----------
    ids
        Values of the spine's column.
    declared
        Type of the input that is the id; None if none is.
    where
        What gives the rows, for messages.

    Raises
    ------
    ValueError
        If the type has more than one spelling of a value, or a value is not of the declared type; with the number of
        such rows, an example and what to write in the query.

    Examples
    --------
    >>> typed_ids(pl.Series("number", [1.0, 20.0]), None, "spine.sql").to_list()
    [1, 20]
    """
    dtype = ids.dtype
    remedy = f"write it in the query as a request sends it (CAST({ids.name} AS BIGINT), or AS VARCHAR)"
    if declared is not None:
        try:
            return as_declared(ids, declared)
        except Undeclared as error:
            raise ValueError(f"{where}: the id: {error}; {remedy}, or declare another type") from error
    if is_text(dtype):
        return ids.cast(pl.String)
    if dtype.is_integer() or dtype in {pl.Date, pl.Null}:
        return ids
    whole = cast_exactly(ids, pl.Int64) if dtype.is_float() or dtype.is_decimal() else None
    if whole is not None and first_lost(ids, whole) is None:
        return whole
    lost = ids.is_not_null() if whole is None else ids.is_not_null() & whole.is_null()
    raise ValueError(
        f"{where}: an id is a text, a whole number or a date, of which there is one spelling; found "
        f"{lost.sum():,} of {ids.len():,} ids that are {dtype}, e.g. {shown(ids, int(lost.arg_max() or 0))}; {remedy}"
    )


def check_ids(ids: pl.Series, where: str, *, without_id: bool = False) -> None:
    """Refuse rows without an id, unless `without_id`, and rows with the id of another (raises ValueError)."""
    name, known = ids.name, ids.drop_nulls()
    if (missing := ids.null_count()) and not without_id:
        raise ValueError(
            f"{where} gives {missing:,} of {ids.len():,} rows without an id ('{name}' is null), so that nothing can be "
            f"matched with them; leave them out (WHERE {name} IS NOT NULL), or give them one"
        )
    if twice := known.len() - known.n_unique():
        example = known.filter(known.is_duplicated())[0]
        raise ValueError(
            f"{where} gives {twice:,} rows with the id of another row, e.g. {example!r}; give each row one of its own, "
            f"or one row for each (QUALIFY row_number() OVER (PARTITION BY {name} ORDER BY …) = 1)"
        )


def rows_with_id(rows: pl.DataFrame, id_column: str, refused: list[RefusedValue]) -> pl.DataFrame:
    """Leave out the rows without an id, and tell them.

    Examples
    --------
    >>> told = []
    >>> rows_with_id(pl.DataFrame({"id": ["a", None], "n": [1, 2]}), "id", told).rows()
    [('a', 1)]
    >>> told[0].id, told[0].message
    ('row 1 without id', 'wanted an id, found null')
    """
    missing = rows.get_column(id_column).is_null()
    refused += [
        RefusedValue(f"row {number} without id", id_column, "null", "wanted an id, found null")
        for number in range(1, int(missing.sum()) + 1)
    ]
    return rows.filter(~missing)
