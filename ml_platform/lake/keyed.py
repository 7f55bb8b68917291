"""Writes that are addressed by a key: put in place, removed, or appended once each, whoever repeats them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable, write_deltalake

from ml_platform.lake import commits
from ml_platform.lake.names import quoted
from ml_platform.lake.snapshots import scan
from ml_platform.lake.tables import Lake
from ml_platform.lake.types import as_arrow, conform, storable

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
) -> int:
    """Put each row in place of the table's row with the same key, or add it if there is none. Idempotent.

    Returns
    -------
    int
        The table's version with the rows in it.

    Raises
    ------
    ValueError
        If a key stands twice in the frame, or is null.
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
        fitted = conform(rows, scan(target).collect_schema(), table, add_columns=add_columns)
        merger = _merger(target, fitted, on, add_columns=add_columns)
        merger.when_matched_update_all().when_not_matched_insert_all().execute()
        return target.version()

    return lake.retried(table, "merge into", attempt)


def remove(lake: Lake, table: str, keys: pl.DataFrame) -> int:
    """Delete the rows whose values in the columns of `keys` are those of one of its rows; return the version after."""

    def attempt() -> int:
        target = lake.snapshot(table)
        _merger(target, keys.unique(), keys.columns).when_matched_delete().execute()
        return target.version()

    return lake.retried(table, "remove rows from", attempt)


def append_once(
    lake: Lake, table: str, frame: pl.DataFrame, *, names: Sequence[str], number: int, add_columns: bool = False
) -> int:
    """Append rows that have names for good: one whose name was appended before, by anybody, is left out.

    The names are kept in the table's log (an application transaction each), so that this holds across crashes and
    between processes. For thousands of rows, not for millions.

    Parameters
    ----------
    names
        Name of each row of `frame`.
    number
        Positive number kept with the names of this call's rows; see `appended`.

    Returns
    -------
    int
        The table's version with the rows in it.
    """
    rows = storable(frame, table)

    def attempt() -> int:
        target = lake.snapshot(table)
        new = [target.transaction_version(name) is None for name in names]
        if not any(new):
            return target.version()
        fitted = conform(rows, scan(target).collect_schema(), table, add_columns=add_columns)
        write_deltalake(
            target,
            as_arrow(fitted.filter(pl.Series(new))),
            mode="append",
            schema_mode="merge" if add_columns else None,
            commit_properties=commits.properties(
                *((name, number) for name, is_new in zip(names, new, strict=True) if is_new)
            ),
            post_commithook_properties=commits.HOOKS,
        )
        return target.version()

    return lake.retried(table, "append to", attempt)


def appended(lake: Lake, table: str, names: Sequence[str]) -> list[int | None]:
    """Say for each name with which number its row was appended; None if it was not."""
    snapshot = lake.snapshot(table)
    return [snapshot.transaction_version(name) for name in names]


def _merger(target: DeltaTable, given: pl.DataFrame, on: Sequence[str], *, add_columns: bool = False) -> "TableMerger":
    """Meet the table's rows with those given that have the same values in some columns."""
    return target.merge(
        as_arrow(given),
        " AND ".join(f"kept.{quoted(column)} = given.{quoted(column)}" for column in on),
        source_alias="given",
        target_alias="kept",
        merge_schema=add_columns,
        commit_properties=commits.properties(),
        post_commithook_properties=commits.HOOKS,
    )
