"""Removes entities from an online store, from all views, definitions and timelines, whoever writes meanwhile."""

import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ml_platform.features.online.packing import decode
from ml_platform.features.online.redis_keys import PREFIX, chunks, count_key, pushed_key
from ml_platform.sqlite_uri import sqlite_file

_LOCK_SECONDS = 60.0
_AT_ONCE = 5000
_ROW, _VIEW = PREFIX + b"row:", PREFIX + b"view:"


class OnlineErasure:
    """What an online store has of entities, and its removal.

    Parameters
    ----------
    uri
        Address of the store.
    positions
        View → positions of the entity among its entity columns.
    values
        Values of the entity, as the store packs them.
    """

    def __init__(self, uri: str, positions: Mapping[str, Collection[int]], values: Collection[Any]) -> None:
        self._uri, self._positions, self._values = uri, positions, frozenset(values)
        self._is_file = uri.startswith("sqlite:")

    def erase(self) -> tuple[int, int]:
        """Remove the rows; return how many were searched, and removed.

        Raises
        ------
        sqlite3.Error, redis.RedisError
            If the store cannot be reached or refuses; it can be run again.
        """
        return self._erase_file() if self._is_file else self._erase_redis()

    def search(self) -> int:
        """How many rows there are."""
        if not self._is_file:
            import redis

            with closing(redis.Redis.from_url(self._uri)) as client:
                return sum(1 for _ in self._redis_keys(client))
        path = Path(sqlite_file(self._uri))
        if not path.exists():
            return 0
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_LOCK_SECONDS)) as connection:
            return len(self._file_keys(connection)[1])

    def files(self) -> list[Path]:
        """Files of an embedded store, where a removed row may leave its bytes."""
        if not self._is_file:
            return []
        path = Path(sqlite_file(self._uri))
        return [file for end in ("", "-wal") if (file := path.with_name(path.name + end)).exists()]

    def _erase_file(self) -> tuple[int, int]:
        path = Path(sqlite_file(self._uri))
        if not path.exists():
            return 0, 0
        with closing(sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete = ON")  # else the bytes stay in pages that are free
            searched, keys = self._file_keys(connection)
            if keys:
                connection.execute("BEGIN IMMEDIATE")
                for table in ("entities", "pushed"):
                    connection.executemany(f"DELETE FROM {table} WHERE key = ?", [(key,) for key in keys])
                connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return searched, len(keys)

    def _file_keys(self, connection: sqlite3.Connection) -> tuple[int, list[bytes]]:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'entities'").fetchone() is None:
            return 0, []
        searched, keys = 0, []
        for (key,) in connection.execute("SELECT key FROM entities UNION SELECT key FROM pushed"):
            searched += 1
            view, *entity = decode(key)
            if self._is_one(view, entity):
                keys.append(key)
        return searched, keys

    def _is_one(self, view: str, entity: list[Any]) -> bool:
        return any(
            place < len(entity) and entity[place] in self._values
            for place in self._positions.get(view.partition("@")[0], ())
        )

    def _erase_redis(self) -> tuple[int, int]:
        import redis

        with closing(redis.Redis.from_url(self._uri)) as client:
            searched, removed = sum(1 for _ in client.scan_iter(match=_ROW + b"*", count=_AT_ONCE)), 0
            for part in chunks(self._redis_keys(client), _AT_ONCE):
                for key in part:
                    generation = int(key.removeprefix(_ROW).partition(b":")[0])
                    gone: Any = client.unlink(key)
                    client.hdel(pushed_key(generation), key)
                    if gone and client.exists(count_key(generation)):
                        client.decrby(count_key(generation), 1)
                    removed += int(gone)
            return searched, removed

    def _redis_keys(self, client: Any) -> Iterator[bytes]:
        """Keys of the entities' rows, of every definition that the store still has."""
        views = {
            decode(client.get(name))[0]: name.removeprefix(_VIEW).decode()
            for name in client.scan_iter(match=_VIEW + b"*")
        }
        for key in client.scan_iter(match=_ROW + b"*", count=_AT_ONCE):
            generation, _, packed = key.removeprefix(_ROW).partition(b":")
            entity, view = decode(packed), views.get(int(generation))
            # A definition that is not in force belongs to no view any more, and nothing reads its rows.
            if self._is_one(view, entity) if view is not None else self._values.intersection(entity):
                yield key
