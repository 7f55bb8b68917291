"""Reads versioned tables: what there is, and the rows of any version or instant, as far as a guard grants them."""

import copy
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.exceptions import TableNotFoundError as DeltaTableNotFound

from ml_platform.lake.access import (
    OPEN,
    AccessDenied,
    Guard,
    Reads,
    TableAccess,
    TableRead,
    base_table,
    object_name,
    rows_of_base,
)
from ml_platform.lake.errors import TableNotFound, VersionGone, reaching
from ml_platform.lake.names import check_folder, check_table, is_table
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.app_transactions import deliveries
from ml_platform.lake.storage.relations import applying, scan_granted
from ml_platform.lake.storage.snapshots import Snapshot, missing_files, scan, tables_below, version_at

if TYPE_CHECKING:
    import pyarrow.fs


class LakeReader:
    """The reading half of a lake: names, versions and rows of its tables.

    Parameters
    ----------
    uri, storage_options, guard, reads, path
        See `ml_platform.lake.storage.tables.Lake`.
    """

    def __init__(
        self,
        uri: str,
        storage_options: dict[str, str] | None = None,
        *,
        guard: Guard | None = None,
        reads: Reads | None = None,
        path: str = "python",
    ) -> None:
        self.is_local = "://" not in uri
        self.uri = str(Path(uri).expanduser().resolve()) if self.is_local else uri.rstrip("/")
        if self.is_local:
            check_folder(self.uri)
        self.storage_options = storage_options
        self.guard, self.reads, self.path = guard, reads, path

    @property
    def principal(self) -> str:
        """Who reads."""
        return OPEN if self.guard is None else self.guard.principal

    def without_guard(self) -> Self:
        """The same lake as the platform itself reads it, for code that enforces what a guard grants, or needs all."""
        twin = copy.copy(self)
        twin.guard = twin.reads = None
        return twin

    def without_reads(self) -> Self:
        """The same lake, of whose reads nobody is told, for a read that was told already."""
        twin = copy.copy(self)
        twin.reads = None
        return twin

    def location(self, table: str) -> str:
        """Folder or URI of a table (raises ValueError for an invalid name)."""
        check_table(table)
        return f"{self.uri}/{table}"

    def snapshot(self, table: str, version: int | None = None, *, as_of: datetime | None = None) -> DeltaTable:
        """Open a table at a version or as of an instant; by default the newest version.

        Raises
        ------
        TableNotFound
            If the table does not exist, or the guard's principal may not know of it.
        LookupError
            If the table has no such version, did not exist at the instant, or files of it were deleted (`VersionGone`).
        ValueError
            If both are given, or an instant without time zone.
        AccessDenied
            If the guard does not grant all columns and rows as they are: whoever has a snapshot has the files.
        """
        opened, access = self.open_granted(table, version, as_of=as_of)
        if not access.is_whole:
            raise self._not_whole(table)
        return opened

    def open_granted(
        self, table: str, version: int | None = None, *, as_of: datetime | None = None
    ) -> tuple[DeltaTable, TableAccess]:
        """Open a table like `snapshot`, with what the guard grants of it, for code that enforces that.

        Raises
        ------
        AccessDenied
            If nothing of the table is granted.
        """
        self._check_browse(table)
        opened = self._opened(table, version, as_of=as_of)
        try:
            return opened, self._access(table, [field.name for field in opened.schema().fields])
        except AccessDenied:
            self.record_read(table, None, (), 0, is_refused=True)
            raise

    def check_whole(self, table: str) -> None:
        """Refuse unless the guard grants a whole table, for what quotes its values (raises as `open_granted`)."""
        self.snapshot(table)

    def check(self, privilege: str, table: str) -> None:
        """Refuse unless the guard grants a privilege on a table, e.g. `modify` (raises AccessDenied)."""
        if self.guard is not None:
            self.guard.check(privilege, object_name(base_table(table) or table))

    def record_read(
        self,
        table: str,
        version: int | None,
        columns: Sequence[str],
        rows: int | None,
        path: str | None = None,
        *,
        is_refused: bool = False,
    ) -> None:
        """Tell who keeps account of reads of one; nothing where nobody does."""
        if self.reads is not None:
            self.reads(TableRead(self.principal, table, version, tuple(columns), rows, path or self.path, is_refused))

    def _access(self, table: str, columns: Sequence[str]) -> TableAccess:
        """What the guard grants: of rows that quote another table's, nothing unless that one is granted whole."""
        if self.guard is None:
            return TableAccess()
        access = self.guard.access(table, columns)
        if access.columns is not None and not any(name in access.columns for name in columns):
            raise AccessDenied(
                self.principal, "select", object_name(table), "No column that is granted is in this version."
            )
        if (base := base_table(table)) is None:
            return access
        of_base = self._opened(base) if self._is_table(base) else None
        names = [field.name for field in of_base.schema().fields] if of_base is not None else []
        if not self.guard.access(base, names).is_whole:
            raise AccessDenied(
                self.principal,
                "select",
                object_name(table),
                f"It quotes rows of {object_name(base)} as they are, which is granted with masks, filters or some "
                "columns only.",
            )
        return access

    def _not_whole(self, table: str) -> AccessDenied:
        return AccessDenied(
            self.principal,
            "select",
            object_name(table),
            "Some columns, rows or values of it are not granted, so its files are not given: read it by SQL or "
            "`Lake.read`.",
        )

    def _browses(self, table: str) -> bool:
        if self.guard is None:
            return True
        return self.guard.browses(table if (base := rows_of_base(table)) is None else base)

    def _check_browse(self, table: str) -> None:
        """Say of a table that the principal may not know of what is said of one that does not exist."""
        if not self._browses(table):
            self.location(table)  # an invalid name is told first, as of any
            self.record_read(table, None, (), 0, is_refused=True)
            raise TableNotFound(table, self.tables(), self.uri)

    def _is_table(self, table: str) -> bool:
        with reaching(self.uri):
            return DeltaTable.is_deltatable(self.location(table), self.storage_options)

    def _opened(self, table: str, version: int | None = None, *, as_of: datetime | None = None) -> DeltaTable:
        if version is not None and as_of is not None:
            raise ValueError(f"'{table}': version {version} and as_of {as_of} were both given; leave one out.")
        if as_of is not None:
            version = version_at(self._opened(table), table, as_of)
        try:
            with reaching(self.uri):
                opened = Snapshot(self.location(table), version=version, storage_options=self.storage_options)
        except (DeltaTableNotFound, DeltaError, OverflowError) as error:
            if not self._is_table(table):
                raise TableNotFound(table, self.tables(), self.uri) from None
            if version is not None and not (newest := self._opened(table).version()) >= version >= 0:
                raise LookupError(f"'{table}' has versions 0 to {newest}, version {version} was asked for.") from error
            raise
        if version is not None and (missing := missing_files(opened, self.store(table))):
            raise VersionGone(table, version, missing, len(opened.file_uris()))
        return opened

    def store(self, folder: str = "") -> "pyarrow.fs.FileSystem":
        """File system rooted at the lake, or at a folder of it."""
        import pyarrow.fs
        from deltalake.fs import DeltaStorageHandler

        root = f"{self.uri}/{folder}" if folder else self.uri
        return pyarrow.fs.PyFileSystem(DeltaStorageHandler(root, self.storage_options))

    def exists(self, table: str) -> bool:
        """Whether the table has at least one commit, and the guard's principal may know of it."""
        self.location(table)
        return self._browses(table) and self._is_table(table)

    def version(self, table: str) -> int:
        """Newest version of a table."""
        self._check_browse(table)
        return self._opened(table).version()

    def versions(self, tables: Iterable[str], *, as_of: datetime | None = None) -> dict[str, int]:
        """Version of each table, the newest or as of an instant, for a reader that pins them."""
        pinned = {}
        for table in tables:
            self._check_browse(table)
            pinned[table] = self._opened(table, as_of=as_of).version()
        return pinned

    def tables(self) -> list[str]:
        """Names of all tables that the guard's principal may know of, sorted."""
        if self.is_local and not Path(self.uri).is_dir():
            return []  # opening a missing folder as a store would create it
        with reaching(self.uri):
            return sorted(name for name in tables_below(self.store()) if is_table(name) and self._browses(name))

    def schema(self, table: str) -> pl.Schema:
        """Columns and Polars types of a table's newest version, as the guard grants them."""
        opened, access = self.open_granted(table)
        return self._scan(table, opened, access).collect_schema()

    def read(self, table: str, *, version: int | None = None, as_of: datetime | None = None) -> pl.LazyFrame:
        """Scan a table lazily: its newest version, a given one, or the newest as of an instant.

        Raises
        ------
        TableNotFound, LookupError, ValueError
            See `snapshot`.
        AccessDenied
            If the guard grants nothing of the table.
        """
        opened, access = self.open_granted(table, version, as_of=as_of)
        rows = self._scan(table, opened, access)
        if self.reads is not None:
            self.record_read(table, opened.version(), rows.collect_schema().names(), None)
        return rows

    def _scan(self, table: str, opened: DeltaTable, access: TableAccess) -> pl.LazyFrame:
        if access.is_whole:
            return scan(opened)
        with applying(table, opened.version(), self.principal):
            return scan_granted(table, opened, access, is_local=self.is_local)

    def history(self, table: str, *, limit: int | None = None) -> pl.DataFrame:
        """Commits of a table, newest first: version, timestamp (UTC), operation, parameters, writer.

        Parameters are null where the guard does not grant the whole table: a predicate quotes values of rows.
        """
        opened, access = self.open_granted(table)
        listed = commits.listed(opened, limit)
        self.record_read(table, opened.version(), (), listed.height, "history")
        return listed if access.is_whole else listed.with_columns(parameters=pl.lit(None, pl.String))

    def last_app_version(self, table: str, app: str) -> int | None:
        """Highest `app_transaction` number that an application committed to a table; None before its first."""
        return self._opened(table).transaction_version(app) if self.exists(table) else None

    def deliveries(self, table: str, version: int) -> dict[str, int]:
        """`last_app_version` of every application, as of a version of the table."""
        self._check_browse(table)
        return deliveries(self.store(table), version)

    def _open(self, table: str) -> DeltaTable | None:
        """Open a table to be written (raises AccessDenied)."""
        self.check("modify", table)
        return self._opened(table) if self._is_table(table) else None
