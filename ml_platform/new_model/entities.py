"""Columns that name who or what a row is of, with several rows each: a split at random keeps their rows together."""

from collections.abc import Collection, Mapping

from ml_platform.new_model.table_columns import TableColumn

ENTITY_WORDS = frozenset(
    {
        "customer",
        "client",
        "user",
        "account",
        "patient",
        "person",
        "member",
        "household",
        "device",
        "machine",
        "subject",
    }
)
_FEWEST_ENTITIES = 20
_LEAST_REPEATS = 1.2  # rows of an entity on average, from which entities count as repeating


def repeating_entity(columns: Mapping[str, TableColumn], *, ids: Collection[str]) -> TableColumn | None:
    """Find the first column that names an entity with several rows, such as `customer_id`; None where there is none.

    Parameters
    ----------
    columns
        Those of the table, without the target.
    ids
        Columns that identify a row, which are none.
    """
    return next((column for name, column in columns.items() if name not in ids and _repeats(column)), None)


def _repeats(column: TableColumn) -> bool:
    is_code = column.kind in {"string", "integer"} or column.is_whole
    is_named = "id" in column.words and bool(column.words & ENTITY_WORDS)
    known = column.rows - column.nulls
    return is_named and is_code and column.distinct >= _FEWEST_ENTITIES and known >= _LEAST_REPEATS * column.distinct
