"""What one version of a Delta table added to it, read from the table's own log.

The log names, version by version, the files that came and those that went. Of a table that keeps a change feed it also
names files with the changed rows. So no state is kept anywhere, and the same version gives the same rows in the same
order, which a query engine over the change feed does not promise.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from ml_platform.lake.storage.lake_reader import LakeReader
from ml_platform.lake.storage.snapshots import needs_delta_reader
from ml_platform.streams.protocols import StreamMisfit

CHANGE_TYPE = "_change_type"
_NEW = ("insert", "update_postimage")
_ENABLE = "set its property delta.enableChangeDataFeed to true before rows are changed"


class AddedFile(msgspec.Struct, frozen=True):
    """A file with rows that are new in a version.

    `path` is below the table; `partition` has the values of the table's partition columns, as the log writes them.
    `rows` is None where the log does not say. In a file of the change feed only some rows are new.
    """

    path: str
    partition: Mapping[str, str | None]
    rows: int | None
    is_feed: bool = False


class Commit(msgspec.Struct, frozen=True):
    """One version: when it was made, in microseconds since 1970, and its files with new rows."""

    version: int
    time: int
    files: Sequence[AddedFile]

    @property
    def rows(self) -> int:
        """How many rows its files have, as far as the log says."""
        return sum(one.rows or 0 for one in self.files)


def read_commit(lake: LakeReader, table: str, version: int) -> Commit | None:
    """Read what a version added; None where it does not exist yet.

    Raises
    ------
    StreamMisfit
        When it changed rows and the table keeps no change feed.
    """
    content = _log_file(lake, table, version)
    if content is None:
        return None
    actions = [msgspec.json.decode(line) for line in content.splitlines() if line.strip()]
    adds = [one["add"] for one in actions if one.get("add", {}).get("dataChange")]
    removes = [one["remove"] for one in actions if one.get("remove", {}).get("dataChange")]
    feed = [one["cdc"] for one in actions if "cdc" in one]
    info: dict[str, Any] = next((one["commitInfo"] for one in actions if "commitInfo" in one), {})
    time = info.get("inCommitTimestamp") or info.get("timestamp")
    if time is None:
        time = max((one.get("modificationTime", 0) for one in adds), default=0)
    if feed:
        return Commit(version, time * 1000, [_added(one, is_feed=True) for one in feed])
    replaces_all = info.get("operation") == "WRITE" and not info.get("operationParameters", {}).get("predicate")
    if adds and removes and not replaces_all:
        operation = str(info.get("operation", "a writer")).lower()
        raise StreamMisfit(
            f"version {version} of '{table}' changed rows ({operation}), and the table kept no change feed then: which "
            f"rows are new cannot be said. For the next time {_ENABLE}; to go on now, answer into new topics and tables"
        )
    if any(one.get("deletionVector") for one in adds):
        raise StreamMisfit(f"version {version} of '{table}' has deletion vectors, which streams do not read")
    return Commit(version, time * 1000, [_added(one) for one in adds])


def read_snapshot(lake: LakeReader, table: str, version: int) -> Commit:
    """All rows of a version, as if it had added them.

    Raises
    ------
    StreamMisfit
        When it needs more than its Parquet files to be read.
    LookupError
        When its files were vacuumed.
    """
    snapshot = lake.snapshot(table, version)
    if needs_delta_reader(snapshot):
        raise StreamMisfit(f"'{table}' has deletion vectors or mapped columns, which streams do not read")
    commit = read_commit_time(lake, table, version)
    listed = pl.DataFrame(snapshot.get_add_actions(flatten=False)).sort("path")
    files = []
    for row in listed.iter_rows(named=True):
        partition = row.get("partition") or row.get("partition_values") or {}
        values = {name: None if value is None else str(value) for name, value in partition.items()}
        files.append(AddedFile(unquote(row["path"]), values, row.get("num_records")))
    return Commit(version, commit, files)


def read_commit_total(lake: LakeReader, table: str, version: int) -> int | None:
    """How many rows a version had, though its files may be gone; None where the log does not say."""
    try:
        snapshot = DeltaTable(lake.location(table), version=version, storage_options=lake.storage_options)
        counts = pl.DataFrame(snapshot.get_add_actions(flatten=False)).get_column("num_records", default=None)
    except DeltaError:
        return None
    return None if counts is None or counts.null_count() else int(counts.sum())


def read_commit_time(lake: LakeReader, table: str, version: int) -> int:
    """When a version was made, in microseconds since 1970; 0 where its commit is no longer in the log."""
    content = _log_file(lake, table, version)
    for line in (content or b"").splitlines():
        if b'"commitInfo"' in line:
            info = msgspec.json.decode(line)["commitInfo"]
            return int(info.get("inCommitTimestamp") or info.get("timestamp") or 0) * 1000
    return 0


def read_rows(
    lake: LakeReader, table: str, file: AddedFile, types: Mapping[str, pl.DataType], *, first: int, most: int
) -> pl.DataFrame:
    """Read rows of a file by their places in it; partition columns are among the columns.

    Raises
    ------
    FileNotFoundError
        When the file was vacuumed.
    """
    where = f"{lake.location(table)}/{file.path}"
    rows = pl.scan_parquet(where, storage_options=lake.storage_options, glob=False).slice(first, most).collect()
    return rows.with_columns(
        _partition_value(value, types.get(name, pl.String())).alias(name) for name, value in file.partition.items()
    )


def _partition_value(text: str | None, kind: pl.DataType) -> pl.Expr:
    """The value of a partition column, which the log writes as text."""
    value = pl.lit(text, dtype=pl.String)
    if text is None or kind == pl.String():
        return value
    if kind == pl.Boolean():
        return value == "true"
    if isinstance(kind, pl.Datetime):
        return value.str.to_datetime(time_zone=kind.time_zone)
    return value.str.to_date() if kind == pl.Date() else value.cast(kind)


def new_rows(rows: pl.DataFrame) -> pl.Series:
    """Which rows of a file are new: all, but in the change feed those that were inserted or have their new values."""
    if CHANGE_TYPE in rows.columns:
        return rows[CHANGE_TYPE].is_in(_NEW)
    return pl.Series([True]).new_from_index(0, rows.height)


def _added(action: Mapping[str, Any], *, is_feed: bool = False) -> AddedFile:
    stats = msgspec.json.decode(action["stats"]) if action.get("stats") else {}
    return AddedFile(unquote(action["path"]), action.get("partitionValues") or {}, stats.get("numRecords"), is_feed)


def _log_file(lake: LakeReader, table: str, version: int) -> bytes | None:
    name = f"{version:020d}.json"
    if lake.is_local:
        try:
            with open(f"{lake.location(table)}/_delta_log/{name}", "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
    try:
        with lake.store(table).open_input_file(f"_delta_log/{name}") as opened:
            return bytes(opened.read())
    except FileNotFoundError:
        return None
