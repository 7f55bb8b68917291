"""Writes by key: merge rows, remove them, or append each one only once. All can be repeated safely."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable

from ml_platform.lake.names import quoted
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.snapshots import scan
from ml_platform.lake.storage.suppression import without_suppressed
from ml_platform.lake.storage.tables import Lake
from ml_platform.lake.storage.type_mapping import as_arrow, conform, storable

if TYPE_CHECKING:
    from deltalake.table import TableMerger


def merge(
    lake: Lake,
    table: str,
    frame: pl.DataFrame | pl.LazyFrame,
    *,
    on: Sequence[str],
    partition_by: Sequence[str] = (),
    add_columns: bool = False,
    app_transaction: tuple[str, int] | None = None,
) -> int:
    """Replace the table's row with the same key by each row, or add the row if there is none. Idempotent.

    Parameters
    ----------
    app_transaction
        `(application, number)` to commit with the rows; the rows are merged whatever number was committed before.

    Returns
    -------
    int
        The version that has the rows.

    Raises
    ------
    ValueError
        If a key appears twice in the frame, or is null.
    SchemaMismatch, CommitConflict
        See `Lake.append`.

    Examples
    --------
    >>> import tempfile
    >>> lake = Lake(tempfile.mkdtemp())
    >>> _ = lake.append("raw/readings", pl.DataFrame({"sensor": ["a", "b"], "value": [1.0, 2.0]}))
    >>> merge(lake, "raw/readings", pl.DataFrame({"sensor": ["b", "c"], "value": [20.0, 30.0]}), on=["sensor"])
    1
    >>> lake.read("raw/readings").sort("sensor").collect().rows()
    [('a', 1.0), ('b', 20.0), ('c', 30.0)]
    """
    rows = storable(frame, table)
    keys = rows.select(on)
    if keys.is_duplicated().any() or any(keys.null_count().row(0)):
        raise ValueError(f"Rows to merge into '{table}' want one row per {', '.join(on)}, which is never null.")
    if not lake.exists(table):
        lake.append(table, rows.clear(), partition_by=partition_by)

    def attempt() -> int:
        target = lake.snapshot(table)
        fitted = conform(
            without_suppressed(lake, table, rows), scan(target).collect_schema(), table, add_columns=add_columns
        )
        if fitted.is_empty():  # a merge would commit nothing, and so not the number
            numbers = [app_transaction] if app_transaction else []
            return lake.write(target, table, fitted, (), add_columns, mode="append", app_transactions=numbers)
        merger = _merger(target, fitted, on, *filter(None, [app_transaction]), add_columns=add_columns)
        merger.when_matched_update_all().when_not_matched_insert_all().execute()
        return target.version()

    return lake.retried(table, "merge into", attempt)


def remove(lake: Lake, table: str, keys: pl.DataFrame) -> int:
    """Delete the table's rows whose key is among `keys`; return the version afterwards.

    Raises
    ------
    SchemaMismatch
        If a key is none of the table's columns, or a value none that the column can hold.
    """
    rows = storable(keys, table).unique()

    def attempt() -> int:
        target = lake.snapshot(table)
        columns = scan(target).select(rows.columns).collect_schema()
        _merger(target, conform(rows, columns, table, add_columns=False), rows.columns).when_matched_delete().execute()
        return target.version()

    return lake.retried(table, "remove rows from", attempt)


def append_once(
    lake: Lake,
    table: str,
    frame: pl.DataFrame,
    *,
    names: Sequence[str] | pl.Series,
    numbers: Mapping[str, int],
    partition_by: Sequence[str] = (),
    add_columns: bool = False,
) -> int:
    """Append named rows, but leave out those whose name was appended before, by anybody.

    The names are kept in the table's log (each as a Delta application transaction), so this holds across crashes and
    between processes. Meant for thousands of names, not for millions; any number of rows can share a name.

    Parameters
    ----------
    names
        Name of each row of `frame`.
    numbers
        Number to keep with each name, including names without rows; see `Lake.deliveries`.
    partition_by
        Partition columns, used when the table is created.

    Returns
    -------
    int
        The version that has the rows.
    """
    rows, name = storable(frame, table), pl.Series(names, dtype=pl.String)

    def attempt() -> int:
        target = lake.snapshot(table) if lake.exists(table) else None
        done = lake.deliveries(table, target.version()) if target is not None else {}
        new = {name: number for name, number in numbers.items() if name not in done}
        if target is not None and not new:
            return target.version()
        wanted = rows.filter(name.is_in(list(new)))
        return lake.write(
            target, table, wanted, partition_by, add_columns, mode="append", app_transactions=list(new.items())
        )

    return lake.retried(table, "append to", attempt)


def _merger(
    target: DeltaTable,
    given: pl.DataFrame,
    on: Sequence[str],
    *app_transactions: tuple[str, int],
    add_columns: bool = False,
) -> "TableMerger":
    """Begin a merge of given rows into the table, matched by the columns `on`."""
    return target.merge(
        as_arrow(given),
        " AND ".join(f"kept.{quoted(column)} = given.{quoted(column)}" for column in on),
        source_alias="given",
        target_alias="kept",
        merge_schema=add_columns,
        commit_properties=commits.properties(*app_transactions),
        post_commithook_properties=commits.HOOKS,
    )
