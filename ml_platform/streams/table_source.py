"""Reads the new rows of a Delta table, version by version; a position is a version and a row's place in it."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from ml_platform.lake.errors import TableNotFound, VersionGone
from ml_platform.lake.storage.snapshots import scan
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.stream_sources import TableSource
from ml_platform.streams.protocols import Message, PartitionLag, Resume, StreamMisfit, StreamUnavailable
from ml_platform.streams.table_log import (
    Commit,
    new_rows,
    read_commit,
    read_commit_total,
    read_rows,
    read_snapshot,
)

_ROW_BITS = 31  # of a position: rows of a version
_CHANGES = 1 << _ROW_BITS  # flag: a row that the version added; else one of all rows that it has
_CHUNK = 10_000  # rows that are held at a time
_LOOK_SECONDS = 0.2  # between two looks for a new version; of an object store five times as much


class TableRows:
    """A `Source` over the rows that are added to a table.

    Parameters
    ----------
    spec
        The table.
    lake
        Where it is.
    """

    def __init__(self, spec: TableSource, lake: Lake) -> None:
        self._spec, self._lake = spec, lake
        self._version = -1  # that is read, or was read last
        self._types: Mapping[str, pl.DataType] = {}
        self._done: frozenset[int] = frozenset()
        self._rows: Iterator[list[Message]] = iter(())
        self._buffer: deque[Message] = deque()
        self._position = -1
        self._left = 0  # rows of the version that is read
        self._known: deque[Commit] = deque()  # newer versions that are there
        self._looked_at = 0.0

    def partitions(self) -> Sequence[int]:
        """See `protocols.Source`."""
        self._newest()
        return (0,)

    def _newest(self) -> int:
        try:
            return self._lake.version(self._spec.table)
        except TableNotFound as error:
            raise StreamMisfit(str(error)) from error
        except ConnectionError as error:
            raise StreamUnavailable(str(error)) from error

    def assign(self, resume: Mapping[int, Resume]) -> None:
        """See `protocols.Source`."""
        answered, newest = resume[0], self._newest()
        self._types = dict(scan(self._lake.snapshot(self._spec.table)).collect_schema())
        if missing := [name for name in self._spec.columns if name not in self._types]:
            raise StreamMisfit(f"'{self._spec.table}' has no columns {missing}; it has {', '.join(self._types)}")
        self._done, self._position = answered.done, answered.after
        self._buffer.clear()
        self._known.clear()
        if answered.after < 0 and self._spec.start == "latest":
            self._version, self._rows, self._left = newest, iter(()), 0
            return
        position = answered.after if answered.after >= 0 else newest << (_ROW_BITS + 1)
        self._version = position >> (_ROW_BITS + 1)
        rows_done = position & (_CHANGES - 1)
        if answered.after >= 0:
            rows_done += 1  # of the place that was answered last
        if self._version > newest:
            raise StreamMisfit(
                f"'{self._spec.table}': answers go to version {self._version}, the table ends at {newest}: it was made "
                "anew. Answer into new topics and tables, or restore the table"
            )
        if position & _CHANGES:
            commit = self._commit(self._version)
            if commit is None:
                raise StreamMisfit(self._lost(self._version, "its commit is no longer in the log"))
            self._begin(commit, rows_done, _CHANGES)
            return
        try:
            snapshot = read_snapshot(self._lake, self._spec.table, self._version)
        except VersionGone as error:
            total = read_commit_total(self._lake, self._spec.table, self._version)
            if total is None or total > rows_done:
                raise StreamMisfit(self._lost(self._version, str(error).rstrip("."), total)) from error
            snapshot = Commit(self._version, 0, ())  # all of it was answered
        self._begin(snapshot, rows_done, 0)

    def read(self, most: int, seconds: float) -> Sequence[Message]:
        """See `protocols.Source`."""
        deadline = time.monotonic() + seconds
        while not self._buffer:
            chunk = next(self._rows, None)
            if chunk is not None:
                self._buffer += chunk
            elif self._known or self._look():
                self._begin(self._known.popleft(), 0, _CHANGES)
            elif (left := deadline - time.monotonic()) > 0:
                time.sleep(min(left, _LOOK_SECONDS))
            else:
                return []
        messages = [self._buffer.popleft() for _ in range(min(most, len(self._buffer)))]
        self._position = messages[-1].position
        return [one for one in messages if one.position not in self._done] if self._done else messages

    def _look(self) -> bool:
        """Look for newer versions; whether there is one to read."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_SECONDS * (1 if self._lake.is_local else 5):
            return bool(self._known)
        self._looked_at = now
        version = self._known[-1].version if self._known else self._version
        while len(self._known) < 1000:
            version += 1
            commit = self._commit(version)
            if commit is None:
                if self._newest() > version:  # it is, and its commit is not
                    raise StreamMisfit(self._lost(version, "its commit is no longer in the log"))
                break
            self._known.append(commit)
        return bool(self._known)

    def _commit(self, version: int) -> Commit | None:
        try:
            return read_commit(self._lake, self._spec.table, version)
        except OSError as error:
            raise StreamUnavailable(f"'{self._spec.table}': {error}") from error

    def _begin(self, commit: Commit, rows_done: int, flag: int) -> None:
        self._version, self._left = commit.version, max(commit.rows - rows_done, 0)
        self._rows = self._messages(commit, rows_done, flag)

    def _messages(self, commit: Commit, rows_done: int, flag: int) -> Iterator[list[Message]]:
        """Messages of a version, some at a time, from a row on."""
        base = (commit.version << (_ROW_BITS + 1)) | flag
        start = 0  # of the file, among all rows of the version
        for file in commit.files:
            if file.rows is not None and start + file.rows <= rows_done:
                start += file.rows
                continue
            place = max(rows_done - start, 0)
            while True:
                try:
                    rows = read_rows(self._lake, self._spec.table, file, self._types, first=place, most=_CHUNK)
                except FileNotFoundError as error:
                    raise StreamMisfit(self._lost(commit.version, f"{file.path} was vacuumed", commit.rows)) from error
                first, height = base + start + place, rows.height
                place += height
                self._left = max(self._left - height, 0)
                numbers = pl.int_range(first, first + height, eager=True)
                is_new = new_rows(rows)
                columns = list(self._spec.columns) or [name for name in rows.columns if not name.startswith("_change_")]
                lines = json_lines(rows.filter(is_new), [name for name in columns if name in rows.columns])
                yield [
                    Message(0, number, line, None, commit.time)
                    for number, line in zip(numbers.filter(is_new).to_list(), lines, strict=True)
                ]
                if height < _CHUNK:
                    break
            start += place

    def _lost(self, version: int, why: str, rows: int | None = None) -> str:
        count = f"up to {rows:,} rows" if rows is not None else "rows"
        return (
            f"'{self._spec.table}', version {version}: {count} were deleted before they were answered: {why}. "
            "ML_PLATFORM_LAKE_RETENTION_DAYS says how long versions stay. To go on with what is left, answer into new "
            "topics and tables"
        )

    def lag(self) -> Mapping[int, PartitionLag]:
        """See `protocols.Source`."""
        self._look()
        waiting = len(self._buffer) + self._left + sum(one.rows for one in self._known)
        return {0: PartitionLag(self._position, self._position + 1 + waiting, waiting)}

    def close(self) -> None:
        """See `protocols.Source`; nothing is open."""


def json_lines(rows: pl.DataFrame, columns: Sequence[str]) -> list[bytes]:
    """Each row as a JSON object; instants have their offset, bytes and numbers that are not finite are null."""
    decimals = [name for name in columns if isinstance(rows.schema[name], pl.Decimal)]
    binary = [name for name in columns if rows.schema[name] == pl.Binary()]
    rows = rows.select(columns).with_columns(
        *(pl.col(name).cast(pl.Float64) for name in decimals), *(pl.lit(None).alias(name) for name in binary)
    )
    return rows.write_ndjson().encode().splitlines() if rows.height else []
