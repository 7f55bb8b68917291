"""Runs the streamed views of one table until it is told to stop, and opens everything anew after an error."""

import logging
import os
import socket
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import CollectorRegistry

from ml_platform.features.online.store import OnlineStore, Overtaken, to_instant
from ml_platform.features.streaming.feature_stream import FeatureStream
from ml_platform.features.streaming.metrics import FeatureStreamMetrics
from ml_platform.features.streaming.status import FeatureStreamStatus, State, write_status
from ml_platform.features.streaming.stream_counts import StreamCounts
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.errors import CommitConflict, SchemaMismatch
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.stream import StreamSource
from ml_platform.streams.open import describe_source, open_source
from ml_platform.streams.protocols import Fenced, Message, Resume, Source, StreamMisfit, StreamUnavailable

STOPPED, FAILED, FENCED = 0, 1, 3  # exit codes: 1 wants a person, 3 means that another process goes on
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds before everything is opened anew
_READ_SECONDS = 0.05
_RENEW_SECONDS = 1.0
_LANDING_PAUSE = 5.0
_MOST_WAITING = 2**30  # bytes that may wait for the table before no more is read
logger = logging.getLogger("streams")


class FeatureWorker:
    """Keeps the streamed views of one table.

    Parameters
    ----------
    lake
        Where the table is.
    views
        See `FeatureStream`.
    open_store
        Opens the online store.
    folder
        `Settings.feature_streams_dir`.
    registry
        Where metrics are registered.
    source
        Opens a source; by its declaration when None.
    """

    def __init__(
        self,
        lake: Lake,
        views: Sequence[FeatureView],
        open_store: Callable[[], OnlineStore],
        folder: Path,
        *,
        registry: CollectorRegistry | None = None,
        source: Callable[[StreamSource], Source] = open_source,
        metrics_port: int | None = None,
    ) -> None:
        first = views[0]
        assert first.rolling is not None
        assert first.stream is not None
        self._lake, self._views, self._open_store, self._folder = lake, views, open_store, folder
        self._source, self._spec, self._most = source, first.stream.source, first.stream.max_batch
        self._table = first.rolling.source
        self._metrics = FeatureStreamMetrics(registry or CollectorRegistry())
        self._total = StreamCounts()
        self._rates: deque[tuple[float, int]] = deque(maxlen=11)
        now = datetime.now(UTC)
        self.status = FeatureStreamStatus(
            table=self._table,
            views=[view.name for view in views],
            state="starting",
            reason=None,
            pid=os.getpid(),
            host=socket.gethostname(),
            started_at=now,
            updated_at=now,
            source=describe_source(self._spec),
            metrics_port=metrics_port,
        )
        self._due = self._next_landing = 0.0

    def run(self, stop: threading.Event) -> int:
        """Work until `stop` is set; gives the exit code.

        What is unavailable comes back: then everything is opened anew, and the state file says where to go on.

        Raises
        ------
        Exception
            What nobody foresaw: the state file is as of the last batch.
        """
        pause = _FIRST_PAUSE
        while not stop.is_set():
            started = time.monotonic()
            try:
                self._session(stop)
            except Fenced as error:
                self._enter("fenced", str(error), write=False)  # the document is the other process's
                return FENCED
            except (StreamMisfit, SchemaMismatch) as error:
                self._enter("failed", str(error))
                return FAILED
            except Exception as error:
                if not _comes_back(error):
                    self._enter("failed", f"{type(error).__name__}: {error}")
                    raise
                if time.monotonic() - started > 60:
                    pause = _FIRST_PAUSE
                self._metrics.restarts.labels(self._table).inc()
                self._enter("waiting", f"{error}. Everything is opened anew in {pause:g} s")
                deadline = time.monotonic() + pause
                while not stop.wait(min(0.5, max(0.0, deadline - time.monotonic()))) and time.monotonic() < deadline:
                    self._renew()
                pause = min(2 * pause, _LONGEST_PAUSE)
        self._enter("stopped")
        return STOPPED

    def _session(self, stop: threading.Event) -> None:
        with (
            self._open_store() as store,
            FeatureStream(
                self._lake, self._views, store, self._folder, locked=lambda: self._enter("starting")
            ) as stream,
        ):
            source = self._source(self._spec)
            try:
                positions = stream.positions()
                partitions = source.partitions()
                source.assign({partition: positions.get(partition, Resume()) for partition in partitions})
                self._enter("running")
                self._follow(stream, source, stop)
            finally:
                with suppress(StreamUnavailable):
                    source.close()

    def _follow(self, stream: FeatureStream, source: Source, stop: threading.Event) -> None:
        counted = StreamCounts()
        while not stop.is_set():
            messages: Sequence[Message] = ()
            if self.status.landing_bytes < _MOST_WAITING:
                messages = source.read(self._most, _READ_SECONDS)
            else:
                stop.wait(_READ_SECONDS)
            if messages:
                stream.take(messages)
                newest = max(message.time for message in messages)
                self.status.last_message_at = datetime.fromtimestamp(newest / 1e6, UTC)
            stream.pass_time()
            if stream.is_landing_due and time.monotonic() >= self._next_landing:
                self._land(stream)
            if time.monotonic() >= self._due:
                counted = self._count(stream, source, counted)
                self._renew()
        stream.land()
        self._count(stream, source, counted)

    def _land(self, stream: FeatureStream) -> None:
        """Commit rows; while the lake does not take them, online values go on and the rows wait in the state file."""
        try:
            stream.land()
            self.status.landing_error = None
        except Exception as error:
            if not _comes_back(error):
                raise
            self._next_landing = time.monotonic() + _LANDING_PAUSE
            if self.status.landing_error is None:
                logger.warning("%s: rows wait for the table: %s", self._table, error)
            self.status.landing_error = f"{type(error).__name__}: {error}"

    def _count(self, stream: FeatureStream, source: Source, before: StreamCounts) -> StreamCounts:
        """Tell what was done since the last time."""
        now, status = stream.counts.copy(), self.status
        for name in ("events", "late", "too_late", "refused", "written", "landed", "refreshed"):
            added = getattr(now, name) - getattr(before, name)
            setattr(status, name, getattr(status, name) + added)
            if name != "refreshed":
                getattr(self._metrics, name).labels(self._table).inc(added)
        status.reasons = now.reasons
        status.landing_bytes = stream.landing_bytes
        status.lag = sum(one.waiting for one in source.lag().values())
        status.watermark = stream.watermark()
        status.newest_event = None if now.newest is None else to_instant(now.newest)
        for gauge, value in ((self._metrics.lag, status.lag), (self._metrics.landing_bytes, status.landing_bytes)):
            gauge.labels(self._table).set(value)
        if status.watermark is not None:
            self._metrics.watermark.labels(self._table).set(status.watermark.timestamp())
        if status.newest_event is not None:
            self._metrics.newest.labels(self._table).set(status.newest_event.timestamp())
        self._rates.append((time.monotonic(), status.events))
        (first, then), (last, done) = self._rates[0], self._rates[-1]
        status.events_per_second = round((done - then) / (last - first), 1) if last > first else 0.0
        return now

    def _enter(self, state: State, reason: str | None = None, *, write: bool = True) -> None:
        self.status.state, self.status.reason = state, reason
        level = logging.ERROR if state in {"failed", "fenced"} else logging.INFO
        level = logging.WARNING if state == "waiting" else level
        logger.log(level, "%s: %s%s", self._table, state, f": {reason}" if reason else "")
        self._metrics.running.labels(self._table).set(state == "running")
        if write:
            self._renew()

    def _renew(self) -> None:
        """Write the status; a disk that is full costs the document, not the stream."""
        self._due = time.monotonic() + _RENEW_SECONDS
        self.status.updated_at = datetime.now(UTC)
        try:
            write_status(self._folder, self.status)
        except OSError as error:
            logger.error("%s: its status cannot be written: %s", self._table, error)


def _comes_back(error: Exception) -> bool:
    """Whether an error passes by itself: a broker, store or lake that is away, a lock, a full disk."""
    if isinstance(error, (StreamUnavailable, CommitConflict, Overtaken, OSError, sqlite3.OperationalError)):
        return True
    return type(error).__module__.partition(".")[0] in {"redis", "deltalake", "_internal"}
