"""Which columns of its tables each output column of a DuckDB query depends on, and how.

*Which* is told by DuckDB itself: the query is planned over empty tables of the real types, once for each output column
alone, by no optimizer but those that take unused columns out of scans. What the scans still read is what the column
depends on; nothing that DuckDB can plan is missed. *How* (as a value, or only in a join, filter, group …) is told by
sqlglot's syntax tree, in `sql_uses`; a column whose use it cannot tell is an edge of the kind `read`.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import duckdb

from ml_platform.lake.names import literal, quoted
from ml_platform.lineage.graph import Kind

if TYPE_CHECKING:
    from ml_platform.lineage.sql_uses import Uses

Column = tuple[str, str]  # (`schema.name`, column)

_KEPT = (
    "unused_columns",
    "cte_inlining",
    "deliminator",
)  # the optimizers by which the plan of one column reads only what it needs

Tables = Mapping[str, Mapping[str, str]]  # `schema.name` → column → DuckDB type


def sql_columns(sql: str, tables: Tables) -> dict[str, dict[Column, frozenset[Kind]]]:
    """Trace each output column of a query.

    Parameters
    ----------
    sql
        One SELECT over `schema.name` tables.
    tables
        The tables that it reads, with the DuckDB types of their columns.

    Returns
    -------
    dict[str, dict[Column, frozenset[Kind]]]
        Output column → (table, column) → how it is used.

    Raises
    ------
    duckdb.Error
        If the query does not bind to these tables.

    Examples
    --------
    >>> tables = {"raw.sales": {"shop": "VARCHAR", "day": "DATE", "revenue": "DOUBLE", "till": "INTEGER"}}
    >>> found = sql_columns("SELECT shop, sum(revenue) AS total FROM raw.sales WHERE till > 0 GROUP BY shop", tables)
    >>> {column: sorted(kinds) for (_, column), kinds in sorted(found["total"].items())}
    {'revenue': ['aggregate'], 'shop': ['group'], 'till': ['filter']}
    """
    frozen = tuple((table, tuple(columns.items())) for table, columns in sorted(tables.items()))
    return {name: dict(uses) for name, uses in _traced(sql.strip().rstrip(";"), frozen)}


@lru_cache(maxsize=512)
def _traced(
    sql: str, tables: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
) -> tuple[tuple[str, tuple[tuple[Column, frozenset[Kind]], ...]], ...]:
    by_name = {table: dict(columns) for table, columns in tables}
    read = columns_read(sql, by_name)
    from ml_platform.lineage.sql_uses import uses_of  # its parser takes longer to import than all else here

    uses = uses_of(sql, by_name)
    traced = []
    for number, (output, columns) in enumerate(read):
        known = _of_output(uses, output, number, len(read))
        kinds = {column: known.get(column) or frozenset[Kind]({"read"}) for column in sorted(columns)}
        traced.append((output, tuple(kinds.items())))
    return tuple(traced)


def _of_output(uses: "Uses | None", output: str, number: int, count: int) -> Mapping[Column, frozenset[Kind]]:
    """Uses of one output column: by position, since names may differ in their case."""
    if uses is None:
        return {}
    if len(uses) == count:
        return uses[number][1]
    return next((found for name, found in uses if name.lower() == output.lower()), {})


def columns_read(sql: str, tables: Tables) -> list[tuple[str, set[Column]]]:
    """Output column → the (table, column) that DuckDB must read to compute it, in the order of the query."""
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        scanned = create_tables(connection, tables)
        names = [name for (name,) in connection.execute("SELECT name FROM duckdb_optimizers()").fetchall()]
        others = ",".join(name for name in names if name not in _KEPT)
        connection.execute(f"SET disabled_optimizers = {literal(others)}")
        text = _without_materialized(sql, connection)
        described = connection.execute(f"DESCRIBE {text}").fetchall()
        aliases = [f"c{number}" for number in range(len(described))]
        read = []
        for alias, (name, *_) in zip(aliases, described, strict=True):
            query = f"SELECT {alias} FROM ({text}) AS q({', '.join(aliases)})"
            ((_, plan),) = connection.execute(f"EXPLAIN (FORMAT JSON) {query}").fetchall()
            read.append((name, {column for node in json.loads(plan) for column in _scans(node, scanned)}))
        return read


def create_tables(connection: duckdb.DuckDBPyConnection, tables: Tables) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Create empty tables; give their names in plans → name, columns."""
    connection.execute("SET TimeZone = 'UTC'")
    scanned = {}
    for table, columns in tables.items():
        schema, _, name = table.partition(".")
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
        declared = ", ".join(f"{quoted(column)} {kind}" for column, kind in columns.items())
        connection.execute(f"CREATE TABLE {quoted(schema)}.{quoted(name)} ({declared})")
        for shown in (f"memory.{schema}.{name}", f"memory.{quoted(schema)}.{quoted(name)}"):
            scanned[shown] = (table, tuple(columns))
        scanned[f"memory.{schema}.{quoted(name)}"] = (table, tuple(columns))
    return scanned


def _without_materialized(sql: str, connection: duckdb.DuckDBPyConnection) -> str:
    """Take MATERIALIZED off CTEs: a materialized one is computed as a whole, for every column of the query."""
    ((text,),) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    tree = json.loads(text)
    if tree["error"]:
        return sql  # DESCRIBE says what is wrong

    def change(node: Any) -> bool:
        changed = False
        if isinstance(node, dict):
            if node.get("materialized") == "CTE_MATERIALIZE_ALWAYS":
                node["materialized"] = "CTE_MATERIALIZE_NEVER"
                changed = True
            return any([changed, *map(change, node.values())])
        return isinstance(node, list) and any(list(map(change, node)))

    if not change(tree):
        return sql
    ((text,),) = connection.execute("SELECT json_deserialize_sql(?::JSON)", [json.dumps(tree)]).fetchall()
    return str(text)


def _scans(node: Mapping[str, Any], scanned: Mapping[str, tuple[str, tuple[str, ...]]]) -> Iterator[Column]:
    info = node.get("extra_info", {})
    if (shown := info.get("Table")) is not None:
        table, columns = scanned[shown]
        projected = info.get("Projections") or []
        for name in [projected] if isinstance(projected, str) else projected:
            for column in _columns(name, columns):
                yield table, column
    for child in node.get("children", ()):
        yield from _scans(child, scanned)


def _columns(shown: str, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Column that a projection of a scan is of: `place` for `place.city`, a field of a struct; all, if unclear."""
    if any("\n" in name for name in columns):
        return columns if shown else ()  # the plan puts a line break between two names
    if shown in columns or not shown:
        return (shown,) if shown else ()
    owners = [name for name in columns if shown.startswith((f"{name}.", f"{quoted(name)}."))]
    return (max(owners, key=len),) if owners else columns
