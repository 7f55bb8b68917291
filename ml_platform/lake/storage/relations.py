"""A snapshot's rows as a SELECT for DuckDB, whole or as a principal may see them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable

from ml_platform.lake.access import AccessDenied, TableAccess, object_name
from ml_platform.lake.names import literal, quoted
from ml_platform.lake.storage.snapshots import files_are_alike, needs_delta_reader, read_arrow, scan

if TYPE_CHECKING:
    import duckdb

_BATCH_ROWS = 100_000


def whole_rows(connection: "duckdb.DuckDBPyConnection", table: str, snapshot: DeltaTable, *, is_local: bool) -> str:
    """Make a SELECT of the snapshot's rows, with the columns, order and types of its Delta schema."""
    schema = scan(snapshot).collect_schema()
    if not is_local or needs_delta_reader(snapshot):
        name = f"lake:{table}@{snapshot.version()}"
        # DuckDB reads a dataset itself, so only the columns and files that a query needs cross the network.
        whole = needs_delta_reader(snapshot)
        connection.register(name, read_arrow(snapshot) if whole else snapshot.to_pyarrow_dataset())
        return f"SELECT {', '.join(map(quoted, schema))} FROM {quoted(name)}"
    types = dict(zip(schema, connection.from_arrow(pl.DataFrame(schema=schema).to_arrow()).types, strict=True))
    # The empty relation supplies columns that no file has yet; files that lack an added column give null.
    empty = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in types.items())
    files = snapshot.file_uris()
    if not files:
        return f"SELECT {empty} WHERE false"
    partitions = snapshot.metadata().partition_columns
    hive_types = ", ".join(f"{literal(name)}: {types[name]}" for name in partitions)
    options = (
        f", hive_partitioning = true, hive_types = {{{hive_types}}}" if partitions else ", hive_partitioning = false"
    )
    if not files_are_alike(snapshot):
        options += ", union_by_name = true"  # only if needed: it opens every file each time the view is bound
    columns = ", ".join(map(quoted, schema))
    return (
        f"SELECT {columns} FROM (SELECT {empty} WHERE false UNION ALL BY NAME "
        f"SELECT * FROM read_parquet([{', '.join(map(literal, files))}]{options}))"
    )


def granted_rows(rows: str, columns: Mapping[str, str], access: TableAccess) -> str:
    """Make a SELECT of what a principal sees, given one of a table's rows.

    The masks and the filter are computed in a materialised WITH clause. Otherwise DuckDB could compute an expression
    of the query around it on rows that the filter hides, and an error of it, such as of a cast, would quote their
    values.

    Parameters
    ----------
    rows
        SELECT of the table's own rows.
    columns
        Its columns and their SQL types, which masked values keep.
    access
        What is granted. Granted columns that this version of the table does not have are left out.

    Examples
    --------
    >>> print(granted_rows("FROM t", {"a": "TEXT", "b": "INT"}, TableAccess({"a": "left(a, 1)"}, "b > 0")))
    WITH granted AS MATERIALIZED (SELECT CAST((left(a, 1)) AS TEXT) AS "a" FROM (SELECT * FROM (FROM t) WHERE (b > 0)))
    SELECT * FROM granted
    """
    if access.is_whole:
        return rows
    given = dict.fromkeys(columns) if access.columns is None else access.columns
    named = [name for name in columns if name in given]
    select = ", ".join(
        f"CAST(({mask}) AS {columns[name]}) AS {quoted(name)}" if (mask := given[name]) is not None else quoted(name)
        for name in named
    )
    if access.is_plain:
        return f"SELECT {select} FROM ({rows})"
    # The filter is in a SELECT of its own, where no mask's name could stand for the column that it hides.
    kept = f"SELECT * FROM ({rows}) WHERE ({access.row_filter})" if access.row_filter is not None else rows
    return f"WITH granted AS MATERIALIZED (SELECT {select} FROM ({kept}))\nSELECT * FROM granted"


@contextmanager
def applying(table: str, version: int, principal: str) -> Iterator[None]:
    """Refuse a version of a table to which its masks or filter do not apply, without quoting them.

    Raises
    ------
    AccessDenied
        In place of DuckDB's error: an older version may lack the columns, and must not be given without its filter.
    """
    import duckdb

    try:
        yield
    except (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException):
        raise AccessDenied(
            principal,
            "select",
            object_name(table),
            f"Its row filter or a mask cannot be computed on version {version}, whose columns differ: read another "
            "version, or ask the owner to adapt them.",
        ) from None


def fence(connection: "duckdb.DuckDBPyConnection") -> None:
    """Keep DuckDB from moving conditions of a query into the materialised rows of `granted_rows`."""
    connection.execute("SET disabled_optimizers = 'cte_filter_pusher'")


def scan_granted(table: str, snapshot: DeltaTable, access: TableAccess, *, is_local: bool) -> pl.LazyFrame:
    """Scan what a principal sees of a snapshot, lazily.

    DuckDB makes the granted rows, of the columns that are wanted, and only then does Polars filter them: a condition
    that Polars moves to the reader, or a Python function in it, would otherwise see hidden rows.
    """
    own = scan(snapshot).collect_schema()
    if access.is_plain and access.columns is not None:
        return scan(snapshot).select(name for name in own if name in access.columns)

    def made(connection: "duckdb.DuckDBPyConnection") -> str:
        rows = whole_rows(connection, table, snapshot, is_local=is_local)
        return granted_rows(rows, column_types(connection, rows), access)

    with _connect() as connection:
        schema = pl.Schema({name: own[name] for name in connection.sql(made(connection)).columns})

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        names = [name for name in schema if with_columns is None or name in with_columns] or list(schema)[:1]
        with _connect() as connection:
            relation = connection.sql(f"SELECT {', '.join(map(quoted, names))} FROM ({made(connection)})")
            # The reader's own limit counts rows before the predicate.
            limited = relation if n_rows is None else relation.limit(n_rows)
            for batch in limited.to_arrow_reader(batch_size or _BATCH_ROWS):
                frame = pl.DataFrame(batch).cast({name: schema[name] for name in names})
                yield frame if predicate is None else frame.filter(predicate)

    from polars.io.plugins import register_io_source

    return register_io_source(batches, schema=schema)


def column_types(connection: "duckdb.DuckDBPyConnection", rows: str) -> dict[str, str]:
    """Columns of a SELECT and their SQL types."""
    relation = connection.sql(rows)
    return dict(zip(relation.columns, map(str, relation.types), strict=True))


def _connect() -> "duckdb.DuckDBPyConnection":
    import duckdb

    connection = duckdb.connect(":memory:")
    connection.execute("SET TimeZone = 'UTC'")
    fence(connection)
    return connection
