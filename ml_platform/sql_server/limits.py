"""What one query may take, and how it is ended when it takes more or nobody waits for it any more."""

import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import duckdb

Reason = Literal["time", "disconnect"]


@dataclass(frozen=True)
class Limits:
    """Limits of each query.

    Attributes
    ----------
    seconds
        How long it may take until its last row is sent.
    memory
        What DuckDB may hold, as it writes sizes: `2GB`. Nothing is written to disk beyond that.
    threads
        Threads that compute it.
    rows
        Most rows of an answer.
    """

    seconds: float = 60.0
    memory: str = "2GB"
    threads: int = 2
    rows: int = 1_000_000


class RunningQuery:
    """A query's connection, which another thread can interrupt."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.ended: Reason | None = None

    def prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Set the limits on a new connection (raises duckdb.InterruptException when the query has ended already)."""
        connection.execute(f"SET memory_limit = '{self._limits.memory}'")
        connection.execute(f"SET threads = {self._limits.threads}")
        connection.execute("SET temp_directory = ''")  # hidden rows would be written there
        with self._lock:
            if self.ended is not None:
                raise duckdb.InterruptException("ended before it began")
            self._connection = connection

    def end(self, reason: Reason) -> None:
        """Interrupt the query, from any thread; the first reason counts."""
        with self._lock:
            self.ended = self.ended or reason
            if self._connection is not None:
                with suppress(duckdb.ConnectionException):  # it has just been closed
                    self._connection.interrupt()

    def close(self) -> None:
        """The connection is closed: nothing can be interrupted any more."""
        with self._lock:
            self._connection = None
