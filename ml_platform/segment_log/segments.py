"""Segment files: every request is logged as a line of a file before it is answered.

Each worker appends to one segment file per stream with a single `os.write` on an `O_APPEND` descriptor, so that even a
worker killed with SIGKILL loses nothing that it answered: the kernel has the line. A background thread calls fsync
within `SYNC_SECONDS` of a write, which limits what a power cut can lose. `ml_platform.segment_log.ingest`
ingests the segments into the lake.
"""

import fcntl
import os
import secrets
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ml_platform.atomic_files import write_synced

SEGMENT_BYTES = 64 * 2**20
SYNC_SECONDS = 0.04  # leaves fsync itself 10 ms of the 50 ms within which a record is on disk
SUFFIX = ".jsonl"
_PROBE_BYTES = 2**18  # more than one request's records: a disk that takes less is still full

_encoder = msgspec.json.Encoder()


class LogUnavailable(OSError):
    """The record could not be written, so the request must not be answered as if it had been logged.

    `reason` is the system's, without a path: callers may be told.
    """

    def __init__(self, error: OSError, name: str, folder: Path) -> None:
        self.reason = os.strerror(error.errno) if error.errno else type(error).__name__
        super().__init__(error.errno, f"the {name} below {folder} cannot be written: {self.reason}")


class Segment:
    """One open file. While its shared lock is held, the ingest knows that a worker may still append to it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}-{secrets.token_hex(4)}{SUFFIX}"
        unlocked = folder / f".{name}.new"
        self.file = os.open(unlocked, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        fcntl.flock(self.file, fcntl.LOCK_SH)
        self.path = unlocked.rename(folder / name)  # the ingest never sees a segment that is not locked yet
        self.size = 0
        self.torn = False
        self.dirty = False
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)  # the file's name must survive a power cut as well as its content
        finally:
            os.close(directory)

    def write(self, data: bytes) -> None:
        """Append whole lines. If that fails, raise, and start the next write on a new line."""
        if self.torn:
            data = b"\n" + data
        written = os.write(self.file, data)
        while written < len(data):  # a nearly full disk takes only a part; the next try raises the reason
            self.torn = True
            written += os.write(self.file, data[written:])
        self.torn = False
        self.size += written
        self.dirty = True

    def close(self) -> None:
        """Sync and close, which also releases the lock."""
        os.fsync(self.file)
        os.close(self.file)


class SegmentLog:
    """Appends records below `folder/<stream>/`, one segment per worker and stream at a time.

    Parameters
    ----------
    folder
        Folder of the whole log.
    name
        Name of the log in error messages.
    segment_bytes
        Size from which on a segment is closed and the next one opened.
    sync_seconds
        Longest wait before written records are forced to disk.

    Examples
    --------
    >>> import tempfile
    >>> class Line(msgspec.Struct):
    ...     n: int
    >>> folder = Path(tempfile.mkdtemp())
    >>> log = SegmentLog(folder, "log of numbers")
    >>> log.append("odd", [Line(1), Line(3)])
    >>> log.close()
    >>> [path.read_bytes() for path in folder.glob("odd/*.jsonl")]
    [b'{"n":1}\\n{"n":3}\\n']
    """

    def __init__(
        self, folder: Path, name: str, *, segment_bytes: int = SEGMENT_BYTES, sync_seconds: float = SYNC_SECONDS
    ) -> None:
        self._folder = folder
        self._name = name
        self._segment_bytes = segment_bytes
        self._sync_seconds = sync_seconds
        self._segments: dict[str, Segment] = {}
        self._lock = threading.Lock()
        self._failure: OSError | None = None
        self._written = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def append(self, stream: str, records: Sequence[msgspec.Struct]) -> None:
        """Write the records of one answer; they survive the death of this process once this returns.

        Raises
        ------
        LogUnavailable
            If the file system refused the write, with its reason.
        """
        data = _encoder.encode_lines(records)
        try:
            with self._lock:
                if self._failure is not None:
                    self._give_up_segments()
                segment = self._segments.get(stream)
                if segment is None or segment.size >= self._segment_bytes:
                    segment = self._next_segment(stream)
                segment.write(data)
        except OSError as error:
            raise LogUnavailable(error, self._name, self._folder) from error
        if not self._written.is_set():
            self._written.set()

    def probe(self, stream: str) -> None:
        """Find out whether a stream can be written again, by a file that is removed at once.

        Raises
        ------
        LogUnavailable
            If the file system refuses, with its reason.
        """
        path = self._folder / stream / f".{os.getpid()}.probe"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                write_synced(path, bytes(_PROBE_BYTES))
            finally:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise LogUnavailable(error, self._name, self._folder) from error

    def close(self) -> None:
        """Sync and close every segment."""
        self._closing.set()
        self._written.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            for segment in self._segments.values():
                segment.close()
            self._segments.clear()

    def _next_segment(self, stream: str) -> Segment:
        if self._thread is None:
            self._thread = threading.Thread(target=self._sync_forever, name=f"{self._name} sync", daemon=True)
            self._thread.start()
        fresh = Segment(self._folder / stream)
        full = self._segments.get(stream)
        self._segments[stream] = fresh
        if full is not None:
            full.close()
        return fresh

    def _give_up_segments(self) -> None:
        """Give up the files after a failed fsync, since their content is unknown; raise the error once."""
        failure, self._failure = self._failure, None
        for segment in self._segments.values():
            os.close(segment.file)
        self._segments.clear()
        if failure is not None:
            raise failure

    def _sync_forever(self) -> None:
        while not self._closing.is_set():
            self._written.wait()
            self._written.clear()
            self._sync()
            self._closing.wait(self._sync_seconds)

    def _sync(self) -> None:
        # Duplicates stay open when a segment is closed meanwhile, so that fsync can run outside the lock.
        with self._lock:
            duplicates = [os.dup(segment.file) for segment in self._segments.values() if segment.dirty]
            for segment in self._segments.values():
                segment.dirty = False
        for duplicate in duplicates:
            try:
                os.fsync(duplicate)
            except OSError as error:
                self._failure = error  # raised to the next caller of `append`
            finally:
                os.close(duplicate)
