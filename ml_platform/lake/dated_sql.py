"""`raw.flights AT (VERSION => 3)` in SQL: a table as it was, beside itself as it is."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ml_platform.lake.snapshots import instant


@dataclass(frozen=True)
class Dated:
    """A table that a SELECT names with a version or an instant, and the schema in which it looks for that."""

    table: str
    schema: str
    version: int | None = None
    as_of: datetime | None = None


def base_tables(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the nodes of DuckDB's tree of a SELECT that name a table with its schema."""
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE" and node.get("schema_name"):
            yield node
        for value in node.values():
            yield from base_tables(value)
    elif isinstance(node, list):
        for value in node:
            yield from base_tables(value)


def table_of(node: dict[str, Any]) -> str:
    """Name of the lake's table that a node means."""
    return f"{node['schema_name']}/{node['table_name']}"


def take_dates(tree: dict[str, Any]) -> set[Dated]:
    """Take the AT clauses out of a tree; each of their tables is looked for in a schema of its own afterwards.

    Raises
    ------
    ValueError
        If one is neither a version nor a time.
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
