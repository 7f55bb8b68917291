"""Versioned tables: Delta Lake in a local folder or an object store, written by many processes without a lock file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.app_transactions import restored_numbers
from ml_platform.lake.storage.batched_writes import write_stream, writer_properties
from ml_platform.lake.storage.durability import sync_table
from ml_platform.lake.storage.lake_reader import LakeReader
from ml_platform.lake.storage.snapshots import scan, why_refused
from ml_platform.lake.storage.suppression import without_suppressed
from ml_platform.lake.storage.type_mapping import as_arrow, conform, storable, untyped

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")


class Lake(LakeReader):
    """A folder of Delta tables, named `schema/name` (`raw/flights`).

    Every write is one atomic commit that makes a new version; every version stays readable. Several writers may write a
    table at the same time: a commit that loses the race is tried again, a bounded number of times.

    Parameters
    ----------
    uri
        Local folder or object-store URI (`s3://bucket/lake`).
    storage_options
        Credentials and endpoints of the object store, as `deltalake` takes them.
    guard
        Decides what the one who reads and writes may: columns that are not granted are absent, masked ones hold the
        mask's value, rows that a filter refuses do not exist. None: everything.
    reads
        Told of every read, for an audit.
    path
        How the tables are reached, for `reads`: `notebook`, `batch` …

    Examples
    --------
    >>> import tempfile
    >>> lake = Lake(tempfile.mkdtemp())
    >>> lake.append("raw/readings", pl.DataFrame({"sensor": ["a", "b"], "value": [1.0, 2.0]}))
    0
    >>> lake.replace("raw/readings", pl.DataFrame({"sensor": ["b"], "value": [3.0]}), where="sensor = 'b'")
    1
    >>> lake.read("raw/readings").sort("sensor").collect().rows()
    [('a', 1.0), ('b', 3.0)]
    >>> lake.read("raw/readings", version=0).collect().height, lake.versions(["raw/readings"])
    (2, {'raw/readings': 1})
    """

    def append(
        self,
        table: str,
        frame: pl.DataFrame | pl.LazyFrame,
        *,
        partition_by: Sequence[str] = (),
        app_transaction: tuple[str, int] | None = None,
        add_columns: bool = False,
    ) -> int:
        """Add rows to a table, which is created if necessary; return the version that has the rows.

        Parameters
        ----------
        table
            `schema/name`.
        frame
            Rows; columns in any order, with types that convert to the table's without loss.
        partition_by
            Partition columns, used when the table is created.
        app_transaction
            `(application, number)` with rising numbers, committed with the rows. A batch whose number was already
            committed is not appended again, which makes repeated delivery exactly-once.
        add_columns
            Add new columns to the table (null in old rows), and fill absent ones with null.

        Raises
        ------
        SchemaMismatch
            If columns or types do not fit the table.
        CommitConflict
            If other writers won every try.
        """
        rows = storable(frame, table)

        def attempt() -> int:
            target = self._open(table)
            if target is not None and app_transaction is not None:
                done = target.transaction_version(app_transaction[0])
                if done is not None and done >= app_transaction[1]:
                    return target.version()
            numbers = [app_transaction] if app_transaction else []
            return self.write(target, table, rows, partition_by, add_columns, mode="append", app_transactions=numbers)

        return self.retried(table, "append to", attempt)

    def replace(
        self,
        table: str,
        frame: pl.DataFrame | pl.LazyFrame,
        *,
        where: str | None = None,
        partition_by: Sequence[str] = (),
        add_columns: bool = False,
    ) -> int:
        """Replace the whole table, or the rows that match a Delta predicate; return the new version.

        Without `where` the table takes the frame's schema and, if given, `partition_by`. With it, the frame must fit
        the table (see `append`) and every row must match the predicate, so that a repeated call never duplicates a row.

        Raises
        ------
        ValueError
            If a row does not match `where`: the next replacement with that predicate would miss it.
        SchemaMismatch, CommitConflict
            See `append`.
        """
        rows = storable(frame, table)

        def attempt() -> int:
            target = self._open(table)
            if where is not None and target is None:
                # Delta checks the predicate only against an existing table: start with an empty one.
                self.write(None, table, rows.clear(), partition_by, add_columns, mode="append")
                target = self._open(table)
            return self.write(target, table, rows, partition_by, add_columns, mode="overwrite", where=where)

        return self.retried(table, "replace rows of", attempt)

    def replace_in_batches(
        self,
        table: str,
        batches: Callable[[], Iterable[pl.DataFrame]],
        *,
        where: str | None = None,
        partition_by: Sequence[str] = (),
        add_columns: bool = False,
    ) -> int:
        """Replace the whole table, or rows of it, by rows that are written while they are computed; return the version.

        Only a frame or two are held at a time. Rows keep their order within a frame, but frames may change theirs.

        Parameters
        ----------
        table, where, partition_by, add_columns
            See `replace`.
        batches
            Gives the rows, at least one frame; called again when the commit loses a race. If it raises, the table stays
            as it was.

        Raises
        ------
        SchemaMismatch
            If a frame has other columns or types than the first one.
        ValueError, CommitConflict
            See `replace`.
        """

        def attempt() -> int:
            target, rows = self._open(table), (self._storable(frame, table) for frame in batches())
            if where is not None:
                if target is None:  # as in `replace`
                    first = next(iter(batches()))
                    self.write(None, table, storable(first, table).clear(), partition_by, add_columns, mode="append")
                    target = self._open(table)
                assert target is not None
                schema = scan(target).collect_schema()
                rows = (conform(frame, schema, table, add_columns=add_columns) for frame in rows)
            return write_stream(
                rows,
                table,
                lambda stream: self.write(
                    target, table, stream, partition_by, add_columns, mode="overwrite", where=where
                ),
            )

        return self.retried(table, "replace rows of", attempt)

    def restore(self, table: str, version: int | None = None, *, as_of: datetime | None = None) -> int:
        """Make an old version, by number or as of an instant, the newest again; return the new version.

        This is a new commit: what was written since stays readable under its own versions. The numbers of
        `app_transaction` are restored as well, so that what was delivered since can be delivered again.

        Raises
        ------
        LookupError, ValueError
            See `snapshot`; also if neither argument is given.
        """
        if version is None and as_of is None:
            raise ValueError(f"Restoring '{table}' wants a version or an instant; `history` lists both.")
        self.check("modify", table)
        wanted = self._opened(table, version, as_of=as_of).version()

        def attempt() -> int:
            target = self._opened(table)
            if target.version() == wanted:
                return wanted
            undone = restored_numbers(self.deliveries(table, wanted), self.deliveries(table, target.version()))
            target.restore(
                wanted, commit_properties=commits.properties(*undone), post_commithook_properties=commits.HOOKS
            )
            return self._opened(table).version()

        return self.retried(table, "restore", attempt)

    def sync(self, table: str) -> None:
        """Force a table's newest version to disk; to be called before deleting what it was made from.

        Raises
        ------
        OSError
            When the disk refuses: nothing may be deleted then.
        """
        if self.is_local and self.exists(table):
            sync_table(self.snapshot(table), Path(self.location(table)), Path(self.uri))

    def retried(self, table: str, operation: str, attempt: Callable[[], T]) -> T:
        """Repeat a commit that lost a race (see `ml_platform.lake.storage.commits.retried`).

        Raises
        ------
        AccessDenied
            Where the guard does not grant `modify`.
        """
        self.check("modify", table)
        return commits.retried(table, operation, attempt, newest=lambda: self._open(table))

    def write(
        self,
        target: DeltaTable | None,
        table: str,
        rows: "pl.DataFrame | pyarrow.RecordBatchReader",
        partition_by: Sequence[str],
        add_columns: bool,
        *,
        mode: str,
        where: str | None = None,
        app_transactions: Sequence[tuple[str, int]] = (),
        configuration: Mapping[str, str] | None = None,
    ) -> int:
        """Try once to commit rows to an opened table (None: it did not exist); see `append` for the arguments.

        Parameters
        ----------
        mode
            "append" or "overwrite".
        where
            Predicate of the rows to overwrite; the whole table when None.
        configuration
            Properties of the table, when it is created.
        """
        self.check("modify", table)
        if isinstance(rows, pl.DataFrame):
            rows = without_suppressed(self, table, rows)
        whole = mode == "overwrite" and where is None
        if target is not None and isinstance(rows, pl.DataFrame) and not whole:
            rows = conform(rows, scan(target).collect_schema(), table, add_columns=add_columns)
        elif isinstance(rows, pl.DataFrame) and (empty := untyped(rows)):
            raise SchemaMismatch(
                f"Table '{table}'",
                [f"column '{name}' is null in every row and has no type" for name in empty],
                "Cast it to the type that its values will have, or leave it out.",
            )
        partitions = list(target.metadata().partition_columns) if target is not None else list(partition_by)
        if whole and partition_by:
            partitions = list(partition_by)
        try:
            write_deltalake(  # type: ignore[call-overload, misc]  # its overloads take literals only
                target if target is not None else self.location(table),
                as_arrow(rows) if isinstance(rows, pl.DataFrame) else rows,
                mode=mode if target is not None else "error",  # another writer may create it first
                partition_by=partitions or None,
                schema_mode=None if target is None else "overwrite" if whole else "merge" if add_columns else None,
                predicate=where,
                configuration=configuration if target is None else None,
                storage_options=None if target is not None else self.storage_options,
                writer_properties=None if isinstance(rows, pl.DataFrame) else writer_properties(rows),
                commit_properties=commits.properties(*app_transactions, rebased=target is not None and not whole),
                post_commithook_properties=commits.HOOKS,
            )
        except DeltaError as error:
            if commits.is_violation(error):
                raise ValueError(why_refused(table, target, where, error)) from error
            raise
        return target.version() if target is not None else self._opened(table).version()

    def _storable(self, frame: pl.DataFrame, table: str) -> pl.DataFrame:
        return without_suppressed(self, table, storable(frame, table))
