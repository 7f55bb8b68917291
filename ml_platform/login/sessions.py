"""Sessions, attempts to sign in and sign-ins under way: one small SQLite database, of digests and never of secrets."""

import hashlib
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    digest TEXT PRIMARY KEY, name TEXT NOT NULL, source TEXT NOT NULL, stamp TEXT NOT NULL, groups TEXT NOT NULL,
    created REAL NOT NULL, seen REAL NOT NULL, ends REAL NOT NULL, address TEXT NOT NULL, browser TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS attempts (what TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS attempts_by_what ON attempts (what, at);
CREATE TABLE IF NOT EXISTS pending (state TEXT PRIMARY KEY, content TEXT NOT NULL, ends REAL NOT NULL);
"""
_SEEN_SECONDS = 60.0  # between two notes of when a session was last used
_MOST_PENDING = 10_000
WINDOW_SECONDS = 900.0
# Failed attempts within the window: of one name from one address, from one address, of one name from anywhere.
MOST = {"name and address": 10, "address": 50, "name": 100}


class SessionsDamaged(OSError):
    """A file of sessions that cannot be read or written."""


@dataclass(frozen=True)
class Session:
    """A person's sign-in on one browser; times in seconds since 1970.

    Attributes
    ----------
    digest
        Of the random id that the browser keeps: what names the session here.
    source
        `account`, or `oidc` for an identity provider.
    stamp
        Of the account when the session began.
    ends
        When it ends at the latest.
    """

    digest: str
    name: str
    source: str
    stamp: str
    groups: tuple[str, ...]
    created: float
    seen: float
    ends: float
    address: str
    browser: str


class SessionStore:
    """Sessions below a folder, shared by the gateway's processes and the command line.

    Parameters
    ----------
    folder
        The platform's `login_dir`.
    idle_seconds
        After which a session that is not used ends.
    lasting_seconds
        After which a session ends in any case.

    Examples
    --------
    >>> import tempfile
    >>> store = SessionStore(Path(tempfile.mkdtemp()), idle_seconds=600, lasting_seconds=3600)
    >>> secret = store.begin("ada", source="account", stamp="1", address="127.0.0.1")
    >>> store.find(secret).name, store.find(secret + "x"), store.end(store.find(secret).digest), store.find(secret)
    ('ada', None, 1, None)
    """

    def __init__(self, folder: Path, *, idle_seconds: float, lasting_seconds: float) -> None:
        self.path = folder / "sessions.db"
        self._idle, self._lasting = idle_seconds, lasting_seconds
        self._local = threading.local()

    def begin(
        self, name: str, *, source: str, stamp: str, address: str, browser: str = "", groups: tuple[str, ...] = ()
    ) -> str:
        """Begin a session, and give the secret that the browser keeps; no session ever continues an earlier one."""
        secret = secrets.token_urlsafe(32)
        now = time.time()
        with self._connection() as connection:
            connection.execute("DELETE FROM sessions WHERE ends <= ? OR seen <= ?", (now, now - self._idle))
            connection.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    _digest(secret), name, source, stamp, json.dumps(groups), now, now, now + self._lasting, address,
                    browser[:200],
                ),
            )  # fmt: skip
        return secret

    def find(self, secret: str) -> Session | None:
        """The session of a secret, unless it has ended."""
        now, digest = time.time(), _digest(secret)
        with self._connection() as connection:
            row = connection.execute(
                "SELECT * FROM sessions WHERE digest = ? AND ends > ? AND seen > ?", (digest, now, now - self._idle)
            ).fetchone()
            if row is None:
                return None
            session = _session(row)
            if now - session.seen > min(_SEEN_SECONDS, self._idle / 10):
                connection.execute("UPDATE sessions SET seen = ? WHERE digest = ?", (now, digest))
        return session

    def sessions(self, name: str | None = None) -> list[Session]:
        """Sessions that have not ended, the newest last: of a person, or all."""
        now = time.time()
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT * FROM sessions WHERE ends > ? AND seen > ? AND name = ifnull(?, name) ORDER BY created",
                (now, now - self._idle, name),
            ).fetchall()
        return [_session(row) for row in rows]

    def end(self, digest: str) -> int:
        """End the sessions whose digests begin so, at once; return how many."""
        with self._connection() as connection:
            return connection.execute(
                "DELETE FROM sessions WHERE substr(digest, 1, ?) = ?", (len(digest), digest)
            ).rowcount

    def end_all(self, name: str) -> int:
        """End all sessions of a person; return how many."""
        with self._connection() as connection:
            return connection.execute("DELETE FROM sessions WHERE name = ?", (name,)).rowcount

    def try_attempt(self, name: str, address: str) -> float:
        """Count an attempt to sign in before its password is looked at; return seconds to wait when it is one too many.

        Attempts that succeed are taken back by `succeeded`. Counting comes first so that many at once are counted.
        """
        now = time.time()
        keys = _attempt_keys(name, address)
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM attempts WHERE at <= ?", (now - WINDOW_SECONDS,))
            waits = []
            for kind, key in keys.items():
                times = [
                    at for (at,) in connection.execute("SELECT at FROM attempts WHERE what = ? ORDER BY at", (key,))
                ]
                if len(times) >= MOST[kind]:
                    waits.append(times[-MOST[kind]] + WINDOW_SECONDS - now)
            if not waits:
                connection.executemany("INSERT INTO attempts VALUES (?, ?)", [(key, now) for key in keys.values()])
        return max(1.0, *waits, 1.0) if waits else 0.0

    def succeeded(self, name: str, address: str) -> None:
        """Forget a person's failed attempts from an address, and the one that succeeded."""
        keys = _attempt_keys(name, address)
        with self._connection() as connection:
            connection.execute("DELETE FROM attempts WHERE what = ?", (keys["name and address"],))
            for kind in ("address", "name"):
                connection.execute(
                    "DELETE FROM attempts WHERE rowid = "
                    "(SELECT rowid FROM attempts WHERE what = ? ORDER BY at DESC LIMIT 1)",
                    (keys[kind],),
                )

    def put_pending(self, state: str, content: dict[str, str], seconds: float) -> None:
        """Keep what a sign-in at the identity provider has to come back with."""
        now = time.time()
        with self._connection() as connection:
            connection.execute("DELETE FROM pending WHERE ends <= ?", (now,))
            connection.execute(
                "DELETE FROM pending WHERE state IN (SELECT state FROM pending ORDER BY ends DESC LIMIT -1 OFFSET ?)",
                (_MOST_PENDING,),
            )
            connection.execute(
                "INSERT INTO pending VALUES (?, ?, ?)", (_digest(state), json.dumps(content), now + seconds)
            )

    def take_pending(self, state: str) -> dict[str, str] | None:
        """What was kept under a state, once; None when there is nothing, or no longer."""
        with self._connection() as connection:
            row = connection.execute(
                "DELETE FROM pending WHERE state = ? RETURNING content, ends", (_digest(state),)
            ).fetchone()
        return json.loads(row[0]) if row is not None and row[1] > time.time() else None

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection; each statement by itself is a transaction, or what follows BEGIN is."""
        try:
            yield from self._transaction()
        except sqlite3.Error as error:
            self.close()  # so that a file put in its place is opened
            advice = f"if it is damaged, remove it with {self.path.name}-wal and -shm: people then sign in again"
            raise SessionsDamaged(f"{self.path}: {error}; {advice}") from error

    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
            self._local.connection = connection  # first, so that it is closed when it turns out to be of no use
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(_SCHEMA)
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise
        if connection.in_transaction:
            connection.commit()

    def check(self) -> None:
        """Read the whole file, where there is one (raises SessionsDamaged)."""
        if not self.path.exists():
            return
        with self._connection() as connection:
            [(verdict,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        self.close()

    def close(self) -> None:
        """Close this thread's connection."""
        connection, self._local.connection = getattr(self._local, "connection", None), None
        if connection is not None:
            connection.close()


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _attempt_keys(name: str, address: str) -> dict[str, str]:
    who, where = _digest(name.lower()[:200])[:32], _network(address)
    return {"name and address": f"{who}@{where}", "address": f"@{where}", "name": f"{who}@"}


def _network(address: str) -> str:
    """The network of an address that one person has: of IPv6 the first 64 bits."""
    import ipaddress

    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)


def _session(row: tuple[Any, ...]) -> Session:
    digest, name, source, stamp, groups, *rest = row
    return Session(digest, name, source, stamp, tuple(json.loads(groups)), *rest)
