"""The state of streamed windows on disk: one SQLite file per raw table, in which a micro-batch is one transaction.

A transaction holds the events of a batch, how far each partition was read, and the rows that the raw table still has
to get. So after a kill at any point all of them are there or none, and the source is read again from the position that
the file names.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, position INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS landed (partition INTEGER PRIMARY KEY, position INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT, rows BLOB NOT NULL, refused BLOB NOT NULL, bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    view INTEGER NOT NULL, key BLOB NOT NULL, us INTEGER NOT NULL, sequence INTEGER NOT NULL, packed BLOB NOT NULL,
    PRIMARY KEY (view, key, us, sequence)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS keys (
    view INTEGER NOT NULL, key BLOB NOT NULL, clock INTEGER NOT NULL, changed INTEGER NOT NULL,
    refresh INTEGER, sequence INTEGER NOT NULL, PRIMARY KEY (view, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS keys_to_refresh ON keys (view, refresh) WHERE refresh IS NOT NULL;
CREATE TABLE IF NOT EXISTS waiting (
    known INTEGER NOT NULL, sequence INTEGER NOT NULL, view INTEGER NOT NULL, key BLOB NOT NULL, us INTEGER NOT NULL,
    packed BLOB NOT NULL, PRIMARY KEY (known, view, sequence)
) WITHOUT ROWID;
"""
_TABLES = ("facts", "positions", "landed", "batches", "events", "keys", "waiting")

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode


class KeyRecord(NamedTuple):
    """What is kept of an entity beside its events."""

    key: bytes
    clock: int
    changed: int
    refresh: int | None  # when its timeline has to be written again because it runs out
    sequence: int  # of the last event or refresh


class WaitingEvent(NamedTuple):
    """An event whose time has not come."""

    known: int
    sequence: int
    view: int
    key: bytes
    us: int
    packed: bytes


class Batch(NamedTuple):
    """A micro-batch that the raw table has to get."""

    number: int
    rows: bytes
    refused: bytes


class StateFile:
    """The file of one raw table; one process uses it, which holds a lock beside it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level=None)
        # WAL with FULL: a transaction is on disk when it is committed, even if the machine loses power.
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA cache_size = -65536")
        self._connection.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit all that is written inside, or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def clear(self) -> None:
        """Forget everything; inside a transaction."""
        for table in _TABLES:
            self._connection.execute(f"DELETE FROM {table}")

    def fact(self, name: str, default: Any = None) -> Any:
        """A value by name."""
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return default if row is None else decode(row[0])

    def set_fact(self, name: str, value: Any) -> None:
        """Keep a value."""
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, encode(value)))

    def positions(self) -> dict[int, int]:
        """Last position of each partition that was read."""
        return dict(self._connection.execute("SELECT partition, position FROM positions").fetchall())

    def set_positions(self, positions: Mapping[int, int]) -> None:
        """Note how far partitions were read."""
        self._connection.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", positions.items())

    def landed(self) -> dict[int, int]:
        """Last position of each partition that a commit of the raw table has named."""
        return dict(self._connection.execute("SELECT partition, position FROM landed").fetchall())

    def add_batch(self, rows: bytes, refused: bytes) -> None:
        """Keep rows for the raw table."""
        size = len(rows) + len(refused)
        self._connection.execute("INSERT INTO batches (rows, refused, bytes) VALUES (?, ?, ?)", (rows, refused, size))

    def batches(self, most_bytes: int) -> list[Batch]:
        """The oldest rows that the raw table has to get: at least one batch, about so many bytes."""
        batches: list[Batch] = []
        size = 0
        for number, rows, refused, length in self._connection.execute(
            "SELECT number, rows, refused, bytes FROM batches ORDER BY number"
        ):
            if batches and size + length > most_bytes:
                break
            batches.append(Batch(number, rows, refused))
            size += length
        return batches

    def waiting_bytes(self) -> int:
        """Bytes of the batches that the raw table has to get."""
        (size,) = self._connection.execute("SELECT coalesce(sum(bytes), 0) FROM batches").fetchone()
        return int(size)

    def drop_batches(self, number: int, landed: Mapping[int, int]) -> None:
        """Forget the batches up to one, which are in the raw table; in a transaction of its own."""
        with self.transaction():
            self._connection.execute("DELETE FROM batches WHERE number <= ?", (number,))
            self._connection.executemany("INSERT OR REPLACE INTO landed VALUES (?, ?)", landed.items())

    def add_events(self, view: int, events: Iterable[tuple[bytes, int, int, bytes]]) -> None:
        """Keep events (key, time, sequence, packed values)."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?)", ((view, *event) for event in events)
        )

    def events(self, view: int, key: bytes, after: int) -> list[tuple[int, tuple[Any, ...]]]:
        """Time and values of an entity's events later than an instant, in order."""
        rows = self._connection.execute(
            "SELECT us, packed FROM events WHERE view = ? AND key = ? AND us > ? ORDER BY us, sequence",
            (view, key, after),
        )
        return [(us, tuple(decode(packed))) for us, packed in rows]

    def set_keys(self, view: int, records: Iterable[KeyRecord]) -> None:
        """Keep what is known of entities."""
        self._connection.executemany(
            "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?)", ((view, *record) for record in records)
        )

    def key(self, view: int, key: bytes) -> KeyRecord | None:
        """What is known of an entity."""
        row = self._connection.execute(
            "SELECT key, clock, changed, refresh, sequence FROM keys WHERE view = ? AND key = ?", (view, key)
        ).fetchone()
        return None if row is None else KeyRecord(*row)

    def keys_since(self, view: int, sequence: int) -> list[bytes]:
        """Entities that changed after a sequence number."""
        rows = self._connection.execute("SELECT key FROM keys WHERE view = ? AND sequence > ?", (view, sequence))
        return [key for (key,) in rows.fetchall()]

    def keys_to_refresh(self, view: int, until: int, most: int) -> list[bytes]:
        """Entities whose timelines run out, at most so many."""
        rows = self._connection.execute(
            "SELECT key FROM keys WHERE view = ? AND refresh <= ? ORDER BY refresh LIMIT ?", (view, until, most)
        )
        return [key for (key,) in rows.fetchall()]

    def counts(self, view: int) -> tuple[int, int]:
        """Number of entities and of events that are kept of a view."""
        (keys,) = self._connection.execute("SELECT count(*) FROM keys WHERE view = ?", (view,)).fetchone()
        (events,) = self._connection.execute("SELECT count(*) FROM events WHERE view = ?", (view,)).fetchone()
        return keys, events

    def add_waiting(self, events: Iterable[WaitingEvent]) -> None:
        """Keep events whose time has not come."""
        self._connection.executemany("INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?)", events)

    def first_waiting(self) -> int | None:
        """When the time of the next waiting event comes."""
        (first,) = self._connection.execute("SELECT min(known) FROM waiting").fetchone()
        return None if first is None else int(first)

    def due(self, until: int) -> list[WaitingEvent]:
        """Waiting events whose time has come, in order."""
        rows = self._connection.execute("SELECT * FROM waiting WHERE known <= ? ORDER BY known, sequence", (until,))
        return [WaitingEvent(*row) for row in rows.fetchall()]

    def drop_due(self, until: int) -> None:
        """Forget waiting events whose time has come."""
        self._connection.execute("DELETE FROM waiting WHERE known <= ?", (until,))

    def forget_events(self, view: int, horizons: Sequence[tuple[bytes, int]]) -> None:
        """Delete an entity's events up to an instant (key, instant)."""
        self._connection.executemany(
            "DELETE FROM events WHERE view = ? AND key = ? AND us <= ?", ((view, *one) for one in horizons)
        )

    def forget_quiet(self, view: int, until: int) -> int:
        """Delete entities without an event since an instant, with their events; return how many."""
        quiet = "SELECT key FROM keys WHERE view = ? AND clock <= ? AND refresh IS NULL"
        self._connection.execute(f"DELETE FROM events WHERE view = ? AND key IN ({quiet})", (view, view, until))
        return self._connection.execute(
            "DELETE FROM keys WHERE view = ? AND clock <= ? AND refresh IS NULL", (view, until)
        ).rowcount

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
