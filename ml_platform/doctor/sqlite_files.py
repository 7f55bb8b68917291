"""Looks into SQLite files without changing anything beside them, and at which step of their schema they are."""

import importlib.util
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path


@contextmanager
def looked_into(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an existing database to read it.

    SQLite makes files beside a database in WAL mode even for readers, unless it is told that nobody writes. So that is
    said where no process has the database open; what a killed writer left in the log beside it is not seen then.

    Raises
    ------
    sqlite3.Error
        When it is none, or is cut off.
    """
    is_open = path.with_name(path.name + "-shm").exists()
    options = "mode=ro" if is_open else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{options}", uri=True)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        _check_length(path)
        yield connection


def _check_length(path: Path) -> None:
    """Refuse a file that is shorter than its header says, which SQLite may read as if rows were missing."""
    with path.open("rb") as file:
        header = file.read(100)
    page = int.from_bytes(header[16:18], "big")
    length = (65_536 if page == 1 else page) * int.from_bytes(header[28:32], "big")
    if path.stat().st_size < length:
        raise sqlite3.DatabaseError(f"it is cut off: {path.stat().st_size:,} of {length:,} bytes are there")


@dataclass(frozen=True)
class Schema:
    """The revisions of a database's schema that a library knows (Alembic's).

    Attributes
    ----------
    known
        All revisions.
    newest
        The one that the library works with.
    """

    known: frozenset[str]
    newest: str


def library_schema(package: str, folder: str) -> Schema:
    """Read the revisions that a library brings, without importing it.

    Parameters
    ----------
    package, folder
        Where its revisions are: the package, and the folder of them below it.

    Raises
    ------
    LookupError
        When they are not there, or do not lead to one newest.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"{package} is not installed")
    known, replaced = set(), set()
    for file in (Path(spec.submodule_search_locations[0]) / folder).glob("*.py"):
        text = file.read_text(encoding="utf-8")
        if revision := re.search(r"^revision\b[^=\n]*=\s*[\"'](\w+)", text, re.MULTILINE):
            known.add(revision[1])
            before = re.search(r"^down_revision\b[^=\n]*=(.*)$", text, re.MULTILINE)
            replaced |= set(re.findall(r"[\"'](\w+)[\"']", before[1])) if before else set()
    newest = known - replaced
    if len(newest) != 1:
        raise LookupError(f"{package}: wanted one newest revision of its schema in {folder}, found {len(newest)}")
    return Schema(frozenset(known), newest.pop())


def revision_of(connection: sqlite3.Connection) -> str | None:
    """Return the revision of a database's schema; None where it records none."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone() is None:
        return None
    rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    return ", ".join(sorted(row[0] for row in rows)) or None
