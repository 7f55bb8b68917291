"""How a raw table's columns may change: not at all, or by columns that are added.

The contract is where a table's columns are written down. `reject` (the default) keeps the table to it: a column that
the contract gained is refused until the table is allowed to grow, a column that only the source has is refused always.
With `add_columns` both come into the table, null in older rows; those that the contract does not know are taken as the
source gives them, unchecked. A column that is missing or has another type is refused either way.
"""

from typing import Literal

import dataframely as dy
import polars as pl

from ml_platform.lake.contracts import ROW
from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.tables import Lake
from ml_platform.lake.types import conform, storable, untyped

Evolution = Literal["reject", "add_columns"]

HOW_TO_ALLOW = (
    "To let new columns into the table, declare it with evolution: add_columns (RawTable(evolution='add_columns') in "
    "Python); older rows are null there."
)
_HOW_TO_CHANGE = (
    "A type cannot change in place and a column cannot go: write the table anew once with Lake.replace (old "
    "versions stay readable; docs/lake.md, 'When columns change'), or give the column another name."
)


def set_aside(rows: pl.DataFrame, contract: type[dy.Schema], evolution: Evolution) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a source's rows into the columns that the contract judges, and `ROW` with those that it does not know."""
    unknown = [name for name in rows.columns if name not in contract.columns()] if evolution == "add_columns" else []
    return rows.drop(unknown), rows.with_row_index(ROW).select(ROW, *unknown)


def put_back(rows: pl.DataFrame, unknown: pl.DataFrame) -> pl.DataFrame:
    """Give rows the columns back that were set aside."""
    return rows.join(unknown, on=ROW, maintain_order="left") if unknown.width > 1 else rows


def fit(lake: Lake, table: str, rows: pl.DataFrame, evolution: Evolution, *, anew: bool = False) -> pl.DataFrame:
    """Fit rows that hold the contract to the table as it is; if it is written `anew` and has no rows, to none.

    So a type that was wrong, and let no row pass, can be corrected.

    Raises
    ------
    SchemaMismatch
        If the table does not have one of their columns and may not grow, or has it with another type, or has one that
        the contract no longer knows; the error says how to allow it.
    """
    rows = storable(rows, table)
    if not lake.exists(table) or (anew and lake.read(table).head(1).collect().is_empty()):
        return rows.drop(untyped(rows))
    schema = lake.schema(table)
    grows = evolution == "add_columns"
    try:
        fitted = conform(rows, schema, table, add_columns=grows)
    except SchemaMismatch as error:
        only_new = not (set(schema) - set(rows.columns)) and all(
            rows.schema[name] == schema[name] for name in rows.columns if name in schema
        )
        raise SchemaMismatch(
            f"Table '{table}' and its contract disagree", error.problems, HOW_TO_ALLOW if only_new else _HOW_TO_CHANGE
        ) from None
    absent = {name: dtype for name, dtype in schema.items() if name not in fitted.columns}
    return fitted.with_columns(pl.lit(None, dtype=dtype).alias(name) for name, dtype in absent.items())
