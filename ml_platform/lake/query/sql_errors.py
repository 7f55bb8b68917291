"""Says of an error of SQL whose query it was: of which model or view, in which file and on which line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from ml_platform.lake.errors import NotYetCreated, TableNotFound, VersionGone
from ml_platform.lake.query.sql_gate import OutsideTheLake

_EXCERPT = re.compile(r"^LINE \d+: (?:\.\.\.)?(.*?)(?:\.\.\.)?$", re.MULTILINE)
_NAME = re.compile(r'"([^"]+)"')
_TRY = "TRY_CAST(… AS …) gives NULL for a value that the type does not have"


@contextmanager
def naming_the_query(owner: str, text: str, file: Path | None = None) -> Iterator[None]:
    """Name the owner of a query, its file and line in errors of running it; their types stay.

    Parameters
    ----------
    owner
        Whose query it is, e.g. "model 'churn'".
    text
        The query.
    file
        Where it is written.

    Raises
    ------
    duckdb.Error
        Of the same class, with DuckDB's message and excerpt.
    TableNotFound, NotYetCreated, VersionGone, OutsideTheLake
        The same, for a table or version that is not there, or what is no table of the lake.

    Examples
    --------
    >>> query = "SELECT '1'::INT AS id,\\n  'b'::INT AS n"
    >>> with naming_the_query("model 'churn'", query, Path("churn/spine.sql")):
    ...     duckdb.sql(query).fetchall()
    Traceback (most recent call last):
    _duckdb.ConversionException: model 'churn': churn/spine.sql:2: Conversion Error: Could not convert string 'b' to ...
    """
    try:
        yield
    except duckdb.Error as error:
        said, blank, rest = str(error).partition("\n\n")
        line = line_of(rest or said, text)
        place = f"{file}:{line}" if file and line else str(file or (f"line {line} of the query" if line else ""))
        message = f"{owner}: {place}: {said}" if place else f"{owner}: {said}"
        if isinstance(error, duckdb.ConversionException):
            message += f"; {_TRY}"
        raise type(error)(f"{message}{blank}{rest}") from error
    except (TableNotFound, NotYetCreated, VersionGone, OutsideTheLake) as error:
        error.args = (f"{owner}: {f'{file}: ' if file else ''}{error}",)
        raise


def line_of(message: str, text: str) -> int | None:
    """Line of a query that DuckDB's message shows or whose name it quotes first; None if it cannot be told.

    DuckDB counts the lines of what it runs, which may be a query around the one that was written.

    Examples
    --------
    >>> line_of("LINE 5:   s::int AS n\\n           ^", "SELECT\\n  s::int AS n\\nFROM t")
    2
    """
    shown = _EXCERPT.search(message) or _NAME.search(message)
    lines = [number for number, line in enumerate(text.splitlines(), 1) if shown and shown[1].strip() in line]
    return lines[0] if len(lines) == 1 else None
