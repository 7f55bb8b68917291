"""Maintenance of the tables: merges small files into large ones, and deletes files that no kept version needs."""

import math
import uuid
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from ml_platform.lake.errors import CommitConflict
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.tables import Lake

if TYPE_CHECKING:
    import pyarrow.fs

# A file that no commit names was left by a crashed writer, or a slow one is about to commit it. So only a vacuum whose
# retention is at least this long deletes such files.
_ORPHANS_AFTER = timedelta(days=1)
_TARGET = 100 * 1024 * 1024  # size in bytes of the files that compaction writes
_DELETIONS_AT_ONCE = 16  # a bucket answers each in some 20 ms
_CLAIM = "ml_platform.compaction"


@dataclass(frozen=True)
class TableUpkeep:
    """What maintenance did to one table.

    Attributes
    ----------
    files_merged, files_written
        Small files that compaction replaced, and the files it wrote for them.
    files_freed, bytes_freed
        Files that the vacuum deleted, and their size.
    versions_kept
        Pinned versions, which stay readable at any age.
    versions_lost
        Pinned versions that were already unreadable.
    version
        The table's version afterwards.
    busy
        Why compaction was put off: other writers won every try. None when it was done.
    """

    table: str
    files_merged: int
    files_written: int
    files_freed: int
    bytes_freed: int
    versions_kept: tuple[int, ...]
    versions_lost: tuple[int, ...]
    version: int
    busy: str | None = None


def maintain(
    lake: Lake,
    *,
    retention: timedelta,
    keep: Mapping[str, Collection[int]] | None = None,
    tables: Iterable[str] | None = None,
) -> list[TableUpkeep]:
    """Compact and vacuum tables; others may read and write them meanwhile.

    Parameters
    ----------
    lake
        The tables.
    retention
        How long a version stays readable after it was replaced.
    keep
        Table → versions that stay readable for ever, e.g. those that a released model was trained on.
    tables
        Tables to maintain; all when None.

    Examples
    --------
    >>> import tempfile, polars as pl
    >>> lake = Lake(tempfile.mkdtemp())
    >>> for _ in range(3):
    ...     _ = lake.append("raw/readings", pl.DataFrame({"value": [1.0]}))
    >>> (done,) = maintain(lake, retention=timedelta(0), keep={"raw/readings": [0]})
    >>> done.files_merged, done.files_written, done.files_freed, done.versions_kept
    (3, 1, 2, (0,))
    >>> lake.read("raw/readings").collect().height, lake.read("raw/readings", version=0).collect().height
    (3, 1)
    """
    done = []
    for table in lake.tables() if tables is None else tables:
        pinned = sorted(set((keep or {}).get(table, ())))
        lost = [version for version in pinned if not _readable(lake, table, version)]
        readable = [version for version in pinned if version not in lost]
        merged = written = freed = size = 0
        busy = None
        try:
            merged, written = compact(lake, table)
        except CommitConflict as error:
            busy = str(error)
        freed, size = vacuum(lake, table, retention=retention, keep=readable)
        done.append(
            TableUpkeep(table, merged, written, freed, size, tuple(readable), tuple(lost), lake.version(table), busy)
        )
    return done


def compact(lake: Lake, table: str) -> tuple[int, int]:
    """Merge a table's small files, partition by partition; return how many were merged and how many written.

    Raises
    ------
    CommitConflict
        If writers who merge or replace rows, in whichever partition, won every try.
    """

    def attempt() -> tuple[int, int]:
        if not _has_small_files(lake.snapshot(table)):
            return 0, 0
        metrics = _claimed(lake, table).optimize.compact(
            target_size=_TARGET, commit_properties=commits.properties(), post_commithook_properties=commits.HOOKS
        )
        return metrics["numFilesRemoved"], metrics["numFilesAdded"]

    return lake.retried(table, "compact", attempt)


def vacuum(lake: Lake, table: str, *, retention: timedelta, keep: Collection[int] = ()) -> tuple[int, int]:
    """Delete files that were replaced longer ago than `retention`, in begun hours, and belong to no version in `keep`.

    With a retention of a day or more, files that crashed writers left behind are deleted too once they are that old.

    Delta plans what goes and the files are deleted here, because Delta's own vacuum makes a commit, and that loses to
    every merge or replacement beside it: a table that a stream merges into without a pause would never be freed.

    Returns
    -------
    tuple[int, int]
        Files deleted, and their bytes.

    Raises
    ------
    LookupError
        If a version to keep does not exist or is already unreadable.
    """
    for version in keep:
        lake.snapshot(table, version)
    doomed = lake.snapshot(table).vacuum(
        retention_hours=math.ceil(retention / timedelta(hours=1)),  # never shorter than promised
        dry_run=True,
        enforce_retention_duration=False,
        full=retention >= _ORPHANS_AFTER,
        keep_versions=sorted(keep) or None,
    )
    if doomed:
        lake.sync(table)  # what compaction made of these files must survive a power cut that they do not
    store = lake.store(table)
    with ThreadPoolExecutor(_DELETIONS_AT_ONCE) as pool:
        freed = [size for size in pool.map(partial(_delete, store), doomed) if size is not None]
    return len(freed), sum(freed)


def _delete(store: "pyarrow.fs.FileSystem", path: str) -> int | None:
    """Delete a file; return its size in bytes, None if another vacuum was faster."""
    (info,) = store.get_file_info([path])
    try:
        store.delete_file(path)
    except FileNotFoundError:
        return None
    return info.size


def _claimed(lake: Lake, table: str) -> DeltaTable:
    """Open a table for a compaction that fails if another one begins before it is committed.

    Delta would accept two compactions of the same files, and the table would have their rows twice. But it refuses a
    commit based on a version from before a change of the table's properties. So each compaction first makes such a
    change, and starts from the version with its own.
    """
    snapshot, claim = lake.snapshot(table), uuid.uuid4().hex
    snapshot.alter.set_table_properties(
        {_CLAIM: claim},
        raise_if_not_exists=False,
        commit_properties=commits.properties(),
        post_commithook_properties=commits.HOOKS,
    )
    if snapshot.metadata().configuration.get(_CLAIM) != claim:
        raise CommitFailedError(f"Another compaction of '{table}' has begun.")
    return snapshot


def _has_small_files(snapshot: DeltaTable) -> bool:
    """Whether a partition has two files that fit into one."""
    files = pl.DataFrame(snapshot.get_add_actions(flatten=True))
    partitions = [name for name in files.columns if name.startswith("partition.")]
    smallest_two = pl.col("size_bytes").bottom_k(2).sum()
    of_each = files.group_by(partitions or pl.lit(0)).agg(pl.len(), smallest_two)
    return not of_each.filter((pl.col("len") > 1) & (pl.col("size_bytes") <= _TARGET)).is_empty()


def _readable(lake: Lake, table: str, version: int) -> bool:
    try:
        lake.snapshot(table, version)
    except LookupError:
        return False
    return True
