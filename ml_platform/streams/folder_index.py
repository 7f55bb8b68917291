"""The index of a folder: in which order its rows became messages, so that the same message keeps its position.

A folder has no order of its own: files come, grow, are renamed and removed. So what is read of a file is written here
first, as a numbered segment, and synced; then its rows are messages. After a kill the segments that were not answered
are read again by it. It says nothing of what was answered: that is the sink's.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ml_platform.atomic_files import append_line, locked, replace_file

_KEPT_SECONDS = 2 * 3600.0  # longer than a sink holds answers before it commits them
_KEPT_SEGMENTS = 1000
_COMPACTED_FROM = 20_000  # segments
_MARK_BYTES = 64


class Segment(msgspec.Struct, omit_defaults=True):
    """Rows of a file that became messages together.

    Attributes
    ----------
    first, rows
        Position of the first message, and how many there are. None: the file was only noted, as of `end`.
    file, inode, start, end
        Where the rows are: in bytes, of Parquet in rows. `file` is empty for a note.
    mark
        Digest of what is before `end`, by which a file that was replaced is told from one that grew; of Parquet, of the
        end of the file.
    time
        When the file was last changed, in microseconds since 1970.
    header
        First line of a CSV file.
    note
        What became of a file, as the text of a message of its own; it cannot be scored, so it is a dead letter.
    renamed
        The name that the file had before.
    """

    first: int
    rows: int
    file: str = ""
    inode: int = 0
    start: int = 0
    end: int = 0
    mark: str = ""
    time: int = 0
    header: str = ""
    note: str = ""
    renamed: str = ""


class FolderIndex:
    """The segments of a folder, in a file of lines that several processes may extend.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, Segment] = {}  # newest segment of each file
        self.next = 0  # position of the next message
        self._read_to = 0
        self._inode = 0
        self._count = 0

    @contextmanager
    def alone(self) -> Iterator[list[Segment]]:
        """Hold the index against other processes; gives the segments that those have added."""
        with locked(self.path.with_suffix(".lock")):
            yield self.reload()

    def reload(self) -> list[Segment]:
        """Read what was added since the last look."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._read_to:  # compacted by another process
                    self._forget()
                    self._inode = status.st_ino
                file.seek(self._read_to)
                content = file.read()
        except FileNotFoundError:
            self._forget()
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read_to += len(whole)
        added = list(_segments(whole))
        self._apply(added)
        return added

    def append(self, segments: Iterable[Segment]) -> None:
        """Add segments, and wait until they are on disk; to be called within `alone`."""
        added = list(segments)
        if not added:
            return
        append_line(self.path, b"\n".join(msgspec.json.encode(one) for one in added).decode())
        status = self.path.stat()
        self._inode, self._read_to = status.st_ino, status.st_size
        self._apply(added)
        if self._count > _COMPACTED_FROM:
            self._compact()

    def every(self) -> list[Segment]:
        """All segments from the oldest kept one on."""
        try:
            return list(_segments(self.path.read_bytes()))
        except FileNotFoundError:
            return []

    def clear(self) -> None:
        """Begin anew, as nothing was answered yet; to be called within `alone`."""
        self.path.unlink(missing_ok=True)
        self._forget()

    def _forget(self) -> None:
        self.files, self.next, self._read_to, self._inode, self._count = {}, 0, 0, 0, 0

    def _apply(self, segments: Iterable[Segment]) -> None:
        for one in segments:
            self._count += 1
            self.next = max(self.next, one.first + one.rows)
            if one.renamed:
                self.files.pop(one.renamed, None)
            if one.file:
                self.files[one.file] = one

    def _compact(self) -> None:
        """Leave out segments that were answered long ago, but for the newest of each file that is still there."""
        segments, oldest = self.every(), (time.time() - _KEPT_SECONDS) * 1e6
        recent = [one for one in segments[:-_KEPT_SEGMENTS] if one.time >= oldest] + segments[-_KEPT_SEGMENTS:]
        kept = {id(one) for one in recent}
        newest = {one.file: one for one in segments if one.file}
        bases = [
            msgspec.structs.replace(one, first=one.first + one.rows, rows=0)
            for one in newest.values()
            if id(one) not in kept and one.file in self.files
        ]
        content = b"".join(msgspec.json.encode(one) + b"\n" for one in (*bases, *recent))
        replace_file(self.path, content)
        status = self.path.stat()
        self._inode, self._read_to, self._count = status.st_ino, status.st_size, len(bases) + len(recent)


def mark_before(path: Path, end: int, length: int = _MARK_BYTES) -> str:
    """Digest of the last bytes before a place of a file (raises OSError)."""
    with open(path, "rb") as file:
        file.seek(max(end - length, 0))
        return hashlib.sha256(file.read(min(end, length))).hexdigest()[:16]


def _segments(content: bytes) -> Iterator[Segment]:
    for line in content.splitlines():
        if line:
            try:
                yield msgspec.json.decode(line, type=Segment)
            except msgspec.MsgspecError:
                continue  # torn by a kill: its rows were not messages yet
