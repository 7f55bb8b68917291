"""How a raw table's columns may change: not at all, or by adding columns.

With `reject` (the default) a column that is new in the contract is refused until the table may grow, and a column that
only the source has is always refused. With `add_columns` both are added to the table, null in older rows; columns that
the contract does not know are taken from the source unchecked. A column that is missing or has another type is refused
in both cases.
"""

from typing import Literal

import dataframely as dy
import polars as pl

from ml_platform.lake.contracts.contract import ROW
from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.exact_casts import is_flag
from ml_platform.lake.storage.tables import Lake
from ml_platform.lake.storage.type_mapping import conform, storable, untyped

Evolution = Literal["reject", "add_columns"]

HOW_TO_ALLOW = (
    "To let new columns into the table, declare it with evolution: add_columns (RawTable(evolution='add_columns') in "
    "Python); older rows are null there."
)
_HOW_TO_CHANGE = (
    "A type cannot change in place and a column cannot go: write the table anew once with Lake.replace (old "
    "versions stay readable; see 'When columns change' in the documentation), or give the column another name."
)


def set_aside(rows: pl.DataFrame, contract: type[dy.Schema], evolution: Evolution) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Split a source's columns into those that the contract checks, and `ROW` with those that it does not know."""
    unknown = [name for name in rows.columns if name not in contract.columns()] if evolution == "add_columns" else []
    return rows.drop(unknown), rows.with_row_index(ROW).select(ROW, *unknown)


def put_back(rows: pl.DataFrame, unknown: pl.DataFrame) -> pl.DataFrame:
    """Add the columns that were set aside to the rows again."""
    return rows.join(unknown, on=ROW, maintain_order="left") if unknown.width > 1 else rows


def fit(lake: Lake, table: str, rows: pl.DataFrame, evolution: Evolution, *, anew: bool = False) -> pl.DataFrame:
    """Fit rows that meet the contract to the columns and types of the table.

    With `anew`, the whole table will be replaced. Then an empty table's columns do not matter, so that a wrong type,
    because of which no row was accepted, can be corrected.

    Raises
    ------
    SchemaMismatch
        If the table lacks a column and may not grow, has one with another type, or has one that the contract no longer
        knows; the message says how to allow it.
    """
    rows = storable(rows, table)
    if not lake.exists(table) or (anew and lake.read(table).head(1).collect().is_empty()):
        return rows.drop(untyped(rows))
    schema = lake.schema(table)
    grows = evolution == "add_columns"
    try:
        _check_booleans(rows, schema, table)
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


def _check_booleans(rows: pl.DataFrame, schema: pl.Schema, table: str) -> None:
    """Refuse a contract that calls numbers what the table has as booleans: its next value may be 2."""
    problems = [
        f"column '{name}': wanted {schema[name]}, found {dtype}"
        for name, dtype in rows.schema.items()
        if name in schema and is_flag(dtype, schema[name])
    ]
    if problems:
        raise SchemaMismatch(f"Table '{table}'", problems, _HOW_TO_CHANGE)
