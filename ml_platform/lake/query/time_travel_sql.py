"""`raw.flights AT (VERSION => 3)` in SQL: an old version of a table, in a query that may also use the present one."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ml_platform.lake.storage.snapshots import instant


@dataclass(frozen=True)
class Dated:
    """A table that a SELECT names with a version or an instant, and the schema made for that version."""

    table: str
    schema: str
    version: int | None = None
    as_of: datetime | None = None


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every node of DuckDB's parse tree, each before those below it."""
    if isinstance(tree, dict):
        yield tree
        for child in tree.values():
            yield from nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from nodes(child)


def base_tables(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield the nodes that name a table with its schema, of DuckDB's parse tree of a SELECT."""
    return (node for node in nodes(tree) if node.get("type") == "BASE_TABLE" and node.get("schema_name"))


def table_of(node: dict[str, Any]) -> str:
    """Name of the lake's table that a node names."""
    return f"{node['schema_name']}/{node['table_name']}"


def take_dates(tree: dict[str, Any]) -> set[Dated]:
    """Remove the AT clauses from a parse tree; each table with one gets a schema of its own.

    Raises
    ------
    ValueError
        If a clause has neither a version nor a time.
    """
    dated = set()
    for node in base_tables(tree):
        if node.get("at_clause"):
            one = _dated(table_of(node), node["at_clause"])
            dated.add(one)
            node["schema_name"], node["at_clause"] = one.schema, None
            node["qualified_name"] = {"path": [one.schema, node["table_name"]]}
    return dated


def _dated(table: str, clause: dict[str, Any]) -> Dated:
    unit, value = clause["unit"].upper(), clause["expr"]
    while value["class"] == "CAST":
        value = value["child"]
    text = str(value["literal"]["text"]) if value["class"] == "CONSTANT" else ""
    schema = f"{table.partition('/')[0]} at {unit} {text}"
    if unit == "VERSION" and text.isdigit():
        return Dated(table, schema, version=int(text))
    if unit == "TIMESTAMP" and text:
        return Dated(table, schema, as_of=instant(text))
    raise ValueError(f"'{table}': AT (VERSION => 3) or AT (TIMESTAMP => '2024-06-01T12:00Z') was wanted.")
