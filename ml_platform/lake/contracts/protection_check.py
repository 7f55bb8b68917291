"""Checks row filters and column masks where they are declared: they parse, fit the columns, and read nothing else."""

import re
from collections.abc import Iterable, Mapping

import duckdb
import polars as pl

from ml_platform.lake.names import literal, quoted
from ml_platform.lake.query.sql import parse_tree, parser
from ml_platform.lake.query.sql_gate import OutsideTheLake, check_reads_tables_only
from ml_platform.lake.query.time_travel_sql import nodes
from ml_platform.spec.protection import Protection

_PRINCIPAL = re.compile(r"\bcurrent_principal\s*\(\s*\)", re.IGNORECASE)
_MEMBER = re.compile(r"\bis_member\s*\(\s*'((?:[^']|'')*)'\s*\)", re.IGNORECASE)
# An entity of a view is of any type: what fits one of these may be right.
_GUESSES = ("VARCHAR", "BIGINT", "DOUBLE", "TIMESTAMPTZ", "BOOLEAN")


def for_principal(sql: str, principal: str, groups: Iterable[str]) -> str:
    """Write `current_principal()` and `is_member('…')` of an expression as values.

    Examples
    --------
    >>> for_principal("owner = current_principal() OR is_member('ops')", "user:ada", ["staff"])
    "owner = 'user:ada' OR FALSE"
    """
    known = {f"group:{name}" for name in groups}

    def member(match: re.Match[str]) -> str:
        name = match[1].replace("''", "'")
        return str((name if name.startswith("group:") else f"group:{name}") in known).upper()

    return _MEMBER.sub(member, _PRINCIPAL.sub(lambda _: literal(principal), sql))


def check_protection(protection: Protection, columns: Mapping[str, pl.DataType | None]) -> None:
    """Refuse a filter or mask that cannot be applied to a table.

    Parameters
    ----------
    columns
        The table's columns with their types; None where the type is not declared.

    Raises
    ------
    ValueError
        With the key, what is wrong, and what was wanted.

    Examples
    --------
    >>> mask = Protection.model_validate({"masks": {"age": "'secret'"}})
    >>> check_protection(mask, {"age": pl.Int64()})
    Traceback (most recent call last):
    ValueError: masks.age: the mask 'secret' is VARCHAR, the column BIGINT: cast it, or write NULL
    """
    known = {name.lower(): name for name in columns}
    for key, names in (("masks", protection.masks), ("tags", protection.tags)):
        if strange := [name for name in names if name.lower() not in known]:
            raise ValueError(f"{key}.{strange[0]}: the table has no such column; it has {', '.join(columns)}")
    if protection.row_filter is not None:
        type_ = _type_of(protection.row_filter.sql, columns, "row_filter")
        if type_ not in ("BOOLEAN", "NULL", '"NULL"'):
            raise ValueError(f"row_filter: wanted a condition, found {protection.row_filter.sql}, which is {type_}")
    for name, rule in protection.masks.items():
        type_, own = _type_of(rule.sql, columns, f"masks.{name}"), columns[known[name.lower()]]
        if own is None or type_ in ("NULL", '"NULL"'):
            continue
        if not _fits(type_, wanted := _duckdb_type(own)):
            raise ValueError(
                f"masks.{name}: the mask {rule.sql} is {type_}, the column {wanted}: cast it, or write NULL"
            )


def _type_of(sql: str, columns: Mapping[str, pl.DataType | None], key: str) -> str:
    """DuckDB's type of an expression over columns (raises ValueError)."""
    written = for_principal(sql, "user:nobody", ())
    with parser().cursor() as cursor:
        try:
            parse_tree(f"SELECT {written}\n AS result", cursor)  # without brackets, which it may close
            tree = parse_tree(f"SELECT ({written}\n) AS result", cursor)
            check_reads_tables_only(tree)
        except OutsideTheLake as error:
            raise ValueError(
                f"{key}: {str(error).partition('. ')[0]}: it may use the row's own columns only"
            ) from error
        except ValueError as error:
            what = str(error).removeprefix("One SELECT was wanted: ").partition(". In: ")[0]
            raise ValueError(f"{key}: {sql!r} is no SQL expression: {what}") from error
        select = tree["statements"][0]["node"]
        if len(select.get("select_list", ())) != 1 or any(node.get("class") == "SUBQUERY" for node in nodes(tree)):
            raise ValueError(f"{key}: {sql!r} is more than one expression over the row's own columns")
        if any(node.get("class") in ("WINDOW", "STAR") for node in nodes(tree)):
            raise ValueError(f"{key}: {sql!r} looks at other rows or at all columns; a row counts for itself alone")
        problem = ""
        for guess in _GUESSES if None in columns.values() else _GUESSES[:1]:
            row = ", ".join(
                f"NULL::{guess if dtype is None else _duckdb_type(dtype)} AS {quoted(name)}"
                for name, dtype in columns.items()
            )
            try:
                # In WHERE too, where aggregates are refused.
                where = f"WHERE (({written}\n) IS NULL)"
                relation = cursor.sql(f"SELECT ({written}\n) AS result FROM (SELECT {row}) AS t {where}")
                return str(relation.types[0])
            except duckdb.Error as error:
                problem = problem or str(error).splitlines()[0]
        raise ValueError(f"{key}: {sql!r} does not fit the table: {problem}; it has {', '.join(columns)}")


def _duckdb_type(dtype: pl.DataType) -> str:
    with parser().cursor() as cursor:
        frame = pl.DataFrame(schema={"value": dtype})
        cursor.register("column_of_type", frame.to_arrow())
        return str(cursor.sql("SELECT value FROM column_of_type").types[0])


def _fits(found: str, wanted: str) -> bool:
    """Whether values of a type become those of a column without loss: equal types, and smaller numbers."""
    if found == wanted:
        return True
    integers = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
    if found in integers and wanted in integers:
        return integers.index(found) <= integers.index(wanted)
    return wanted == "DOUBLE" and (found in (*integers, "FLOAT") or found.startswith("DECIMAL"))
