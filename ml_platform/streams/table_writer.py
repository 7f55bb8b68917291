"""Appends rows to a Delta table, with the positions of what they were made from in the same commit: none is twice."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from ml_platform.lake.errors import CommitConflict, SchemaMismatch
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.maintenance import compact
from ml_platform.lake.storage.tables import Lake
from ml_platform.lake.storage.type_mapping import storable
from ml_platform.streams.protocols import Fenced, StreamMisfit, StreamUnavailable

T = TypeVar("T")
COMPACT_EVERY = 100  # commits: the cost of one grows with the table's files
# Statistics of the first columns alone (partition, position and two instants): those of all double a commit's cost.
_PROPERTIES = {"delta.dataSkippingNumIndexedCols": "4"}
_NOBODY = -1
logger = logging.getLogger("streams")


class TableWriter:
    """One writer of a table, for some partitions of what it is made from.

    The number of a partition's last position is committed with the rows as the number of an application of Delta, which
    refuses a commit that another one of the same application has overtaken.

    Parameters
    ----------
    lake, table
        Where the rows go; the table is made with the first of them.
    application
        Name of what is written: two streams may write one table.
    """

    def __init__(self, lake: Lake, table: str, application: str) -> None:
        self.table = table
        self._lake, self._application = lake, application
        self._target: DeltaTable | None = None
        self._positions: dict[int, int] = {}
        self._owner = _NOBODY  # until somebody takes over, also where there is no table yet
        self._commits = 0

    def open(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Take over partitions; gives the last position of each that is in the table, -1 without any.

        A writer that had them before gets `Fenced` at its next commit.

        Raises
        ------
        StreamUnavailable
            When the table cannot be read or written now.
        """
        self._owner = _NOBODY

        def claim() -> dict[int, int]:
            self._refresh()
            positions = {partition: self._stored(self._position_id(partition)) for partition in partitions}
            if self._target is not None and partitions:
                owner = time.time_ns()
                numbers = [(self._position_id(number), place) for number, place in positions.items() if place >= 0]
                numbers += [(self._owner_id(number), owner) for number in partitions]
                self._write(self._empty(), numbers)
                self._owner = owner
            return positions

        self._positions = self._retried("open", claim)
        return dict(self._positions)

    def commit(self, rows: pl.DataFrame | None, ends: Mapping[int, int]) -> None:
        """Append rows in one commit, together with the position that each partition has reached by them.

        Without rows only the positions are kept, if there is a table yet.

        Raises
        ------
        Fenced
            When another writer has taken over a partition.
        StreamMisfit
            When the table has other columns or types.
        StreamUnavailable
            When the commit failed, or may have failed: this writer is not to be used again.
        """
        wanted = None if rows is None else storable(rows, self.table)

        def attempt() -> None:
            self._refresh()
            if self._target is None and wanted is None:
                return
            stored = {partition: self._stored(self._position_id(partition)) for partition in ends}
            owners = {partition: self._stored(self._owner_id(partition)) for partition in ends}
            is_owner = all(owner == self._owner for owner in owners.values())
            if not is_owner or any(stored[partition] != self._positions[partition] for partition in ends):
                raise Fenced(f"table '{self.table}': another process has taken over partitions {sorted(ends)}")
            self._write(
                self._empty() if wanted is None else wanted,
                [(self._position_id(partition), end) for partition, end in ends.items()],
            )

        self._retried("append to", attempt)
        if self._target is None and wanted is None:
            return
        self._positions.update(ends)
        self._commits += 1
        if self._commits % COMPACT_EVERY == 0:
            self._compact()

    def read(self) -> pl.LazyFrame | None:
        """The rows of the table; None while there is none."""
        return self._lake.read(self.table) if self._lake.exists(self.table) else None

    def _write(self, rows: pl.DataFrame, numbers: Sequence[tuple[str, int]]) -> None:
        self._lake.write(
            self._target,
            self.table,
            rows,
            (),
            False,
            mode="append",
            app_transactions=numbers,
            configuration=_PROPERTIES,
        )

    def _refresh(self) -> None:
        """See the table as it is now; only what is new in its log is read."""
        if self._target is not None:
            self._target.update_incremental()
        elif self._lake.exists(self.table):
            self._target = self._lake.snapshot(self.table)

    def _empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self._lake.read(self.table).collect_schema())

    def _stored(self, application: str) -> int:
        """The last number of an application; -1 without one, or when the table was restored to before it."""
        number = None if self._target is None else self._target.transaction_version(application)
        return -1 if number is None else max(number, -1)

    def _position_id(self, partition: int) -> str:
        return f"{self._application}/{partition}"

    def _owner_id(self, partition: int) -> str:
        return f"{self._application}/{partition}/owner"

    def _retried(self, operation: str, attempt: Callable[[], T]) -> T:
        try:
            return commits.retried(self.table, operation, attempt, newest=lambda: self._target)
        except SchemaMismatch as error:
            raise StreamMisfit(f"{error} Answer into a table of another name") from error
        except (DeltaError, CommitConflict, OSError) as error:
            raise StreamUnavailable(f"table '{self.table}' cannot be written: {error}") from error

    def _compact(self) -> None:
        """Merge the small files of the commits; another time if others are at it."""
        try:
            compact(self._lake, self.table)
        except (DeltaError, CommitConflict, OSError) as error:
            logger.warning("table '%s' is compacted later: %s", self.table, error)
