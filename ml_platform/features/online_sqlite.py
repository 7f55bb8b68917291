"""Online store in one SQLite file: packed rows, one statement per read, a writer beside many reading processes."""

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from ml_platform.features.online import (
    Definition,
    DefinitionChanged,
    Key,
    PushedRow,
    Row,
    ViewSchema,
    check_rows,
)

if TYPE_CHECKING:
    import polars as pl

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOCK_SECONDS = 30.0  # how long a writer waits for another
_CHUNK = 500  # keys per statement, well below SQLite's limit of variables
_MOST_KNOWN = 20_000  # rows that a thread remembers: some 20 MB of wide ones
_WRITE_CHUNK = 50_000  # rows turned into Python values at a time

# A layout is one definition of a view: what its packed values mean. A new one is made whenever the definition written
# differs from the view's last, and the same transaction deletes the rows of that one.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS layouts (
    layout INTEGER PRIMARY KEY AUTOINCREMENT, view TEXT NOT NULL, hash TEXT NOT NULL, columns BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS entities (
    key BLOB PRIMARY KEY, layout INTEGER NOT NULL, event_time INTEGER NOT NULL, packed BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS schemas (layout INTEGER PRIMARY KEY, schema BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS newest (view TEXT PRIMARY KEY, event_time INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS written (view TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
"""
_UPSERT = """
INSERT INTO entities VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO UPDATE SET event_time = excluded.event_time, packed = excluded.packed
WHERE excluded.event_time > event_time OR (excluded.event_time = event_time AND excluded.packed <> packed)
"""
_NEWEST = """
INSERT INTO newest SELECT ?, ? WHERE true
ON CONFLICT (view) DO UPDATE SET event_time = max(event_time, excluded.event_time)
"""

_WRITTEN = "INSERT OR REPLACE INTO written VALUES (?, ?)"
_RECORD_SCHEMA = """
INSERT INTO schemas VALUES (?, ?) ON CONFLICT (layout) DO UPDATE SET schema = excluded.schema
WHERE schema <> excluded.schema
"""
_LAST_LAYOUT = "SELECT layout, hash, columns FROM layouts WHERE view = ? ORDER BY layout DESC LIMIT 1"

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_decode_schema = msgspec.msgpack.Decoder(ViewSchema).decode
_MICROSECOND = timedelta(microseconds=1)


class SqliteOnlineStore:
    """`OnlineStore` in a SQLite file in WAL mode: readers never wait for the writer, nor it for them.

    Connections for reading are read-only, one per thread, opened at the first read; the file need not exist yet. Each
    remembers the rows that it has read until anybody commits to the file, which SQLite tells in 2 µs.

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
        self._layouts: dict[int, tuple[str, ...]] = {}
        self._asked = self._fetched = 0  # rows; threads add to them without a lock, which may lose a count

    def write(
        self,
        view: str,
        entity: tuple[str, ...],
        frame: "pl.DataFrame",
        event_time: str = "event_time",
        *,
        view_hash: str = "",
        schema: ViewSchema | None = None,
    ) -> int:
        """See `OnlineStore.write`; all rows in one transaction.

        Raises
        ------
        ValueError
            If a row has no key or no event time.
        """
        check_rows(view, entity, frame, event_time)
        columns = tuple(name for name in frame.columns if name not in {*entity, event_time})
        times = frame.get_column(event_time).dt.epoch("us")
        with self._transaction() as connection:
            layout = _layout(connection, view, view_hash, columns)
            if schema is not None:
                connection.execute(_RECORD_SCHEMA, (layout, _encode(schema)))
            before = connection.total_changes
            for start in range(0, frame.height, _WRITE_CHUNK):
                part = frame.slice(start, _WRITE_CHUNK)
                keys = (_encode((view, *key)) for key in part.select(entity).iter_rows())
                packed = (
                    map(_encode, part.select(columns).iter_rows())
                    if columns
                    else (_encode(()) for _ in range(part.height))
                )
                stamps = times.slice(start, _WRITE_CHUNK).to_list()
                connection.executemany(_UPSERT, zip(keys, (layout for _ in stamps), stamps, packed, strict=True))
            changed = connection.total_changes - before
            if frame.height:
                connection.execute(_NEWEST, (view, times.max()))
            connection.execute(_WRITTEN, (view, time.time()))
        return changed

    def push(self, view: str, view_hash: str, rows: Sequence[PushedRow]) -> int:
        """See `OnlineStore.push`; all rows in one transaction."""
        keys = [_encode((view, *row.key)) for row in rows]
        times = [(row.event_time - _EPOCH) // _MICROSECOND for row in rows]
        with self._transaction() as connection:
            last = connection.execute(_LAST_LAYOUT, (view,)).fetchone()
            if last is None or last[1] != view_hash:
                raise DefinitionChanged(view, view_hash, last and last[1])
            packed = (_encode(row.values) for row in rows)
            connection.executemany(_UPSERT, zip(keys, (last[0] for _ in rows), times, packed, strict=True))
            connection.execute(_NEWEST, (view, max(times)))
            connection.execute(_WRITTEN, (view, time.time()))
            held: dict[bytes, int] = {}
            for start in range(0, len(keys), _CHUNK):
                held |= dict(_select(connection, "key, event_time", keys[start : start + _CHUNK]))
        return sum(micros < held[key] for key, micros in zip(keys, times, strict=True))

    def read(self, requests: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """See `OnlineStore.read`; a key with a null names no entity."""
        connection = self._reader()
        if connection is None:
            return [None] * len(requests)
        wanted = [None if None in key else _encode((view, *key)) for view, key in requests]
        while True:
            version, known = self._known_rows(connection)
            absent = list({key for key in wanted if key is not None and key not in known})
            if not absent:
                break
            fetched: dict[bytes, Row | None] = dict.fromkeys(absent)
            for start in range(0, len(absent), _CHUNK):
                fetched |= self._fetch(connection, absent[start : start + _CHUNK])
            self._fetched += len(absent)
            if _data_version(connection) == version:  # else a commit came between: all rows are of one state, or none
                known |= fetched
                break
        self._asked += len(wanted)
        return [None if key is None else known[key] for key in wanted]

    def view_hash(self, view: str) -> str | None:
        """See `OnlineStore.view_hash`."""
        row = self._one(_LAST_LAYOUT, view)
        return row[1] if row else None

    def definition(self, view: str) -> Definition | None:
        """See `OnlineStore.definition`."""
        row = self._one(_LAST_LAYOUT, view)
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
        return _EPOCH + timedelta(microseconds=row[0]) if row else None

    def written_at(self, view: str) -> datetime | None:
        """See `OnlineStore.written_at`."""
        if self._one("SELECT 1 FROM sqlite_master WHERE name = ?", "written") is None:
            return None  # the file is older than this note, and has not been written since
        row = self._one("SELECT at FROM written WHERE view = ?", view)
        return datetime.fromtimestamp(row[0], UTC) if row else None

    def counts(self) -> tuple[int, int]:
        """See `OnlineStore.counts`."""
        return self._asked, self._fetched

    def close(self) -> None:
        """Close the reading connections of all threads."""
        while self._readers:
            self._readers.pop().close()
        self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _known_rows(self, connection: sqlite3.Connection) -> tuple[int, dict[bytes, Row | None]]:
        """State of the file that this thread sees, and the rows that it has read in that state."""
        version = _data_version(connection)
        local = self._local
        if local.version != version or len(local.known) > _MOST_KNOWN:
            local.version, local.known = version, {}
        return version, local.known

    def _fetch(self, connection: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, Row]:
        layouts, found = self._layouts, {}
        for key, layout, event_time, packed in _select(connection, "key, layout, event_time, packed", keys):
            columns = layouts.get(layout) or self._load_layout(connection, layout)
            found[key] = Row(
                _EPOCH + timedelta(microseconds=event_time), dict(zip(columns, _decode(packed), strict=True))
            )
        return found

    def _load_layout(self, connection: sqlite3.Connection, layout: int) -> tuple[str, ...]:
        (columns,) = connection.execute("SELECT columns FROM layouts WHERE layout = ?", (layout,)).fetchone()
        self._layouts[layout] = tuple(_decode(columns))
        return self._layouts[layout]

    def _has_schemas(self) -> bool:
        """Whether the file is not of before schemas were recorded."""
        return self._one("SELECT 1 FROM sqlite_master WHERE name = ?", "schemas") is not None

    def _one(self, statement: str, argument: str | int) -> tuple[Any, ...] | None:
        connection = self._reader()
        row: tuple[Any, ...] | None = connection.execute(statement, (argument,)).fetchone() if connection else None
        return row

    def _reader(self) -> sqlite3.Connection | None:
        """This thread's connection; None while nothing has been written."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None and self._path.exists():
            connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'newest'").fetchone() is None:
                connection.close()  # another process is about to create the tables
                return None
            self._local.connection = connection
            self._local.version, self._local.known = -1, {}
            self._readers.append(connection)
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_LOCK_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # a crash may cost the last write, never the file
            connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    connection.execute(statement)
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            connection.close()


def _select(connection: sqlite3.Connection, columns: str, keys: list[bytes]) -> list[tuple[Any, ...]]:
    """Columns of the rows that there are of some keys, at most `_CHUNK`."""
    marks = ",".join("?" * len(keys))
    return connection.execute(f"SELECT {columns} FROM entities WHERE key IN ({marks})", keys).fetchall()


def _data_version(connection: sqlite3.Connection) -> int:
    """A number that changes whenever another connection, of any process, has committed to the file."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _layout(connection: sqlite3.Connection, view: str, view_hash: str, columns: tuple[str, ...]) -> int:
    """Number of the definition; when this write brings it into force, nothing of the one before is left."""
    packed = _encode(columns)
    last = connection.execute(_LAST_LAYOUT, (view,)).fetchone()
    if last is not None and (last[1], last[2]) == (view_hash, packed):
        return int(last[0])
    if last is not None:  # layouts themselves stay: a reader may be about to look up that of a row it has just read
        connection.execute("DELETE FROM entities WHERE layout IN (SELECT layout FROM layouts WHERE view = ?)", (view,))
        connection.execute("DELETE FROM newest WHERE view = ?", (view,))
    row = connection.execute("INSERT INTO layouts (view, hash, columns) VALUES (?, ?, ?)", (view, view_hash, packed))
    return int(row.lastrowid or 0)
