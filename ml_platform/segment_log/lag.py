"""How far the lake is behind a log of segments, by a note that the ingest leaves in the log's folder.

Imports only the standard library and msgspec, because serving reports the lag in its metrics.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from ml_platform.atomic_files import replace_file
from ml_platform.segment_log.segments import SUFFIX

_NOTE = ".ingested.json"


class _Ingested(msgspec.Struct):
    """What was ingested."""

    at: datetime  # when the ingest ended, UTC
    taken: dict[str, int]  # segment → bytes in the table


class LogLag(NamedTuple):
    """The part of a log that is not in its table yet."""

    waiting_bytes: int
    ingested_at: datetime | None  # when an ingest last ended; None before the first


def note_ingested(folder: Path, ingested: dict[str, int]) -> None:
    """Note for each remaining segment how many of its bytes are in the table."""
    replace_file(folder / _NOTE, msgspec.json.encode(_Ingested(datetime.now(UTC), ingested)))


def log_lag(folder: Path) -> LogLag:
    """Read the lag of the log in a folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.jsonl").write_text("12345")
    ...     before = log_lag(Path(folder))
    ...     note_ingested(Path(folder), {"a.jsonl": 4})
    ...     before, log_lag(Path(folder)).waiting_bytes
    (LogLag(waiting_bytes=5, ingested_at=None), 1)
    """
    note = _note(folder)
    waiting = 0
    for segment in folder.glob(f"*{SUFFIX}"):
        try:
            size = segment.stat().st_size
        except FileNotFoundError:  # ingested and deleted meanwhile
            continue
        waiting += max(size - (note.taken.get(segment.name, 0) if note else 0), 0)
    return LogLag(waiting, note.at if note else None)


def waiting_lines(folder: Path) -> Iterator[bytes]:
    """Yield what is not in the table yet of each segment: whole lines, and perhaps some that are in it."""
    note = _note(folder)
    for segment in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            with segment.open("rb") as file:
                file.seek(note.taken.get(segment.name, 0) if note else 0)
                rest = file.read()
        except FileNotFoundError:  # ingested and deleted meanwhile
            continue
        if whole := rest[: rest.rfind(b"\n") + 1]:
            yield whole


def _note(folder: Path) -> _Ingested | None:
    try:
        return msgspec.json.decode((folder / _NOTE).read_bytes(), type=_Ingested)
    except FileNotFoundError:
        return None
