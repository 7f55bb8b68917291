"""Online store in Redis: one MGET per read, and writes that compare event times inside the server."""

import struct
import threading
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ml_platform.features.online import redis_scripts as scripts
from ml_platform.features.online.packing import PackedRows, PackedStore, encode, unpack
from ml_platform.features.online.redis_keys import (
    PREFIX,
    chunks,
    count_key,
    marks_key,
    newest_key,
    pushed_key,
    row_key,
    view_key,
    written_key,
)
from ml_platform.features.online.redis_whole_views import Publisher, WholeViews
from ml_platform.features.online.store import (
    Definition,
    DefinitionChanged,
    Key,
    Mark,
    PushedRow,
    Row,
    ViewSchema,
    to_instant,
    to_micros,
)

_TIMEOUT = 5.0  # seconds to connect, and to wait for one answer
_READ_TIMEOUT = 1.0  # seconds, since a request waits for it; `?socket_timeout=` in the URI overrides it
_RECONNECT = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))  # after an idle connection was cut
_CHUNK = 2000  # rows merged by one call: Lua's `unpack` is limited to some 8,000 values
_SCAN = 5000  # keys scanned by one step of tidying
_ABANDONED = 3600  # seconds after which a generation not in force is taken to be left by a killed writer
_TRIES = 5
_VIEWS = PREFIX + b"views"  # names of the views whose schema is recorded
_STALE = PREFIX + b"stale"  # generations not in force: when their writing began, 0 for those replaced
_HALF = 1 << 63  # added to a time, so that its bytes sort like the time, even before 1970

_time = struct.Struct(">Q")


class _View(msgspec.Struct, frozen=True, array_like=True):
    """A view's definition in force, as stored under `view:<name>`."""

    generation: int
    hash: str
    columns: tuple[str, ...]
    schema: ViewSchema | None = None


class _Known(NamedTuple):
    """A view's definition in force, as this process last read it."""

    packed: bytes
    columns: tuple[str, ...]
    view_hash: str
    prefix: bytes  # of the rows' keys


_decode_view = msgspec.msgpack.Decoder(_View).decode


class RedisOnlineStore(PackedStore):
    """`OnlineStore` in a Redis server (`redis://`, `rediss://` with TLS, `unix://`), for workers on several machines.

    Rows of the definition in force become visible chunk by chunk. A new definition becomes visible at once, after all
    of its rows were written; then the rows of the old one are deleted. Each thread reads over its own connection, which
    takes a quarter less time than a pool; open a store after a fork, not before.

    Parameters
    ----------
    uri
        As `redis.Redis.from_url` takes it: `redis://[user:password@]host:port/database`.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = self._open()
        self._merge = self._client.register_script(scripts.MERGE)
        self._switch = self._client.register_script(scripts.SWITCH)
        self._whole = WholeViews(self._client)
        self._asked = 0  # rows
        self._views: dict[str, _Known] = {}
        self._local = threading.local()
        self._readers: list[redis.Redis] = []

    def push(self, view: str, view_hash: str, rows: Sequence[PushedRow]) -> int:
        """See `OnlineStore.push`; a large push becomes visible in chunks, and a failed one may be sent again.

        Raises
        ------
        DefinitionChanged
            See `OnlineStore.push`.
        redis.RedisError
            If the server cannot be reached or refuses the write; it may then hold a part of the rows.
        """
        packed = [(encode(row.key), to_micros(row.event_time), encode(row.values)) for row in rows]
        newest = _newest(packed)
        number: Any = self._client.hincrby(marks_key(view), "pushes", 1)
        for _ in range(_TRIES):
            record: Any = self._client.get(view_key(view))
            current = None if record is None else _decode_view(record)
            if current is None or current.hash != view_hash:
                raise DefinitionChanged(view, view_hash, None if current is None else current.hash)
            if self._put(view, current.generation, record, newest.items(), push=number) is not None:
                self._client.set(written_key(view), repr(time.time()))
                packed_rows: Any = self._client.mget([row_key(current.generation, key) for key in newest])
                newest_times = {
                    key: value[:8] for key, value in zip(newest, packed_rows, strict=True) if value is not None
                }
                return sum(key in newest_times and _stamp(micros) < newest_times[key] for key, micros, _ in packed)
        raise RuntimeError(f"online view '{view}': its record changed {_TRIES} times during one push; push again")

    def read(self, requests: Sequence[tuple[str, Key]]) -> list[Row | None]:
        """See `OnlineStore.read`; a key with a null finds no entity.

        The definitions are read together with the rows. When one has changed since the last read, the rows are read
        again with the new one.
        """
        if not requests:
            return []
        views = list(dict.fromkeys([view for view, _ in requests]))
        for _ in range(_TRIES):
            known = self._views.copy()  # other threads may change it meanwhile
            wanted = [view_key(view) for view in views]
            places: list[int | None] = []
            for view, key in requests:
                if view not in known or None in key:
                    places.append(None)
                else:
                    places.append(len(wanted))
                    wanted.append(known[view].prefix + encode(key))
            replies: list[bytes | None] = self._reader().execute_command("MGET", *wanted)
            if not self._changed(views, replies, known):
                self._asked += len(requests)
                return [
                    _row(known[view], replies[place]) if place is not None else None
                    for (view, _), place in zip(requests, places, strict=True)
                ]
        raise RuntimeError(f"online views {views}: their definitions changed {_TRIES} times during one read; try again")

    def view_hash(self, view: str) -> str | None:
        """See `OnlineStore.view_hash`."""
        packed: Any = self._client.get(view_key(view))
        return None if packed is None else _decode_view(packed).hash

    def definition(self, view: str) -> Definition | None:
        """See `OnlineStore.definition`."""
        packed: Any = self._client.get(view_key(view))
        if packed is None:
            return None
        view_record = _decode_view(packed)
        return Definition(view_record.hash, view_record.schema)

    def exists(self) -> bool:
        """See `OnlineStore.exists`; a server that cannot be reached raises an error where it is asked."""
        return True

    def views(self) -> list[str]:
        """See `OnlineStore.views`."""
        names: Any = self._client.smembers(_VIEWS)
        return sorted(name.decode() for name in names)

    def newest(self, view: str) -> datetime | None:
        """See `OnlineStore.newest`."""
        packed: Any = self._client.get(view_key(view))
        last: Any = None if packed is None else self._client.get(newest_key(_decode_view(packed).generation))
        return None if last is None else to_instant(_micros(last))

    def written_at(self, view: str) -> datetime | None:
        """See `OnlineStore.written_at`."""
        at: Any = self._client.get(written_key(view))
        return None if at is None else datetime.fromtimestamp(float(at), UTC)

    def mark(self, view: str) -> Mark:
        """See `OnlineStore.mark`."""
        return self._whole.mark(view)

    def counts(self) -> tuple[int, int]:
        """See `OnlineStore.counts`; every row is fetched."""
        return self._asked, self._asked

    def close(self) -> None:
        """Close all connections; the next use opens new ones."""
        while self._readers:
            self._readers.pop().close()
        self._local = threading.local()
        self._client.close()

    def _open(self, timeout: float = _TIMEOUT, **options: Any) -> redis.Redis:
        return redis.Redis.from_url(self._uri, socket_timeout=timeout, socket_connect_timeout=timeout, **options)

    def _reader(self) -> redis.Redis:
        """This thread's client for reading."""
        client: redis.Redis | None = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._open(_READ_TIMEOUT, single_connection_client=True, retry=_RECONNECT)
            self._readers.append(client)
        return client

    def _write(
        self, view: str, view_hash: str, schema: ViewSchema | None, rows: PackedRows, whole_since: Mark | None
    ) -> int:
        newest = _newest(row for part in rows.parts() for row in zip(*part, strict=True))
        wanted = _View(0, view_hash, rows.columns, schema)
        if whole_since is None:
            changed = self._write_any(view, wanted, newest, None)
        else:
            with self._whole.publisher(view, whole_since) as publisher:
                changed = self._write_any(view, wanted, newest, publisher)
        self._client.set(written_key(view), repr(time.time()))
        if schema is not None:
            self._client.sadd(_VIEWS, view)
        self._tidy()
        return changed

    def _write_any(self, view: str, wanted: _View, rows: dict[bytes, bytes], publisher: Publisher | None) -> int:
        for _ in range(_TRIES):
            changed = self._write_once(view, wanted, rows, publisher)
            if changed is not None:
                return changed
        raise RuntimeError(
            f"online view '{view}': other writers changed its definition {_TRIES} times meanwhile; let one process "
            "publish a view, then publish again"
        )

    def _write_once(
        self, view: str, wanted: _View, rows: dict[bytes, bytes], publisher: Publisher | None
    ) -> int | None:
        """Write rows of the definition in force, or put a new one in force; None when another writer was faster."""
        packed: Any = self._client.get(view_key(view))
        current = None if packed is None else _decode_view(packed)
        if current is not None and (current.hash, current.columns) == (wanted.hash, wanted.columns):
            if wanted.schema is not None and wanted.schema != current.schema:
                record = encode(msgspec.structs.replace(current, schema=wanted.schema))
                if not self._switch(keys=[view_key(view), _STALE], args=[record, packed, "", current.generation]):
                    return None
                packed = record
            if publisher is not None:
                return self._whole.put(publisher, current.generation, packed, rows)
            return self._put(view, current.generation, packed, rows.items())
        generation: Any = self._client.incr(PREFIX + b"generation")
        self._client.zadd(_STALE, {str(generation): time.time()})  # so that rows of a killed writer are deleted later
        self._client.set(count_key(generation), 0)
        changed = self._put(view, generation, b"", rows.items())
        definition = encode(msgspec.structs.replace(wanted, generation=generation))
        old = current.generation if current is not None else ""
        switched = self._switch(keys=[view_key(view), _STALE], args=[definition, packed or b"", old, generation])
        if switched and publisher is not None and self._whole.put(publisher, generation, definition, rows) is None:
            return None
        return changed if switched else None

    def _put(
        self, view: str, generation: int, guard: bytes, rows: Iterable[tuple[bytes, bytes]], *, push: int | str = ""
    ) -> int | None:
        """Write rows; return how many changed, or None when `guard` is not the view's record any more."""
        changed = 0
        for chunk in chunks(rows, _CHUNK):
            own = [newest_key(generation), pushed_key(generation), count_key(generation)]
            keys = [view_key(view), *own, *(row_key(generation, key) for key, _ in chunk)]
            values = [value for _, value in chunk]
            done: Any = self._merge(keys=keys, args=[guard, max(value[:8] for value in values), push, *values])
            if done < 0:
                return None
            changed += done
        return changed

    def _tidy(self) -> None:
        """Delete the rows of definitions that are no longer in force."""
        members: Any = self._client.zrangebyscore(_STALE, "-inf", time.time() - _ABANDONED)
        for member in members:
            pattern = row_key(int(member), b"*")
            for keys in chunks(self._client.scan_iter(match=pattern, count=_SCAN), _SCAN):
                self._client.unlink(*keys)
            self._client.unlink(*(key(int(member)) for key in (newest_key, pushed_key, count_key)))
            self._client.zrem(_STALE, member)

    def _changed(self, views: Sequence[str], replies: Sequence[bytes | None], known: dict[str, _Known]) -> bool:
        """Whether a definition that was read differs from the known one; if so, remember the new one."""
        changed = False
        for view, packed in zip(views, replies[: len(views)], strict=True):
            old = known.get(view)
            if packed != (old and old.packed):
                changed = True
                if packed is None:
                    self._views.pop(view, None)
                else:
                    new = _decode_view(packed)
                    self._views[view] = _Known(packed, new.columns, new.hash, row_key(new.generation, b""))
        return changed


def _newest(rows: Iterable[tuple[bytes, int, bytes]]) -> dict[bytes, bytes]:
    """The newest row of each entity: key → eight bytes of time and the packed values."""
    newest: dict[bytes, bytes] = {}
    for key, micros, values in rows:
        new = _stamp(micros) + values
        old = newest.get(key)
        if old is None or new[:8] >= old[:8]:
            newest[key] = new
    return newest


def _stamp(micros: int) -> bytes:
    return _time.pack(micros + _HALF)


def _micros(packed: bytes) -> int:
    return int(_time.unpack_from(packed)[0]) - _HALF


def _row(known: _Known, packed: bytes | None) -> Row | None:
    return None if packed is None else unpack(known.columns, known.view_hash, _micros(packed), packed[8:])
