"""Lets SQL of a person reach the lake's tables and nothing else, by DuckDB's own parse tree: no files, no settings.

It is an allow-list of what a FROM clause may have: tables by schema and name, the statement's own names, and functions
that make rows of their arguments. What it lets through still runs on a connection that may read only the files of the
tables (`ml_platform.lake.query.sql`), so a mistake here shows no other file.
"""

import re
from typing import Any

from ml_platform.lake.query.time_travel_sql import nodes

MAKE_ROWS = frozenset({"range", "generate_series", "unnest", "repeat", "repeat_row", "json_each", "json_tree"})
# Functions of values that tell of the process, or of the text of views, which names files.
_TELL = re.compile(
    r"current_setting|getenv|pg_get_\w+|query|query_table|\w*_scan|read_\w+|glob|duckdb_\w+|pragma_\w+|"
    r"json_(de)?serialize_(sql|plan)|json_execute_serialized_sql|write_log|which_secret|sql_auto_complete",
    re.IGNORECASE,
)
_FILE = re.compile(r"[./\\:*?\[\]{}~]")  # of what the name of a file has at least one
_REMEDY = "SQL reads only the lake's tables: make the file one (SourceTable), or read it with Polars."


class OutsideTheLake(ValueError):
    """SQL that names something else than the lake's tables."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not a table of the lake. {_REMEDY}")


def check_reads_tables_only(tree: Any) -> None:
    """Refuse a parse tree of a SELECT that reads anything but tables named `schema.name`, wherever in it.

    Raises
    ------
    OutsideTheLake
        For a file, a function that reads one, a catalog, a listing of DuckDB's, or a function that tells settings.
    """
    for node in nodes(tree):
        kind, name = node.get("type"), str(node.get("table_name") or "")
        if kind == "BASE_TABLE":
            schema, catalog = str(node.get("schema_name") or ""), str(node.get("catalog_name") or "")
            if catalog or (not schema and _FILE.search(name)):
                raise OutsideTheLake(".".join(f"'{part}'" for part in (catalog, schema, name) if part))
        elif kind == "SHOW_REF" and not node.get("query"):
            raise OutsideTheLake(f"SHOW {name}".strip())
        elif kind == "TABLE_FUNCTION":
            function = node["function"]
            if function.get("function_name", "").lower() not in MAKE_ROWS or function.get("schema"):
                raise OutsideTheLake(f"{function.get('function_name')}()")
        elif node.get("class") == "FUNCTION" and _TELL.fullmatch(str(node.get("function_name"))):
            raise OutsideTheLake(f"{node['function_name']}()")
