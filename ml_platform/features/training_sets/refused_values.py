"""Values for which rows of a spine are left out by what scores, as serving answers them with 422."""

from collections.abc import Callable
from typing import NamedTuple

import polars as pl

UNDERIVABLE = (ValueError, ArithmeticError)  # what an expression raises for values that it has no result for


class RefusedValue(NamedTuple):
    """One value, or combination of values, for which a row is left out."""

    id: str  # of the row
    field: str
    kind: str
    message: str


def derive_possible(
    rows: pl.DataFrame, derive: Callable[[pl.DataFrame], pl.LazyFrame], *, id_column: str, refused: list[RefusedValue]
) -> pl.DataFrame:
    """Add derived features to the rows that have them; the others are left out, and told in `refused`.

    Examples
    --------
    >>> def halve(rows):
    ...     if (rows["n"] > 9).any():
    ...         raise OverflowError("too large")
    ...     return rows.lazy().with_columns(half=pl.col("n") / 2)
    >>> told = []
    >>> derive_possible(pl.DataFrame({"id": ["a", "b"], "n": [1, 10]}), halve, id_column="id", refused=told).rows()
    [('a', 1, 0.5)]
    >>> told[0].id, told[0].message
    ('b', 'features cannot be derived from it: too large')
    """
    try:
        return derive(rows).collect()
    except UNDERIVABLE as error:
        if rows.height < 2:
            message = f"features cannot be derived from it: {error}"
            refused += [RefusedValue(str(id_), "row", "derived", message) for id_ in rows.get_column(id_column)]
            return derive(rows.clear()).collect()
    middle = rows.height // 2
    halves = (rows.head(middle), rows.tail(-middle))
    return pl.concat(derive_possible(half, derive, id_column=id_column, refused=refused) for half in halves)
