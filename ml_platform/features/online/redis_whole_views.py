"""Writing a whole view to Redis: one publisher at a time, and what the view does not have any more is deleted."""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis

from ml_platform.features.online import redis_scripts as scripts
from ml_platform.features.online.redis_keys import (
    chunks,
    count_key,
    lock_key,
    marks_key,
    newest_key,
    pushed_key,
    row_key,
    view_key,
)
from ml_platform.features.online.store import Mark, Overtaken

_CHUNK = 2000  # rows written by one call: Lua's `unpack` is limited to some 8,000 values
_SCAN = 5000  # keys looked at by one step
_LOCK_MILLISECONDS = 10_000  # after which a publisher that does not get on is taken to be dead
_LOCK_WAIT, _LOCK_POLL = 30.0, 0.05  # seconds
_LOCK_LOST = -2


class Publisher(NamedTuple):
    """Who writes a whole view, and what was pushed before it read the rows."""

    view: str
    holder: str  # of the view's lock
    pushes: int


class WholeViews:
    """Writes whole views over a store's client."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._replace = client.register_script(scripts.REPLACE)
        self._withdraw = client.register_script(scripts.WITHDRAW)
        self._finish = client.register_script(scripts.FINISH)
        self._unlock = client.register_script(scripts.UNLOCK)

    def mark(self, view: str) -> Mark:
        """See `OnlineStore.mark`."""
        counts: Any = self._client.hmget(marks_key(view), ["publications", "pushes"])
        return Mark(*(int(number or 0) for number in counts))

    @contextmanager
    def publisher(self, view: str, since: Mark) -> Iterator[Publisher]:
        """Hold the lock of a view, which expires some seconds after its holder was killed.

        Raises
        ------
        Overtaken
            If the view was written since the mark, or others hold the lock for too long.
        """
        holder, until = secrets.token_hex(8), time.monotonic() + _LOCK_WAIT
        while not self._client.set(lock_key(view), holder, nx=True, px=_LOCK_MILLISECONDS):
            if time.monotonic() > until:
                raise Overtaken(view)
            time.sleep(_LOCK_POLL)
        try:
            if self.mark(view).publications != since.publications:
                raise Overtaken(view)
            yield Publisher(view, holder, since.pushes)
        finally:
            self._unlock(keys=[lock_key(view)], args=[holder])

    def put(self, publisher: Publisher, generation: int, record: bytes, rows: dict[bytes, bytes]) -> int | None:
        """Make rows the only ones of a view but those pushed since the mark.

        Returns
        -------
        int, optional
            How many rows changed; None when `record` is not the view's any more.

        Raises
        ------
        Overtaken
            If the publisher was so slow that it lost the lock.
        """
        own = [view_key(publisher.view), lock_key(publisher.view), pushed_key(generation)]
        first = [record, publisher.holder, _LOCK_MILLISECONDS, publisher.pushes]

        def run(script: Any, keys: Sequence[bytes], values: Sequence[bytes] = ()) -> int:
            done = int(script(keys=[*own, *keys], args=[*first, *values]))
            if done == _LOCK_LOST:
                raise Overtaken(publisher.view)
            return done

        changed, count = 0, count_key(generation)
        for some in chunks(rows.items(), _CHUNK):
            done = run(self._replace, [count, *(row_key(generation, key) for key, _ in some)], [row for _, row in some])
            if done < 0:
                return None
            changed += done
        for surplus in chunks(self._surplus(generation, rows), _CHUNK):
            if (done := run(self._withdraw, [count, *surplus])) < 0:
                return None
            changed += done
        newest = max((row[:8] for row in rows.values()), default=b"")
        done = run(self._finish, [newest_key(generation), marks_key(publisher.view)], [newest])
        return None if done < 0 else changed

    def _surplus(self, generation: int, rows: dict[bytes, bytes]) -> set[bytes]:
        """Keys of stored rows that are not among the given ones; all keys are looked at only if there are too many."""
        given = {row_key(generation, key) for key in rows}
        pushed: Any = self._client.hkeys(pushed_key(generation))
        count: Any = self._client.get(count_key(generation))
        if count is not None and int(count) <= len(given.union(pushed)):
            return set(pushed) - given
        self._client.set(count_key(generation), 0)  # first, so that what is pushed meanwhile is counted, maybe twice
        stored = set(self._client.scan_iter(match=row_key(generation, b"*"), count=_SCAN))
        self._client.incrby(count_key(generation), len(stored))
        return stored - given
