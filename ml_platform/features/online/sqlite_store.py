"""Online store in one SQLite file: packed rows, one statement per read, one writer and many reading processes."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.features.online import sqlite_statements as statements
from ml_platform.features.online.packing import PackedRows, PackedStore, decode, encode, unpack
from ml_platform.features.online.store import (
    Definition,
    DefinitionChanged,
    Key,
    Mark,
    Overtaken,
    PushedRow,
    Row,
    ViewSchema,
    to_instant,
    to_micros,
)

_LOCK_SECONDS = 30.0  # how long a writer waits for another
_CHUNK = 500  # keys per statement, well below SQLite's limit of variables
_MOST_KNOWN = 20_000  # rows that a thread remembers: some 20 MB of wide ones
_CACHE_KIB = 32 * 1024  # most memory for pages of the file per reading thread; only pages that were read take any
_LOOK_SECONDS = 0.5  # between two looks whether the file was removed or replaced

_decode_schema = msgspec.msgpack.Decoder(ViewSchema).decode


class SqliteOnlineStore(PackedStore):
    """`OnlineStore` in a SQLite file in WAL mode: readers never wait for the writer, nor the writer for readers.

    Connections for reading are read-only, one per thread, opened at the first read; the file need not exist yet. Each
    thread remembers the rows that it has read until anybody commits to the file, which SQLite reports in 2 µs.

    Examples
    --------
    >>> import tempfile
    >>> from datetime import datetime, timezone
    >>> import polars as pl
    >>> at = datetime(2013, 1, 1, tzinfo=timezone.utc)
    >>> frame = pl.DataFrame({"origin": ["EWR"], "event_time": [at], "temp": [39.0]})
    >>> with SqliteOnlineStore(f"{tempfile.mkdtemp()}/online.db") as store:
    ...     store.write("weather", ("origin",), frame), store.write("weather", ("origin",), frame)
    ...     [row and row.values for row in store.read([("weather", ("EWR",)), ("weather", ("JFK",))])]
    (1, 0)
    [{'temp': 39.0}, None]
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser().absolute()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._asked = self._fetched = 0  # rows; threads add to them without a lock, which may lose a count

    def push(self, view: str, view_hash: str, rows: Sequence[PushedRow]) -> int:
        """See `OnlineStore.push`; writes all rows in one transaction."""
        keys = [encode((view, *row.key)) for row in rows]
        times = [to_micros(row.event_time) for row in rows]
        with self._connection() as connection, _transaction(connection):
            last = connection.execute(statements.LAST_LAYOUT, (view,)).fetchone()
            if last is None or last[1] != view_hash:
                raise DefinitionChanged(view, view_hash, last and last[1])
            packed = (encode(row.values) for row in rows)
            connection.executemany(statements.UPSERT, zip(keys, repeat(last[0]), times, packed, strict=False))
            connection.execute(statements.NEWEST, (view, max(times)))
            connection.execute(statements.WRITTEN, (view, time.time()))
            newest: dict[bytes, int] = {}
            for start in range(0, len(keys), _CHUNK):
                chunk = keys[start : start + _CHUNK]
                newest |= dict(connection.execute(_select("key, event_time", len(chunk)), chunk).fetchall())
            (number,) = connection.execute(statements.COUNT.format("pushes"), (view,)).fetchone()
            stored = {key for key, micros in zip(keys, times, strict=True) if micros == newest[key]}
            connection.executemany("INSERT OR REPLACE INTO pushed VALUES (?, ?)", zip(stored, repeat(number)))
        return sum(micros < newest[key] for key, micros in zip(keys, times, strict=True))

    def read(self, requests: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """See `OnlineStore.read`; a key with a null finds no entity."""
        connection = self._reader()
        if connection is None:
            return [None] * len(requests)
        wanted = [None if None in key else encode((view, *key)) for view, key in requests]
        while True:
            version, known = self._known_rows(connection)
            absent = list({key for key in wanted if key is not None and key not in known})
            if not absent:
                break
            fetched = self._fetch(connection, absent)
            self._fetched += len(absent)
            one_statement = len(absent) == len(wanted) <= _CHUNK
            # All rows must be of one state of the file: after a commit in between they are read again.
            if one_statement or _data_version(connection) == version:
                known |= fetched
                break
        self._asked += len(wanted)
        return [None if key is None else known[key] for key in wanted]

    def exists(self) -> bool:
        """See `OnlineStore.exists`."""
        return self._path.exists()

    def view_hash(self, view: str) -> str | None:
        """See `OnlineStore.view_hash`."""
        row = self._one(statements.LAST_LAYOUT, view)
        return row[1] if row else None

    def definition(self, view: str) -> Definition | None:
        """See `OnlineStore.definition`."""
        row = self._one(statements.LAST_LAYOUT, view)
        if row is None:
            return None
        schema = self._one("SELECT schema FROM schemas WHERE layout = ?", row[0]) if self._has_schemas() else None
        return Definition(row[1], _decode_schema(schema[0]) if schema else None)

    def views(self) -> list[str]:
        """See `OnlineStore.views`."""
        connection = self._reader()
        if connection is None or not self._has_schemas():
            return []
        last = "SELECT view, max(layout) AS layout FROM layouts GROUP BY view"
        rows = connection.execute(f"SELECT view FROM ({last}) JOIN schemas USING (layout) ORDER BY view")
        return [view for (view,) in rows.fetchall()]

    def newest(self, view: str) -> datetime | None:
        """See `OnlineStore.newest`."""
        row = self._one("SELECT event_time FROM newest WHERE view = ?", view)
        return to_instant(row[0]) if row else None

    def written_at(self, view: str) -> datetime | None:
        """See `OnlineStore.written_at`."""
        if self._one("SELECT 1 FROM sqlite_master WHERE name = ?", "written") is None:
            return None  # written only by versions from before this table existed
        row = self._one("SELECT at FROM written WHERE view = ?", view)
        return datetime.fromtimestamp(row[0], UTC) if row else None

    def mark(self, view: str) -> Mark:
        """See `OnlineStore.mark`."""
        if self._one("SELECT 1 FROM sqlite_master WHERE name = ?", "marks") is None:
            return Mark(0, 0)
        return Mark(*(self._one("SELECT publications, pushes FROM marks WHERE view = ?", view) or (0, 0)))

    def counts(self) -> tuple[int, int]:
        """See `OnlineStore.counts`."""
        return self._asked, self._fetched

    def close(self) -> None:
        """Close the reading connections of all threads."""
        while self._readers:
            self._readers.pop().close()
        self._local = threading.local()

    def __del__(self) -> None:
        self.close()

    def _write(
        self, view: str, view_hash: str, schema: ViewSchema | None, rows: PackedRows, whole_since: Mark | None
    ) -> int:
        """Write all rows in one transaction."""
        with self._connection() as connection:
            if whole_since is not None:  # other writers need not wait while the rows are collected
                connection.execute(statements.WHOLE)
                for keys, times, packed in rows.parts(view):
                    connection.executemany(statements.ADD_TO_WHOLE, zip(keys, times, packed, strict=True))
            with _transaction(connection):
                layout = _layout(connection, view, view_hash, rows.columns)
                if schema is not None:
                    connection.execute(statements.RECORD_SCHEMA, (layout, encode(schema)))
                if whole_since is None:
                    changed = _merge(connection, view, layout, rows)
                else:
                    changed = _replace(connection, view, layout, rows, whole_since)
                connection.execute(statements.WRITTEN, (view, time.time()))
        return changed

    def _known_rows(self, connection: sqlite3.Connection) -> tuple[int, dict[bytes, Row | None]]:
        """Version of the file as this thread sees it, and the rows that the thread has read of that version."""
        version = _data_version(connection)
        local = self._local
        if local.version != version or len(local.known) > _MOST_KNOWN:
            local.version, local.known = version, {}
        return version, local.known

    def _fetch(self, connection: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, Row | None]:
        layouts: dict[int, tuple[tuple[str, ...], str]] = self._local.layouts
        rows: dict[bytes, Row | None] = dict.fromkeys(keys)
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            select = _select("key, layout, event_time, packed", len(chunk))
            for key, layout, micros, packed in connection.execute(select, chunk).fetchall():
                columns, view_hash = layouts.get(layout) or _load_layout(connection, layout, layouts)
                rows[key] = unpack(columns, view_hash, micros, packed)
        return rows

    def _has_schemas(self) -> bool:
        """Whether the file has the table of schemas, which files of earlier versions lack."""
        return self._one("SELECT 1 FROM sqlite_master WHERE name = ?", "schemas") is not None

    def _one(self, statement: str, argument: str | int) -> tuple[Any, ...] | None:
        connection = self._reader()
        row: tuple[Any, ...] | None = connection.execute(statement, (argument,)).fetchone() if connection else None
        return row

    def _reader(self) -> sqlite3.Connection | None:
        """This thread's connection; None while nothing has been written, or the file is gone."""
        local = self._local
        connection: sqlite3.Connection | None = getattr(local, "connection", None)
        if connection is not None and (now := time.monotonic()) >= local.look_again:
            local.look_again = now + _LOOK_SECONDS
            if local.file != _identity(self._path):  # removed or replaced: this connection would read the old one
                self._readers.remove(connection)
                connection.close()
                connection = local.connection = None
        if connection is None and (file := _identity(self._path)) is not None:
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'newest'").fetchone() is None:
                connection.close()  # another process is about to create the tables
                return None
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            local.connection, local.file, local.look_again = connection, file, time.monotonic() + _LOOK_SECONDS
            local.version, local.known = -1, {}
            # Columns and hash of a definition by number, which another file counts anew; threads open that one at
            # different times.
            local.layouts = {}
            self._readers.append(connection)
        return connection

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for writing."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_LOCK_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # a crash may cost the last write, never the file
            yield connection
        finally:
            connection.close()


def _load_layout(
    connection: sqlite3.Connection, layout: int, layouts: dict[int, tuple[tuple[str, ...], str]]
) -> tuple[tuple[str, ...], str]:
    """Read columns and hash of a definition, and remember them."""
    row = connection.execute("SELECT columns, hash FROM layouts WHERE layout = ?", (layout,)).fetchone()
    layouts[layout] = (tuple(decode(row[0])), row[1])
    return layouts[layout]


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at a path; None for none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in filter(str.strip, statements.SCHEMA.split(";")):
            connection.execute(statement)
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _merge(connection: sqlite3.Connection, view: str, layout: int, rows: PackedRows) -> int:
    """Store the rows that are newer than the stored ones; return how many entities changed."""
    before, newest = connection.total_changes, []
    for keys, times, packed in rows.parts(view):
        connection.executemany(statements.UPSERT, zip(keys, repeat(layout), times, packed, strict=False))
        newest.append(max(times))
    changed = connection.total_changes - before
    if newest:
        connection.execute(statements.NEWEST, (view, max(newest)))
    return changed


def _replace(connection: sqlite3.Connection, view: str, layout: int, rows: PackedRows, since: Mark) -> int:
    """Replace the view's rows by those in `whole`; return how many entities changed (raises Overtaken)."""
    (publications,) = connection.execute(statements.COUNT.format("publications"), (view,)).fetchone()
    if publications != since.publications + 1:
        raise Overtaken(view)
    low = encode((view, *repeat(None, len(rows.entity))))[: -len(rows.entity)]  # a null takes one byte
    about = {
        "view": view,
        "layout": layout,
        "pushes": since.pushes,
        "low": low,
        "high": low[:-1] + bytes([low[-1] + 1]),
    }
    changed = sum(connection.execute(sql, about).rowcount for sql in (statements.WITHDRAW, statements.REPLACE))
    for statement in (statements.NO_LONGER_PUSHED, statements.FORGET_NEWEST, statements.FIND_NEWEST):
        connection.execute(statement, about)
    return changed


@cache
def _select(columns: str, keys: int) -> str:
    """Make the statement that reads the rows of a number of keys, at most `_CHUNK`.

    The CROSS JOIN makes SQLite look up one key after the other; for `IN` it would sort them into a table first.
    """
    wanted = ", ".join(["(?)"] * keys)
    return f"WITH wanted (k) AS (VALUES {wanted}) SELECT {columns} FROM wanted CROSS JOIN entities ON key = k"


def _data_version(connection: sqlite3.Connection) -> int:
    """A number that changes whenever another connection, of any process, has committed to the file."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _layout(connection: sqlite3.Connection, view: str, view_hash: str, columns: tuple[str, ...]) -> int:
    """Return the layout of a definition; if it is new, make it and delete the rows of the view's last one."""
    packed = encode(columns)
    last = connection.execute(statements.LAST_LAYOUT, (view,)).fetchone()
    if last is not None and (last[1], last[2]) == (view_hash, packed):
        return int(last[0])
    if last is not None:  # old layouts are kept: a reader may need that of a row it has just read
        connection.execute(statements.FORGET_PUSHED, (view,))
        connection.execute("DELETE FROM entities WHERE layout IN (SELECT layout FROM layouts WHERE view = ?)", (view,))
        connection.execute("DELETE FROM newest WHERE view = ?", (view,))
    row = connection.execute("INSERT INTO layouts (view, hash, columns) VALUES (?, ?, ?)", (view, view_hash, packed))
    return int(row.lastrowid or 0)
