"""A raw table as its owner declares it: where rows come from, their contract, and the days that it covers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta

import dataframely as dy
import polars as pl

from ml_platform.lake.contracts.protection_check import check_protection
from ml_platform.lake.contracts.schema_evolution import Evolution
from ml_platform.lake.ingestion.ingest import DayRange, IngestReport, Progress, ingest
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.protection import Protection


@dataclass(frozen=True)
class Calendar:
    """Days that a dated table covers: `first` to `last`, both included, in its `column`."""

    column: str
    first: date
    last: date


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """One source and its table.

    Attributes
    ----------
    name
        Table, `raw/<name>`.
    description
        What a row is.
    source
        Where the rows come from, in words; it is kept with quarantined rows.
    contract
        `dataframely` schema of the table.
    read
        `read(start, end)` gives the source's rows with `start` ≤ day < `end`, preferably as text; both are None for a
        table without calendar.
    raw_contract, transform
        Schema of the source's columns, and a function from them to the table's (see `ingestion.ingest`).
    calendar
        Days of a dated table, which is partitioned by day and replaced day by day; None: it is replaced as a whole.
    evolution
        What to do with columns that the table does not have yet: `reject` or `add_columns`.
    partition_by
        Partition columns of a table without calendar.
    owner
        Who owns the table under an access policy: an e-mail address, or `team:<group>`; nobody when empty.
    protection
        Row filter, masks and tags of columns, for an access policy.

    Raises
    ------
    ValueError
        If the filter or a mask does not fit the contract.
    """

    name: str
    description: str
    source: str
    contract: type[dy.Schema]
    read: Callable[[date | None, date | None], pl.DataFrame]
    raw_contract: type[dy.Schema] | None = None
    transform: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    calendar: Calendar | None = None
    evolution: Evolution = "reject"
    partition_by: tuple[str, ...] = ()
    owner: str = ""
    protection: Protection = field(default_factory=Protection)

    def __post_init__(self) -> None:
        if not self.protection.is_empty:
            try:
                check_protection(
                    self.protection, {name: column.dtype for name, column in self.contract.columns().items()}
                )
            except ValueError as error:
                raise ValueError(f"{self.name}: {error}") from error

    @property
    def table_partitions(self) -> tuple[str, ...]:
        """Partition columns of the table: the date column if it has a calendar."""
        return (self.calendar.column,) if self.calendar else self.partition_by

    def load(
        self,
        lake: Lake,
        start: date | None = None,
        end: date | None = None,
        *,
        progress: Progress = lambda _line: None,
    ) -> IngestReport:
        """Read the source's rows of `start` ≤ day < `end` (the whole calendar by default) and ingest them.

        Parameters
        ----------
        progress
            Called with a line of text before each slow step.

        Raises
        ------
        SchemaMismatch
            If the source's columns are not the contract's.
        EmptyInput
            If the source has no rows at all.
        ValueError
            If days are given for a table without calendar.
        """
        if self.calendar is None:
            if start is not None or end is not None:
                raise ValueError(f"'{self.name}' has no calendar: it is loaded as a whole, without days.")
            days = None
        else:
            first = start or self.calendar.first
            days = DayRange(self.calendar.column, first, end or self.calendar.last + timedelta(days=1))
        progress(f"reading {self.source}" + (f", {days}" if days else ""))
        return ingest(
            lake,
            self.name,
            self.contract,
            self.read(days.start, days.end) if days else self.read(None, None),
            source=self.source,
            days=days,
            raw_contract=self.raw_contract,
            transform=self.transform,
            partition_by=self.table_partitions,
            evolution=self.evolution,
            progress=progress,
        )
