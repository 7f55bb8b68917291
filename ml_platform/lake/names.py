"""Which names tables and the lake's folder may have, and how names and texts are quoted in SQL."""

import re

_TABLE = re.compile(r"[a-z0-9_][\w.-]*(/[a-z0-9_][\w.-]*)+", re.ASCII | re.IGNORECASE)
# Characters that Delta, Polars or DuckDB read as escapes or partitions, or do not accept in a path.
_UNREADABLE = re.compile(r"[%=\[\]\\^|\x00-\x1f\x7f]")


def is_table(name: str) -> bool:
    """Whether a table can have this name: `schema/name`, in characters that every reader accepts."""
    return _TABLE.fullmatch(name) is not None


def check_table(name: str) -> None:
    """Refuse an invalid name of a table, such as a path out of the lake.

    Raises
    ------
    ValueError
        If the name is invalid.

    Examples
    --------
    >>> check_table("raw/flights")
    >>> check_table("../x")
    Traceback (most recent call last):
    ValueError: A table is named schema/name, like raw/flights, in letters a to z, digits, _, - and .; found '../x'.
    """
    if not is_table(name):
        raise ValueError(
            f"A table is named schema/name, like raw/flights, in letters a to z, digits, _, - and .; found '{name}'."
        )


def check_folder(path: str) -> None:
    """Refuse a local folder whose tables could be written but not read back.

    Raises
    ------
    ValueError
        If its path has a character that some reader does not accept.
    """
    if bad := _UNREADABLE.search(path):
        raise ValueError(
            f"The lake's folder {path} has {bad[0]!r} in its path, and its tables could not be read back: choose "
            "another by ML_PLATFORM_LAKE_URI, or by ML_PLATFORM_HOME for all of the project's state."
        )


def is_selector(name: str) -> bool:
    """Whether Polars takes a column's name for several columns: all, or those that match a regular expression.

    Examples
    --------
    >>> is_selector("*"), is_selector("^a.*$"), is_selector("a*"), is_selector("^")
    (True, True, False, False)
    """
    return name == "*" or (len(name) > 1 and name.startswith("^") and name.endswith("$"))


def quoted(name: str) -> str:
    """Write an identifier in SQL.

    Examples
    --------
    >>> print(quoted('a "b"'))
    "a ""b\"""
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Write a text in SQL.

    Examples
    --------
    >>> print(literal("O'Hare"))
    'O''Hare'
    """
    return "'" + text.replace("'", "''") + "'"


def sql_name(table: str) -> tuple[str, str]:
    """Schema and name of a table in SQL, quoted.

    Examples
    --------
    >>> sql_name("quarantine/raw/flights")
    ('"quarantine"', '"raw/flights"')
    """
    schema, _, name = table.partition("/")
    return quoted(schema), quoted(name)
