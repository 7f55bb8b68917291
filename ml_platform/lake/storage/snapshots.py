"""Reads one version of a Delta table, by the reader that the table's features need."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from ml_platform.lake.errors import NotYetCreated
from ml_platform.lake.storage.app_transactions import LOG_FOLDER, NEVER

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs

_FIRST_LOOK = 64  # commits; most questions are about recent ones, and a log can be long


class Snapshot(DeltaTable):
    """A version of a table, with usable paths of local files, and without deliveries that a restore removed.

    Delta returns the table's folder percent-encoded (`my%20lake`), so that Polars and DuckDB would not find the files.
    """

    def file_uris(self, *filters: Any, **more: Any) -> list[str]:
        """Paths or URIs of the files."""
        uris, folder = super().file_uris(*filters, **more), self.table_uri.removeprefix("file://")
        if folder == self.table_uri or "%" not in folder:
            return uris
        return [unquote(folder) + uri.removeprefix(folder) for uri in uris]

    def transaction_version(self, app_id: str) -> int | None:
        """Highest number that an application committed; None before its first."""
        number = super().transaction_version(app_id)
        return None if number == NEVER else number


def scan(snapshot: DeltaTable) -> pl.LazyFrame:
    """Scan a snapshot lazily; if its Parquet files are not enough, Delta's own reader reads it into memory."""
    if not needs_delta_reader(snapshot):
        return pl.scan_delta(snapshot)
    return pl.DataFrame(read_arrow(snapshot)).lazy()


def read_arrow(snapshot: DeltaTable) -> "pa.Table":
    """Read a whole snapshot into memory through Delta's own reader, in the schema's column order."""
    import pyarrow as pa

    rows = pa.table(snapshot.scan().read_all())
    return rows.select([field.name for field in snapshot.schema().fields])


def needs_delta_reader(snapshot: DeltaTable) -> bool:
    """Whether the Parquet files alone do not give the table's rows: deletion vectors or mapped column names."""
    features = set(snapshot.protocol().reader_features or ())
    mapped = snapshot.metadata().configuration.get("delta.columnMapping.mode", "none") != "none"
    return mapped or bool(features & {"deletionVectors", "columnMapping"})


def files_are_alike(snapshot: DeltaTable) -> bool:
    """Whether every file certainly has every column except the partitions.

    This is read from the statistics in the log, which list a column of a file only if the file has it, because opening
    the files would cost more than many queries. False when the statistics do not say: for columns past the first 32,
    for structs, and when a column changed its type.
    """
    if "typeWidening" in set(snapshot.protocol().reader_features or ()):
        return False
    partitions = set(snapshot.metadata().partition_columns)
    listed = snapshot.get_add_actions(flatten=True)
    counts = [f"null_count.{field.name}" for field in snapshot.schema().fields if field.name not in partitions]
    return all(name in listed.schema.names and not listed.column(name).null_count for name in counts)


def instant(text: str) -> datetime:
    """Read a date or timestamp, in UTC if it has no time zone.

    Raises
    ------
    ValueError
        If it is not a date or timestamp in ISO 8601.

    Examples
    --------
    >>> instant("2013-06-01").isoformat(), instant("2013-06-01T12:00+02:00").isoformat()
    ('2013-06-01T00:00:00+00:00', '2013-06-01T12:00:00+02:00')
    """
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"A date or time was wanted, like 2024-06-01 or 2024-06-01T12:00Z; got '{text}'.") from None
    return read if read.tzinfo is not None else read.replace(tzinfo=UTC)


def version_at(snapshot: DeltaTable, table: str, as_of: datetime) -> int:
    """Find the version of a table that was the newest at an instant.

    Raises
    ------
    ValueError
        If the instant has no time zone.
    NotYetCreated
        If the table did not exist yet.
    """
    if as_of.tzinfo is None:
        raise ValueError(f"as_of wants an instant with time zone, got {as_of}; e.g. datetime(2013, 6, 1, tzinfo=UTC).")
    milliseconds = as_of.timestamp() * 1000
    limit = _FIRST_LOOK
    while True:
        commits = snapshot.history(limit)
        for commit in commits:
            if commit["timestamp"] <= milliseconds:
                return int(commit["version"])
        if len(commits) < limit:
            raise NotYetCreated(table, as_of, datetime.fromtimestamp(commits[-1]["timestamp"] / 1000, UTC))
        limit *= 8


def missing_files(snapshot: DeltaTable, store: "pyarrow.fs.FileSystem") -> int:
    """Count a snapshot's files that no longer exist; `store` is rooted at the table."""
    import pyarrow.fs

    files = snapshot.file_uris()
    if "://" not in snapshot.table_uri or snapshot.table_uri.startswith("file://"):
        return sum(not os.path.exists(file) for file in files)
    root = snapshot.table_uri.rstrip("/") + "/"
    infos = store.get_file_info([file.removeprefix(root) for file in files]) if files else []
    return sum(info.type == pyarrow.fs.FileType.NotFound for info in infos)


def tables_below(store: "pyarrow.fs.FileSystem", folder: str = "") -> Iterator[str]:
    """Yield the folders that hold a Delta log, without looking inside tables."""
    import pyarrow.fs

    selector = pyarrow.fs.FileSelector(folder, recursive=False, allow_not_found=True)
    folders = [info.path for info in store.get_file_info(selector) if info.type == pyarrow.fs.FileType.Directory]
    names = {path.rstrip("/").rsplit("/", 1)[-1]: path.strip("/") for path in folders}
    if LOG_FOLDER in names:
        yield folder
        return
    for path in names.values():
        yield from tables_below(store, path)


def constraints(snapshot: DeltaTable) -> dict[str, str]:
    """Constraints of a table by name, as SQL."""
    prefix = "delta.constraints."
    properties = snapshot.metadata().configuration
    return {name.removeprefix(prefix): text for name, text in properties.items() if name.startswith(prefix)}


def why_refused(table: str, target: DeltaTable | None, where: str | None, error: DeltaError) -> str:
    """Explain why Delta refused rows: by the predicate, or by a constraint of the table."""
    rules = constraints(target).values() if target is not None else ()
    causes = []
    if where:
        causes.append(f"do not all match the predicate {where}: filter them to the range that is being replaced")
    if rules:
        causes.append(f"break a constraint of the table: {'; '.join(rules)}")
    return f"Rows given to '{table}' {', or '.join(causes)}. {error}"
