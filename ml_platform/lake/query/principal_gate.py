"""What SQL of a principal may be: an allow-list over DuckDB's own parse tree, of every kind of node in it.

Somebody whose columns are masked reads from a connection that may open the masked table's files, so nothing in a
statement may name a file, a catalog, a view's text, or a relation that was not made for it. What is not in the list is
refused, also what a newer DuckDB brings. `WITH` is read as DuckDB does: a query sees the names before it only, so that
`WITH a AS (FROM duckdb_views), duckdb_views AS (…)` reads the catalog, and is refused.
"""

from typing import Any

from ml_platform.lake.query.allowed_functions import ALLOWED_FUNCTIONS
from ml_platform.lake.query.sql_functions import PREDICT
from ml_platform.lake.query.sql_gate import MAKE_ROWS, OutsideTheLake

# Names of DuckDB's own catalogs and schemas: `temp.x` may be the table x of the catalog `temp`.
_RESERVED = {"main", "temp", "system", "memory", "pg_catalog", "information_schema", "recurring"}
_QUERIES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"}
_SOURCES = {
    *("BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY", "EXPRESSION_LIST", "TABLE_FUNCTION", "PIVOT", "SHOW_REF"),
    "COLUMN_DATA",
}
_MODIFIERS = {
    *("ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"),
    *("ORDER_DEFAULT", "ASCENDING", "DESCENDING"),
}
_EXPRESSIONS = {
    *("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION"),
    *("LAMBDA", "LAMBDA_REF", "OPERATOR", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"),
}
_SCALAR = _EXPRESSIONS - {"SUBQUERY", "STAR", "POSITIONAL_REFERENCE", "WINDOW"}


class NotOneValue(ValueError):
    """A mask or row filter that is not one expression over the columns of its table."""


def check_principals_sql(tree: Any) -> None:
    """Refuse a parse tree of a SELECT that has anything but what is known to read granted tables only.

    Raises
    ------
    OutsideTheLake
        For anything that is not in the list; the message names it.
    """
    _check(tree, frozenset())


def check_value(tree: dict[str, Any], what: str) -> None:
    """Refuse the parse tree of `SELECT <text>` unless the text is one scalar expression over a row's own columns.

    Parameters
    ----------
    tree
        Of the SELECT.
    what
        What the text is, for the error: "the mask of raw.flights.tailnum".

    Raises
    ------
    NotOneValue
        For more than one expression, a FROM clause, a subquery, a window or a function that is not allowed.
    """
    node = tree["statements"][0]["node"]
    is_one = (
        node.get("type") == "SELECT_NODE"
        and len(node["select_list"]) == 1
        and node["from_table"]["type"] == "EMPTY"
        and not node["modifiers"]
        and not node["cte_map"]["map"]
        and not any(node.get(clause) for clause in ("where_clause", "having", "qualify", "sample", "group_expressions"))
    )
    if not is_one:
        raise NotOneValue(f"{what}: wanted one SQL expression over the table's columns, found more")
    for one in _below(node["select_list"]):
        if one.get("class") is not None and one["class"] not in _SCALAR:
            raise NotOneValue(f"{what}: a {one['class'].lower()} cannot be used here: only the row's own columns")
    try:
        _check(node["select_list"], frozenset())
    except OutsideTheLake as error:
        raise NotOneValue(f"{what}: {error}") from error


def _check(node: Any, names: frozenset[str]) -> None:
    """Check a node and all below it; `names` are those of the WITH clauses that it sees."""
    if isinstance(node, list):
        for child in node:
            _check(child, names)
        return
    if not isinstance(node, dict):
        return
    names = _check_with(node, names)
    kind, expression = node.get("type"), node.get("class")
    if expression is not None:
        if expression not in _EXPRESSIONS:
            raise OutsideTheLake(f"{str(expression).lower()} in SQL")
        if expression in {"FUNCTION", "WINDOW"}:
            _check_function(node)
        elif expression == "TYPE" and (node.get("schema") or node.get("catalog")):
            raise OutsideTheLake(f"The type {node.get('type_name')}")
    elif not isinstance(kind, str):
        pass  # no node of the tree, or a value with its type
    elif kind in _SOURCES:
        _check_source(kind, node, names)
    elif kind not in _QUERIES and kind not in _MODIFIERS:
        raise OutsideTheLake(f"{kind.lower()} in SQL")
    for key, child in node.items():
        if key not in {"cte_map", "qualified_name", "literal", "at_clause"}:
            # The first branch of a recursion does not see its name, which would be a table or a catalog there.
            recursive = kind == "RECURSIVE_CTE_NODE" and key != "left"
            _check(child, names | {node["cte_name"].lower()} if recursive else names)


def _check_with(node: dict[str, Any], names: frozenset[str]) -> frozenset[str]:
    """Check a node's WITH clause; returns the names that the node sees."""
    for entry in (node.get("cte_map") or {}).get("map", ()):
        _check(entry["value"], names)
        names |= {entry["key"].lower()}
    return names


def _check_source(kind: str, node: dict[str, Any], names: frozenset[str]) -> None:
    name, schema, catalog = (str(node.get(part) or "") for part in ("table_name", "schema_name", "catalog_name"))
    if kind == "BASE_TABLE":
        path = [part for part in (catalog, schema, name) if part]
        if (
            catalog
            or (not schema and name.lower() not in names)
            or schema.lower() in _RESERVED
            or node.get("qualified_name", {}).get("path", path) != path
        ):
            raise OutsideTheLake(".".join(f"'{part}'" for part in path))
    elif kind == "SHOW_REF" and not node.get("query"):
        raise OutsideTheLake(f"SHOW {name}".strip())
    elif kind == "TABLE_FUNCTION":
        function = node["function"]
        called = str(function.get("function_name", "")).lower()
        if called not in MAKE_ROWS or function.get("schema") or function.get("catalog"):
            raise OutsideTheLake(f"{called}()")


def _check_function(node: dict[str, Any]) -> None:
    name = str(node.get("function_name") or "")
    if (
        node.get("schema")
        or node.get("catalog")
        or name.lower() not in ALLOWED_FUNCTIONS | MAKE_ROWS | frozenset(PREDICT)
    ):
        raise OutsideTheLake(f"{name}()")


def _below(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, dict):
        return [node, *(one for child in node.values() for one in _below(child))]
    return [one for child in node for one in _below(child)] if isinstance(node, list) else []
