"""Column lineage for the UI: which columns of which tables a feature or a training column comes from."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.registry.manifest import feature_of

if TYPE_CHECKING:
    from ml_platform.lake.storage.tables import Lake


def sql_column_lineage(sql: str, lake: "Lake", tables: Iterable[str]) -> dg.TableColumnLineage:
    """Trace every column of a query to the lake columns it is computed from.

    Parameters
    ----------
    sql
        A DuckDB SELECT over `schema.name` tables.
    lake
        Gives the columns of those tables, so that `*` and unqualified names resolve.
    tables
        Lake tables that the query reads.
    """
    from sqlglot import exp, parse_one
    from sqlglot.lineage import lineage

    schema: dict[str, dict[str, dict[str, str]]] = {}
    for table in tables:
        database, _, name = table.partition("/")
        schema.setdefault(database, {})[name] = dict.fromkeys(lake.schema(table), "TEXT")
    query = parse_one(sql, dialect="duckdb")
    if not isinstance(query, exp.Query):
        raise ValueError(f"column lineage: a SELECT was wanted, found {type(query).__name__}: {sql.strip()[:200]}")
    sources: dict[str, list[dg.TableColumnDep]] = {}
    for column in query.named_selects:
        columns = set()
        for node in lineage(column, query, schema=schema, dialect="duckdb").walk():
            if isinstance(node.expression, exp.Table):
                key = (node.expression.db, node.expression.name)
                columns.add((key, exp.to_column(node.name).name))
        sources[column] = [
            dg.TableColumnDep(asset_key=dg.AssetKey(list(key)), column_name=name) for key, name in sorted(columns)
        ]
    return dg.TableColumnLineage(deps_by_column=sources)


def feature_column_lineage(columns: Mapping[str, str], spine_tables: Iterable[str]) -> dg.TableColumnLineage:
    """Trace the columns of a training set.

    Parameters
    ----------
    columns
        Column → where it comes from: `view:<name>` for a looked-up feature (see `feature_of`), anything else for a
        column of the spine.
    spine_tables
        Lake tables under the spine, named for columns of the same name.
    """
    deps: dict[str, list[dg.TableColumnDep]] = {}
    for column, source in columns.items():
        if source.startswith("view:"):
            view = source.removeprefix("view:")
            name = feature_of(view, column)
            deps[column] = [dg.TableColumnDep(asset_key=dg.AssetKey(["features", view]), column_name=name)]
        elif source == "input":
            deps[column] = [
                dg.TableColumnDep(asset_key=dg.AssetKey(table.split("/")), column_name=column) for table in spine_tables
            ]
    return dg.TableColumnLineage(deps_by_column=deps)
