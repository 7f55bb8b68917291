"""SQL over the lake: DuckDB views of pinned Delta snapshots, in memory, so there is no database file to lock.

The table `raw/flights` is the view `raw.flights`; everything after the first slash is the view's name
(`quarantine/raw/flights` is `quarantine."raw/flights"`). DuckDB reads the snapshot's Parquet files directly, without
its `delta` extension, which cannot be installed on a machine without internet.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import duckdb
import polars as pl
from deltalake import DeltaTable

from ml_platform.lake.access import AccessDenied, TableAccess, object_name
from ml_platform.lake.errors import NotYetCreated, TableNotFound
from ml_platform.lake.names import literal, quoted, sql_name
from ml_platform.lake.query.overlays import Overlays
from ml_platform.lake.query.principal_gate import NotOneValue, check_principals_sql, check_value
from ml_platform.lake.query.sql_functions import SqlFunctions, check_predicts_nothing
from ml_platform.lake.query.sql_gate import check_reads_tables_only
from ml_platform.lake.query.time_travel_sql import base_tables, nodes, table_of, take_dates
from ml_platform.lake.storage.relations import applying, column_types, fence, granted_rows, whole_rows
from ml_platform.lake.storage.tables import Lake


def attach(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    tables: Iterable[str] | None = None,
    versions: Mapping[str, int] | None = None,
    *,
    as_of: datetime | None = None,
    overlays: Overlays | None = None,
    schema: str | None = None,
    files: list[str] | None = None,
) -> dict[str, int]:
    """Create one view per table, pinned to a snapshot that later commits do not change.

    Parameters
    ----------
    connection
        Open DuckDB connection; its session time zone is set to UTC.
    lake
        Where the tables are. Where it has a guard, a view has the columns and rows that are granted, with masks; of
        rows of an overlay the same as of the table's own.
    tables
        Names as `schema/name`; all of the lake's that are granted when None.
    versions
        Versions to pin; the newest for other tables.
    as_of
        Instant (with time zone) as of which versions are pinned, instead of the newest. When `tables` is None, tables
        that did not exist yet are left out.
    overlays
        Gives for a table the other table whose rows its view includes, if any. They are left out when the table has a
        version in `versions` and the other does not, or when the other did not exist at `as_of`.
    schema
        Schema of the views, if not that of each table's name.
    files
        List to which the local files are added that the views read.

    Returns
    -------
    dict[str, int]
        The version of each table read, which is the lineage of what is computed from the views.

    Raises
    ------
    TableNotFound
        If a table does not exist.
    LookupError
        If a table has no such version, its files were vacuumed, or it did not exist at `as_of`.
    AccessDenied
        If the lake's guard grants nothing of a table in `tables`.
    """
    if lake.guard is not None:
        fence(connection)
    connection.execute("SET TimeZone = 'UTC'")
    pinned = {}
    for table in lake.tables() if tables is None else sorted(set(tables)):
        version = (versions or {}).get(table)
        try:
            snapshot, access = lake.open_granted(table, version, as_of=as_of if version is None else None)
        except (NotYetCreated, AccessDenied):
            if tables is not None:
                raise
            continue
        own_schema, name = sql_name(table)
        within = quoted(schema) if schema else own_schema
        relation = whole_rows(connection, table, snapshot, is_local=lake.is_local)
        pinned[table] = snapshot.version()
        read = [snapshot]
        overlay = overlays(table, snapshot.version()) if overlays is not None else None
        if overlay is not None and (version is None or overlay.table in (versions or {})):
            other = _other(lake, overlay.table, (versions or {}).get(overlay.table), as_of)
            if other is not None:
                types = column_types(connection, relation)
                relation = overlay.select(
                    relation, whole_rows(connection, overlay.table, other, is_local=lake.is_local), types
                )
                pinned[overlay.table] = other.version()
                read.append(other)
        if files is not None and lake.is_local:
            files.extend(uri for one in read for uri in one.file_uris())
        if not access.is_whole:
            _check_values(access, table)
            relation = granted_rows(relation, column_types(connection, relation), access)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {within}")
        with applying(table, snapshot.version(), lake.principal):
            connection.execute(f"CREATE OR REPLACE VIEW {within}.{name} AS {relation}")
    return pinned


def _check_values(access: TableAccess, table: str) -> None:
    """Refuse masks and filters that are not one expression each over the row's own columns (raises ValueError)."""
    for name, mask in (access.columns or {}).items():
        if mask is not None:
            check_expression(mask, f"the mask of {object_name(table)}.{name}")
    if access.row_filter is not None:
        check_expression(access.row_filter, f"the row filter of {object_name(table)}")


@lru_cache(maxsize=1024)
def check_expression(text: str, what: str) -> None:
    """Refuse a mask or row filter unless it is one SQL expression over a row's own columns.

    Parameters
    ----------
    text
        SQL.
    what
        What it is, for the error: "the mask of raw.flights.tailnum".

    Raises
    ------
    ValueError
        With what is wrong.

    Examples
    --------
    >>> check_expression("left(tailnum, 1) || '…'", "the mask")
    >>> check_expression("true) --", "the row filter")
    Traceback (most recent call last):
    ValueError: the row filter: not one SQL expression: true) --
    """
    if not text.strip():
        raise ValueError(f"{what}: wanted one SQL expression, found nothing")
    with parser().cursor() as cursor:
        try:
            check_value(parse_tree(f"SELECT (\n{text}\n)", cursor), what)
        except NotOneValue:
            raise
        except ValueError:
            raise ValueError(f"{what}: not one SQL expression: {text}") from None


def _other(lake: Lake, table: str, version: int | None, as_of: datetime | None) -> DeltaTable | None:
    """Open the table of an overlay; None if it did not exist yet."""
    try:
        return lake.without_guard().snapshot(table, version, as_of=as_of if version is None else None)
    except (TableNotFound, NotYetCreated):
        return None


def query(
    lake: Lake,
    sql: str,
    *,
    versions: Mapping[str, int] | None = None,
    as_of: datetime | None = None,
    tables: Iterable[str] | None = None,
    limit: int | None = None,
    overlays: Overlays | None = None,
    span: tuple[datetime, datetime] | None = None,
    narrow: Callable[[duckdb.DuckDBPyRelation], duckdb.DuckDBPyRelation] | None = None,
    functions: SqlFunctions | None = None,
) -> pl.DataFrame:
    """Run one SELECT over the lake, in a new connection that can read only the lake's tables.

    Parameters
    ----------
    lake
        Where the tables are.
    sql
        DuckDB SQL that names tables as `schema.name`, optionally at their own version or time:
        `raw.flights AT (VERSION => 3)`, `raw.flights AT (TIMESTAMP => '2024-06-01')`.
    versions
        Versions to pin; the newest otherwise.
    as_of
        Instant (with time zone) as of which other tables are read.
    tables
        Tables to attach; those that the SQL names when None.
    limit
        Most rows to compute.
    overlays
        See `attach`.
    span
        Instants that the SQL reads as `getvariable('span_start')` and `getvariable('span_end')`; the ends of time,
        `-infinity` and `infinity`, when None.
    narrow
        Selects rows and columns of the result. They are chosen before the tables are read, as far as DuckDB can tell
        from the SQL which of their rows are needed.
    functions
        Further functions that the SQL may call.

    Raises
    ------
    TableNotFound, LookupError
        If the SQL names a table that does not exist, or a version of it cannot be read.
    ValueError
        If the SQL is not one SELECT, or reads anything but tables (`OutsideTheLake`).
    duckdb.Error
        If the SQL is wrong.

    Examples
    --------
    >>> import tempfile
    >>> lake = Lake(tempfile.mkdtemp())
    >>> _ = lake.append("raw/readings", pl.DataFrame({"sensor": ["a", "a"], "value": [1.0, 2.0]}))
    >>> query(lake, "SELECT sensor, max(value) AS top FROM raw.readings GROUP BY sensor").rows()
    [('a', 2.0)]
    """
    with duckdb.connect(":memory:") as connection, ExitStack() as stack:

        def made(tree: dict[str, Any]) -> bool:
            if functions is None:
                return False
            return stack.enter_context(functions.made_for(tree, connection, versions or {}, as_of))

        relation, read = _relation_of(connection, lake, sql, versions, as_of, tables, overlays, span, made)
        if narrow is not None:
            relation = narrow(relation)
        rows = (relation if limit is None else relation.limit(limit)).pl()
        record_reads(lake, read, rows.height)
        return rows


def query_batches(
    lake: Lake,
    sql: str,
    *,
    versions: Mapping[str, int] | None = None,
    as_of: datetime | None = None,
    overlays: Overlays | None = None,
    rows: int = 100_000,
    limit: int | None = None,
    functions: SqlFunctions | None = None,
    prepare: Callable[[duckdb.DuckDBPyConnection], object] | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield the rows of `query` some at a time, one frame without rows first, without holding all of them.

    Parameters
    ----------
    lake, sql, versions, as_of, overlays, limit, functions
        See `query`.
    rows
        Most rows of a frame.
    prepare
        Called with the new connection, before anything runs on it: to set limits, or to interrupt it later.
    """
    with duckdb.connect(":memory:") as connection, ExitStack() as stack:
        if prepare is not None:
            prepare(connection)

        def made(tree: dict[str, Any]) -> bool:
            assert functions is not None
            return stack.enter_context(functions.made_for(tree, connection, versions or {}, as_of))

        relation, read = _relation_of(
            connection, lake, sql, versions, as_of, None, overlays, None, None if functions is None else made
        )
        relation = relation if limit is None else relation.limit(limit)
        given = 0
        try:
            yield relation.limit(0).pl()
            for batch in relation.to_arrow_reader(rows):
                given += batch.num_rows
                yield pl.DataFrame(batch)
        finally:  # also when who reads stops before the end
            record_reads(lake, read, given)


def _relation_of(  # noqa: PLR0917 - private
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    sql: str,
    versions: Mapping[str, int] | None,
    as_of: datetime | None,
    tables: Iterable[str] | None,
    overlays: Overlays | None,
    span: tuple[datetime, datetime] | None,
    made: Callable[[dict[str, Any]], bool] | None,
) -> tuple[duckdb.DuckDBPyRelation, dict[tuple[str, int], tuple[str, ...]]]:
    """Attach what a SELECT reads to a new connection, close it in, and give the SELECT's rows, not yet computed.

    Returns
    -------
    tuple
        The rows, and the columns that are read of each table and version, which are none where nobody keeps account.
    """
    tree = parse_tree(sql, connection)
    check_reads_tables_only(tree)
    if lake.guard is not None:
        check_principals_sql(tree)
    dated = take_dates(tree)
    of_own_date = {one.schema for one in dated}
    named = {table_of(node) for node in base_tables(tree) if node["schema_name"] not in of_own_date}
    files: list[str] = []
    pinned = attach(
        connection, lake, named if tables is None else tables, versions, as_of=as_of, overlays=overlays, files=files
    )
    # Not the tables of overlays, whose rows are a part of the view.
    own = {table: version for table, version in pinned.items() if table in named or tables is not None}
    read = _columns_read(connection, lake, tree, own, None)
    for one in dated:
        version = {one.table: one.version} if one.version is not None else {}
        opened = attach(
            connection,
            lake,
            [one.table],
            version,
            as_of=one.as_of,
            overlays=overlays,
            schema=one.schema,
            files=files,
        )
        read |= _columns_read(connection, lake, tree, {one.table: opened[one.table]}, one.schema)
    # A misspelt name raises, so that its version is not silently ignored.
    for table in ((versions or {}).keys() | named) - pinned.keys():
        lake.version(table)
    ends = ("-infinity", "infinity") if span is None else tuple(at.astimezone(UTC).isoformat() for at in span)
    for name, at in zip(("span_start", "span_end"), ends, strict=True):
        connection.execute(f"SET VARIABLE {name} = TIMESTAMPTZ {literal(at)}")
    if made is None:
        check_predicts_nothing(tree)
    is_changed = made is not None and made(tree)
    _close_in(connection, files)
    return connection.sql(_written(tree, connection) if dated or is_changed else sql), read


def record_reads(lake: Lake, read: Mapping[tuple[str, int], tuple[str, ...]], rows: int) -> None:
    """Tell who keeps account of the lake's reads of those of a SELECT, with the rows of its answer."""
    for (table, version), columns in read.items():
        lake.record_read(table, version, columns, rows)


def _columns_read(
    connection: duckdb.DuckDBPyConnection,
    lake: Lake,
    tree: dict[str, Any],
    pinned: Mapping[str, int],
    schema: str | None,
) -> dict[tuple[str, int], tuple[str, ...]]:
    """Columns of each table that the SELECT names, all where it has a star, for who keeps account of reads."""
    if lake.reads is None:
        return {}
    named = {
        str(part).lower()
        for node in nodes(tree)
        for part in (*(node.get("column_names") or ()), *(node.get("using_columns") or ()))
    }
    has_star = any(node.get("class") == "STAR" or node.get("type") == "SHOW_REF" for node in nodes(tree))
    read = {}
    for table, version in pinned.items():
        own_schema, name = sql_name(table)
        columns = connection.sql(f"SELECT * FROM {quoted(schema) if schema else own_schema}.{name} LIMIT 0").columns
        read[table, version] = tuple(one for one in columns if has_star or one.lower() in named)
    return read


def _close_in(connection: duckdb.DuckDBPyConnection, files: Iterable[str]) -> None:
    """Let SQL read only the tables' files: others, and Python variables, have no version to trace an answer to."""
    connection.execute("SET python_enable_replacements = false")
    connection.execute(f"SET allowed_paths = [{', '.join(map(literal, files))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def referenced_tables(sql: str, connection: duckdb.DuckDBPyConnection | None = None) -> set[str]:
    """Lake tables that a SELECT names (`schema.name`), as `schema/name`; without CTEs and unqualified names.

    Parameters
    ----------
    sql
        One SELECT.
    connection
        A DuckDB connection to parse with; opening one costs more than parsing.

    Raises
    ------
    ValueError
        If the SQL does not parse or is not a SELECT.

    Examples
    --------
    >>> sorted(referenced_tables("WITH late AS (FROM raw.flights) SELECT * FROM late JOIN raw.planes USING (tailnum)"))
    ['raw/flights', 'raw/planes']
    """
    if connection is None:
        return set(_parsed(sql))
    return {table_of(node) for node in base_tables(parse_tree(sql, connection))}


def parse_tree(sql: str, connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Parse one SELECT into DuckDB's tree (raises ValueError if it is none)."""
    row = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchone()
    tree: dict[str, Any] = json.loads(row[0]) if row else {"error": True, "error_message": "no parse tree"}
    if tree["error"]:
        raise ValueError(f"One SELECT was wanted: {tree['error_message']}. In: {sql.strip()[:200]}")
    if (count := len(tree["statements"])) != 1:
        raise ValueError(f"One SELECT was wanted, found {count or 'none'}. In: {sql.strip()[:200]}")
    return tree


def _written(tree: dict[str, Any], connection: duckdb.DuckDBPyConnection) -> str:
    ((text,),) = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()
    return str(text)


@lru_cache(maxsize=256)
def _parsed(sql: str) -> frozenset[str]:
    """Parse each statement once: a code location asks for the tables of the same few again and again."""
    with parser().cursor() as cursor:
        return frozenset(referenced_tables(sql, cursor))


@lru_cache(maxsize=1)
def parser() -> duckdb.DuckDBPyConnection:
    """A database to parse with, by cursors; made once, since that takes thirty times as long as to parse.

    It has no threads of its own, which a process that is forked would miss.
    """
    return duckdb.connect(":memory:", config={"threads": 1})
