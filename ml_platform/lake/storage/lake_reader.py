"""Reads versioned tables: what there is, and the rows of any version or instant."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.exceptions import TableNotFoundError as DeltaTableNotFound

from ml_platform.lake.errors import TableNotFound, VersionGone, reaching
from ml_platform.lake.names import check_folder, check_table, is_table
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.app_transactions import deliveries
from ml_platform.lake.storage.snapshots import Snapshot, missing_files, scan, tables_below, version_at

if TYPE_CHECKING:
    import pyarrow.fs


class LakeReader:
    """The reading half of a lake: names, versions and rows of its tables.

    Parameters
    ----------
    uri, storage_options
        See `ml_platform.lake.storage.tables.Lake`.
    """

    def __init__(self, uri: str, storage_options: dict[str, str] | None = None) -> None:
        self.is_local = "://" not in uri
        self.uri = str(Path(uri).expanduser().resolve()) if self.is_local else uri.rstrip("/")
        if self.is_local:
            check_folder(self.uri)
        self.storage_options = storage_options

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
            If the table does not exist.
        LookupError
            If the table has no such version, did not exist at the instant, or files of it were deleted (`VersionGone`).
        ValueError
            If both are given, or an instant without time zone.
        """
        if version is not None and as_of is not None:
            raise ValueError(f"'{table}': version {version} and as_of {as_of} were both given; leave one out.")
        if as_of is not None:
            version = version_at(self.snapshot(table), table, as_of)
        try:
            with reaching(self.uri):
                opened = Snapshot(self.location(table), version=version, storage_options=self.storage_options)
        except (DeltaTableNotFound, DeltaError, OverflowError) as error:
            if not self.exists(table):
                raise TableNotFound(table, self.tables(), self.uri) from None
            if version is not None and not (newest := self.version(table)) >= version >= 0:
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
        """Whether the table has at least one commit."""
        with reaching(self.uri):
            return DeltaTable.is_deltatable(self.location(table), self.storage_options)

    def version(self, table: str) -> int:
        """Newest version of a table."""
        return self.snapshot(table).version()

    def versions(self, tables: Iterable[str], *, as_of: datetime | None = None) -> dict[str, int]:
        """Version of each table, the newest or as of an instant, for a reader that pins them."""
        return {table: self.snapshot(table, as_of=as_of).version() for table in tables}

    def tables(self) -> list[str]:
        """Names of all tables, sorted."""
        if self.is_local and not Path(self.uri).is_dir():
            return []  # opening a missing folder as a store would create it
        with reaching(self.uri):
            return sorted(filter(is_table, tables_below(self.store())))

    def schema(self, table: str) -> pl.Schema:
        """Columns and Polars types of a table's newest version."""
        return self.read(table).collect_schema()

    def read(self, table: str, *, version: int | None = None, as_of: datetime | None = None) -> pl.LazyFrame:
        """Scan a table lazily: its newest version, a given one, or the newest as of an instant.

        Raises
        ------
        TableNotFound, LookupError, ValueError
            See `snapshot`.
        """
        return scan(self.snapshot(table, version, as_of=as_of))

    def history(self, table: str, *, limit: int | None = None) -> pl.DataFrame:
        """Commits of a table, newest first: version, timestamp (UTC), operation, parameters, writer."""
        return commits.listed(self.snapshot(table), limit)

    def last_app_version(self, table: str, app: str) -> int | None:
        """Highest `app_transaction` number that an application committed to a table; None before its first."""
        return self.snapshot(table).transaction_version(app) if self.exists(table) else None

    def deliveries(self, table: str, version: int) -> dict[str, int]:
        """`last_app_version` of every application, as of a version of the table."""
        return deliveries(self.store(table), version)

    def _open(self, table: str) -> DeltaTable | None:
        return self.snapshot(table) if self.exists(table) else None
