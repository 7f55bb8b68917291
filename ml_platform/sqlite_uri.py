"""Addresses of SQLite databases, `sqlite:///<path>?<options>`, read and written as SQLAlchemy does."""

import re
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_SCHEME = re.compile(r"sqlite(\+\w+)?:")
_WANTED = "wanted sqlite:///<path of a file>"


def sqlite_uri(file: Path) -> str:
    """Return the address of a database file.

    Examples
    --------
    >>> sqlite_uri(Path("/srv/ml platform/mlflow.db")), sqlite_uri(Path("/srv/100%/why?/mlflow.db"))
    ('sqlite:////srv/ml platform/mlflow.db', 'sqlite:////srv/100%25/why%3F/mlflow.db')
    """
    return f"sqlite:///{file}".replace("%", "%25").replace("?", "%3F")


def is_sqlite(uri: str) -> bool:
    """Whether an address is that of a SQLite database, through whichever driver."""
    return _SCHEME.match(uri) is not None


def sqlite_file(uri: str) -> Path:
    """Return the file that an address names; options behind it (`?timeout=60`) are no part of it.

    Raises
    ------
    ValueError
        When it is no address of SQLite, or names no file, such as a database in memory.

    Examples
    --------
    >>> sqlite_file("sqlite:///mlflow.db?timeout=60"), sqlite_file("sqlite+pysqlite:////srv/100%25/mlflow.db")
    (PosixPath('mlflow.db'), PosixPath('/srv/100%/mlflow.db'))
    >>> sqlite_file("sqlite:///file:/srv/mlflow.db?mode=rwc&uri=true")
    PosixPath('/srv/mlflow.db')
    """
    address, _, options = uri.partition("?")
    scheme, separator, path = address.partition(":///")
    path = unquote(path)
    if not is_sqlite(uri) or not separator:
        raise ValueError(f"{scheme.partition(':')[0]}:…: {_WANTED}")
    if path.startswith("file:") and "uri" in parse_qs(options):  # SQLite's own kind of address inside
        path = urlsplit(path).path
    if not path or path == ":memory:":
        raise ValueError(f"{uri}: {_WANTED}, found none")
    return Path(path)
