"""Reads the rows of files that are added to a folder, or grow there; positions are those of the folder's index."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from os import stat_result
from pathlib import Path

import msgspec

from ml_platform.lake.sources.source_spec import resolve
from ml_platform.lake.sources.stored_files import list_folder
from ml_platform.spec.stream_sources import FolderSource
from ml_platform.streams.folder_index import FolderIndex, Segment, mark_before
from ml_platform.streams.folder_rows import (
    PARQUET_ROWS,
    complete_lines,
    csv_rows,
    json_rows,
    parquet_height,
    parquet_rows,
)
from ml_platform.streams.protocols import Message, PartitionLag, Resume, StreamMisfit, StreamUnavailable

_LOOK_SECONDS = 0.2
_FILES = 2000  # up to which a folder is looked at as often
_SEGMENTS = 50  # of one look
_FOOTER_BYTES = 65_536  # of a Parquet file, where it says what is in it


class FolderRows:
    """A `Source` over a folder.

    Parameters
    ----------
    spec
        The folder.
    index
        File of its index.
    """

    def __init__(self, spec: FolderSource, index: Path) -> None:
        self._spec, self._index = spec, FolderIndex(index)
        self._folder = self._resolved()
        self._segments: deque[Segment] = deque()  # that are not messages yet
        self._buffer: deque[Message] = deque()
        self._done: frozenset[int] = frozenset()
        self._position = -1
        self._look_at = 0.0
        self._by_inode: dict[int, str] | None = None  # of the files that were read, for one look
        self._waiting_bytes, self._bytes_each = 0, 200.0
        self._is_parquet, self._is_csv = spec.pattern.endswith(".parquet"), spec.pattern.endswith(".csv")

    def _resolved(self) -> Path:
        try:
            folder = resolve(self._spec.path)
        except ValueError as error:
            raise StreamMisfit(f"stream.source: path: {error}") from error
        if not isinstance(folder, Path):
            raise StreamMisfit(
                f"stream.source: path: wanted a local folder, found {folder}: load it into a table first"
            )
        return folder

    def partitions(self) -> Sequence[int]:
        """See `protocols.Source`."""
        self._files()
        return (0,)

    def _files(self) -> dict[str, stat_result]:
        """The folder's files by name, those that were changed first in front."""
        try:
            names = [file.name for file in list_folder(self._folder, self._spec.pattern)]
        except FileNotFoundError:
            raise StreamMisfit(f"no folder {self._folder}: make it, or correct stream.source.path") from None
        except OSError as error:
            raise StreamUnavailable(f"{self._folder}: {error}") from error
        states = {}
        for name in names:
            try:
                states[name] = (self._folder / name).stat()
            except FileNotFoundError:
                continue  # removed meanwhile
        return dict(sorted(states.items(), key=lambda one: (one[1].st_mtime_ns, one[0])))

    def assign(self, resume: Mapping[int, Resume]) -> None:
        """See `protocols.Source`."""
        answered = resume[0]
        self._done, self._position = answered.done, answered.after
        self._segments, self._buffer = deque(), deque()
        with self._index.alone():
            if answered.after < 0 and not answered.done:
                self._index.clear()
                if self._spec.start == "latest":
                    self._index.append(self._skipped(name, state) for name, state in self._files().items())
                return
            if answered.after >= self._index.next:
                raise StreamMisfit(
                    f"answers go to row {answered.after} of the folder, its index {self._index.path} to "
                    f"{self._index.next - 1}: restore it, or answer into new topics and tables"
                )
            left = [one for one in self._index.every() if one.first + one.rows - 1 > answered.after and one.rows]
        if left and left[0].first > answered.after + 1:
            raise StreamMisfit(f"the folder's index {self._index.path} begins behind row {answered.after}: restore it")
        for segment in left:
            self._rows(segment)  # all that was not answered has to be there still
        self._segments.extend(left)

    def _skipped(self, name: str, state: stat_result) -> Segment:
        """Note a file that was there before the stream began."""
        path = self._folder / name
        end = (parquet_height(path) or 0) if self._is_parquet else _behind_last_line(path, state.st_size)
        header = _header(path) if self._is_csv else ""
        mark = mark_before(path, state.st_size, _FOOTER_BYTES) if self._is_parquet else mark_before(path, end)
        return Segment(0, 0, name, state.st_ino, 0, end, mark, state.st_mtime_ns // 1000, header)

    def read(self, most: int, seconds: float) -> Sequence[Message]:
        """See `protocols.Source`."""
        deadline = time.monotonic() + seconds
        while not self._buffer:
            if self._segments:
                self._fill(self._segments.popleft())
            elif not self._look() and not self._segments:
                left = deadline - time.monotonic()
                if left <= 0:
                    return []
                time.sleep(min(left, _LOOK_SECONDS))
        messages = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
        self._position = messages[-1].position
        return messages

    def _fill(self, segment: Segment) -> None:
        rows = self._rows(segment)
        if rows and segment.file and not self._is_parquet:
            self._bytes_each += 0.2 * ((segment.end - segment.start) / len(rows) - self._bytes_each)
        for position, row in enumerate(rows, start=segment.first):
            if position > self._position and position not in self._done:
                self._buffer.append(Message(0, position, row, None, segment.time))

    def _rows(self, segment: Segment) -> list[bytes]:
        """The rows of a segment, as they were when it was written (raises StreamMisfit)."""
        if segment.note:
            return [segment.note.encode()]
        path, rows = self._folder / segment.file, list[bytes]()
        try:
            if not self._is_same(path, segment):
                path = self._renamed(segment) or path
            if self._is_same(path, segment):
                rows = self._read(path, segment)
        except OSError:
            rows = []
        left = segment.first + segment.rows - max(self._position + 1, segment.first)
        why = "it was truncated, replaced or written anew" if path.exists() else "it is gone"
        if len(rows) != segment.rows:
            raise StreamMisfit(
                f"{path}: up to {left:,} rows of it were deleted before they were answered: {why}. Put the "
                "file back; or, to go on with what is left, answer into new topics and tables"
            )
        return rows

    def _read(self, path: Path, segment: Segment) -> list[bytes]:
        if self._is_parquet:
            return parquet_rows(path, segment.start, segment.end)
        with open(path, "rb") as file:
            file.seek(segment.start)
            return self._parsed(file.read(segment.end - segment.start), segment)

    def _is_same(self, path: Path, known: Segment) -> bool:
        """Whether a file has what was read of it still, at its place (False when it is gone)."""
        try:
            size = path.stat().st_size
            if self._is_parquet:
                return mark_before(path, size, _FOOTER_BYTES) == known.mark
            return size >= known.end and mark_before(path, known.end) == known.mark
        except FileNotFoundError:
            return False

    def _renamed(self, segment: Segment) -> Path | None:
        """Where the file of a segment is now."""
        return next(
            (self._folder / name for name, state in self._files().items() if state.st_ino == segment.inode), None
        )

    def _parsed(self, content: bytes, segment: Segment) -> list[bytes]:
        return csv_rows(content, segment.header, self._spec.texts) if self._is_csv else json_rows(content)

    def _look(self) -> bool:
        """Look for new rows, and make segments of them; whether there are any."""
        begun = time.monotonic()
        if begun < self._look_at:
            return False
        self._waiting_bytes, self._by_inode = 0, None
        with self._index.alone() as of_others:
            self._segments.extend(one for one in of_others if one.rows)
            files = self._files()
            added: list[Segment] = []
            for name, state in files.items():
                if len(added) >= _SEGMENTS:
                    self._waiting_bytes += state.st_size
                    continue
                try:
                    added += self._new_segments(name, state, files, first=self._index.next + sum(s.rows for s in added))
                except FileNotFoundError:
                    continue  # removed meanwhile: nothing of it was read
            self._index.append(added)
        self._segments.extend(one for one in added if one.rows)
        wait = _LOOK_SECONDS * max(len(files) / _FILES, 1.0)  # listing a large folder is not for nothing
        self._look_at = 0.0 if added else begun + wait
        return bool(self._segments)

    def _new_segments(
        self, name: str, state: stat_result, files: Mapping[str, stat_result], first: int
    ) -> Iterator[Segment]:
        path, known = self._folder / name, self._index.files.get(name)
        base = Segment(first, 0, name, state.st_ino, time=state.st_mtime_ns // 1000)
        if known is None and (former := self._former(path, state, files)):
            old = self._index.files[former]
            known = msgspec.structs.replace(old, first=first, rows=0, file=name, renamed=former, note="")
            yield known
        if known is not None and self._is_replaced(path, state, known):
            if not any(other.st_ino == known.inode for other in files.values() if other is not state):
                how = f"was truncated to {state.st_size:,} bytes" if state.st_size < known.end else "was written anew"
                how = "was written anew" if self._is_parquet else how
                note = f"{name} {how} after {known.end:,} {'rows' if self._is_parquet else 'bytes'} of it were read; "
                yield Segment(first, 1, time=base.time, note=note + "it is read from its beginning, as a new file")
                base.first = first + 1
            known = None
            if not self._is_parquet:  # where it begins anew, even if it is empty
                yield msgspec.structs.replace(base, mark=mark_before(path, 0))
        if self._is_parquet:
            yield from self._parquet(path, state, base, known)
            return
        base.start = base.end = known.end if known else 0
        base.header = known.header if known else ""
        yield from self._lines(path, state, base)

    def _former(self, path: Path, state: stat_result, files: Mapping[str, stat_result]) -> str | None:
        """The name that a new file had before it was renamed."""
        if self._by_inode is None:
            self._by_inode = {one.inode: name for name, one in self._index.files.items()}
        name = self._by_inode.get(state.st_ino)
        if name is None or (name in files and files[name].st_ino == state.st_ino):
            return None
        return name if self._is_same(path, self._index.files[name]) else None  # else its inode is used again

    def _is_replaced(self, path: Path, state: stat_result, known: Segment) -> bool:
        """Whether a file is another one than what was read of it; one that was copied over by a longer one is not."""
        is_untouched = (state.st_ino, state.st_mtime_ns // 1000) == (known.inode, known.time)
        return not is_untouched and not self._is_same(path, known)

    def _lines(self, path: Path, state: stat_result, base: Segment) -> Iterator[Segment]:
        settled = time.time() - state.st_mtime > self._spec.settled_after.total_seconds()
        place, first = base.end, base.first
        for _ in range(_SEGMENTS):
            if state.st_size <= place:
                return
            content = complete_lines(path, place, settled=settled, is_csv=self._is_csv)
            if not content:
                return
            start = place
            if self._is_csv and not base.header:
                line, _, rest = content.partition(b"\n")
                base.header = line.decode("utf-8-sig", "replace").strip("\r")
                start, content_rows = place + len(line) + 1, rest
            else:
                content_rows = content
            place += len(content)
            segment = Segment(
                first,
                0,
                base.file,
                base.inode,
                min(start, place),
                place,
                mark_before(path, place),
                base.time,
                base.header,
            )
            segment.rows = len(self._parsed(content_rows, segment))
            first += segment.rows
            yield segment
        self._waiting_bytes += max(state.st_size - place, 0)

    def _parquet(self, path: Path, state: stat_result, base: Segment, known: Segment | None) -> Iterator[Segment]:
        if known is not None:
            return
        height = parquet_height(path)
        if height is None and time.time() - state.st_mtime <= self._spec.settled_after.total_seconds():
            return  # still being written
        base.mark = mark_before(path, state.st_size, _FOOTER_BYTES)
        if height is None:
            note = f"{base.file} is not a Parquet file that can be read"
            yield Segment(base.first, 1, time=base.time, note=note)
            base.first += 1
        for start in range(0, height or 0, PARQUET_ROWS):
            end = min(start + PARQUET_ROWS, height or 0)
            yield msgspec.structs.replace(base, first=base.first + start, rows=end - start, start=start, end=end)
        if not height:
            yield base

    def lag(self) -> Mapping[int, PartitionLag]:
        """See `protocols.Source`."""
        waiting = len(self._buffer) + sum(one.rows for one in self._segments)
        waiting += int(self._waiting_bytes / max(self._bytes_each, 1.0))
        return {0: PartitionLag(self._position, self._position + 1 + waiting, waiting)}

    def close(self) -> None:
        """See `protocols.Source`; nothing is open."""


def _header(path: Path) -> str:
    with open(path, "rb") as file:
        return file.readline().decode("utf-8-sig", "replace").strip("\r\n")


def _behind_last_line(path: Path, size: int) -> int:
    """Behind the last end of line of a file: what follows is still being written."""
    with open(path, "rb") as file:
        place = size
        while place > 0:
            start = max(place - 65_536, 0)
            file.seek(start)
            end = file.read(place - start).rfind(b"\n")
            if end >= 0:
                return start + end + 1
            place = start
    return 0
