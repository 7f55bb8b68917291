"""Reads of the online store that fail fast: a store that hangs is left alone for a while, as requests wait for it."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ml_platform.features.online.store import Definition, OnlineStore, Row

_PAUSE = 4  # after a failure the store is left alone for this many times as long as the failure took

T = TypeVar("T")

logger = logging.getLogger("serving")


class OnlineStoreFailed(RuntimeError):
    """The online store could not be read."""


class StoreReads:
    """Reads one store."""

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self._next_try = 0.0  # monotonic clock

    def read(self, wanted: Sequence[tuple[str, tuple[Any, ...]]]) -> Sequence[Row | None]:
        """Read rows, as `OnlineStore.read` does.

        Raises
        ------
        OnlineStoreFailed
            When the store cannot be read, is not there, or failed a moment ago.
        """
        if not wanted:
            return []

        def read() -> Sequence[Row | None]:
            rows = self._store.read(wanted)
            if rows[0] is None and rows.count(None) == len(rows) and not self._store.exists():
                raise FileNotFoundError("there is none")
            return rows

        return self._fast_failing(read)

    def definitions(self, views: Sequence[str]) -> dict[str, Definition]:
        """Read definitions of views; those that the store does not have are left out (raises OnlineStoreFailed)."""

        def read() -> dict[str, Definition]:
            stored = {view: self._store.definition(view) for view in views}
            if not any(stored.values()) and not self._store.exists():
                raise FileNotFoundError("there is none")
            return {view: definition for view, definition in stored.items() if definition is not None}

        return self._fast_failing(read)

    def _fast_failing(self, read: Callable[[], T]) -> T:
        started = time.monotonic()
        if started < self._next_try:
            raise OnlineStoreFailed(
                "the online store cannot be read: it did not answer in time, and is asked again soon"
            )
        try:
            return read()
        except Exception as error:
            now = time.monotonic()
            self._next_try = now + _PAUSE * (now - started)
            logger.error("the online store cannot be read: %s", error)
            raise OnlineStoreFailed(f"the online store cannot be read: {type(error).__name__}") from error
