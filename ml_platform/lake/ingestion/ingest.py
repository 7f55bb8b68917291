"""Writes a source's rows to a table: those that meet the contract; the others go to the quarantine, none is lost."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import dataframely as dy
import polars as pl

from ml_platform.lake.contracts.contract import ROW, Verdict, apply_contract
from ml_platform.lake.contracts.delta_constraints import loosen, tighten
from ml_platform.lake.contracts.schema_evolution import Evolution, fit, put_back, set_aside
from ml_platform.lake.ingestion.row_json import to_json
from ml_platform.lake.storage.tables import Lake

Progress = Callable[[str], None]
DAY = "ingest_day"  # optional column of a source: the day to which it assigns a row
QUARANTINE: dict[str, pl.DataType | type[pl.DataType]] = {
    "day": pl.Date,
    "source": pl.String,
    "source_row": pl.Int64,
    "reasons": pl.List(pl.String),
    "row": pl.String,
    "quarantined_at": pl.Datetime("us", "UTC"),
}


@dataclass(frozen=True)
class DayRange:
    """Days `start` ≤ day < `end` of a table's date column: the part of the table that an ingest replaces.

    Examples
    --------
    >>> DayRange("date", date(2013, 1, 1), date(2013, 1, 3)).where
    "date >= '2013-01-01' AND date < '2013-01-03'"
    """

    column: str
    start: date
    end: date

    def __post_init__(self) -> None:
        if self.start >= self.end:
            raise ValueError(f"A range of days wants start before end, got {self.start} to {self.end} (exclusive).")

    @property
    def where(self) -> str:
        """Delta predicate of the range."""
        return self._where(self.column)

    def _where(self, column: str) -> str:
        return f"{column} >= '{self.start}' AND {column} < '{self.end}'"

    def __str__(self) -> str:
        return f"{self.start} to {self.end - timedelta(days=1)}"


@dataclass(frozen=True)
class IngestReport:
    """What became of the rows; always `rows_read == rows_written + rows_quarantined`."""

    table: str
    rows_read: int
    rows_written: int
    rows_quarantined: int
    version: int
    reasons: dict[str, int] = field(default_factory=dict)  # a row with two reasons counts under both
    unheld: tuple[str, ...] = ()  # constraints, as SQL, that older rows of the table break and that it lacks therefore

    @property
    def quarantine_table(self) -> str:
        """Table of the rejected rows."""
        return quarantine_of(self.table)

    @property
    def quarantined_share(self) -> float:
        """Share of the rows read that were rejected; 0 when none were read."""
        return self.rows_quarantined / self.rows_read if self.rows_read else 0.0


def quarantine_of(table: str) -> str:
    """Name of the table that holds the rejected rows of `table`."""
    return f"quarantine/{table}"


def ingest(
    lake: Lake,
    table: str,
    contract: type[dy.Schema],
    frame: pl.DataFrame,
    *,
    source: str,
    days: DayRange | None = None,
    raw_contract: type[dy.Schema] | None = None,
    transform: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    partition_by: Sequence[str] = (),
    evolution: Evolution = "reject",
    progress: Progress = lambda _line: None,
) -> IngestReport:
    """Replace a table, or its rows of some days, by a source's rows that meet the contract.

    The rejected rows go to `quarantine/<table>` with their original values (JSON), reasons, source and position. They
    are replaced in the same way when the same days are ingested again, so repeating an ingest changes nothing.

    Parameters
    ----------
    lake, table
        Where to write.
    contract
        `dataframely` schema of the table.
    frame
        The source's rows, typed or as text. A column `ingest_day` (date), if present, gives the day of a row even if
        its own date cannot be read; it is not part of the table.
    source
        Where the rows came from, kept with each quarantined one.
    days
        The days that the rows replace; the whole table when None. Rows outside these days are quarantined.
    raw_contract, transform
        Contract of the source's own columns, and a function that makes the table's columns of them and keeps number and
        order of rows; without them the frame has the table's columns.
    partition_by
        Partition columns of the Delta table.
    evolution
        What to do with columns that the table does not have yet (see `ml_platform.lake.contracts.schema_evolution`).
    progress
        Called with a line of text before each slow step.

    Raises
    ------
    SchemaMismatch
        If the source's columns are not the contract's, or the contract's not the table's. Nothing is written then.
    ValueError
        If `transform` changes the number of rows.
    """
    days_of_rows = frame[DAY] if DAY in frame.columns else pl.Series(DAY, [None] * frame.height, dtype=pl.Date)
    original = frame.drop(DAY, strict=False)
    where = f"{source} for '{table}'"
    progress(f"{frame.height} rows read; checking them against the contract")
    known, extra = set_aside(original, raw_contract or contract, evolution)
    verdict = validate(known, contract, where=where, raw_contract=raw_contract, transform=transform)
    accepted, rejected = verdict.accepted, [verdict.rejected]
    if days is not None:
        inside = accepted[days.column].is_between(days.start, days.end, closed="left")
        reason = f"{days.column}: outside of the ingested days"
        outside = accepted.filter(~inside).select(ROW, reasons=pl.lit([reason], dtype=pl.List(pl.String)))
        accepted, rejected = accepted.filter(inside), [*rejected, outside]
    bad = pl.concat(rejected).sort(ROW)
    rows = fit(lake, table, put_back(accepted, extra).drop(ROW), evolution, anew=days is None)
    progress(f"writing {accepted.height} rows; {bad.height} go to the quarantine")
    # Quarantine first: a crash between the two commits leaves a row in both tables, never in none.
    _quarantine(lake, table, original.with_columns(days_of_rows), bad, source=source, days=days)
    loosen(lake, table, contract)
    version = lake.replace(
        table,
        rows,
        where=days.where if days is not None else None,
        partition_by=partition_by,
        add_columns=evolution == "add_columns",
    )
    unheld = tighten(lake, table, contract)
    return IngestReport(
        table=table,
        rows_read=frame.height,
        rows_written=accepted.height,
        rows_quarantined=bad.height,
        version=version,
        reasons=dict(Counter(bad["reasons"].explode(empty_as_null=False).to_list()).most_common()),
        unheld=unheld,
    )


def validate(
    rows: pl.DataFrame,
    contract: type[dy.Schema],
    *,
    where: str,
    raw_contract: type[dy.Schema] | None = None,
    transform: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
) -> Verdict:
    """Apply both contracts and the transform between them to a source's rows (see `ingest`), without writing."""
    accepted, rejected = rows.with_row_index(ROW), []
    if raw_contract is not None:
        first = apply_contract(accepted, raw_contract, where=where)
        accepted, rejected = first.accepted, [first.rejected]
    if transform is not None:
        accepted = _transformed(accepted, transform, where)
    second = apply_contract(accepted, contract, where=where)
    return Verdict(second.accepted, pl.concat([*rejected, second.rejected]).sort(ROW))


def _transformed(rows: pl.DataFrame, transform: Callable[[pl.DataFrame], pl.DataFrame], where: str) -> pl.DataFrame:
    made = transform(rows.drop(ROW))
    if made.height != rows.height:
        raise ValueError(
            f"The transform of {where} made {made.height} rows of {rows.height}. It must keep every row, in order: "
            "give wrong rows null values and let the contract reject them."
        )
    return made.with_columns(rows[ROW])


def _quarantine(
    lake: Lake, table: str, original: pl.DataFrame, bad: pl.DataFrame, *, source: str, days: DayRange | None
) -> None:
    name = quarantine_of(table)
    if not bad.height and not lake.exists(name):
        return
    rows = quarantined(original, bad, source=source, at=datetime.now(UTC), days=days)
    lake.replace(name, rows, where=None if days is None else days._where("day"))


def quarantined(
    original: pl.DataFrame, bad: pl.DataFrame, *, source: str, at: datetime, days: DayRange | None = None
) -> pl.DataFrame:
    """Make the quarantine's rows from a source's rows and the rejected ones among them (`ROW`, `reasons`)."""
    rejected = original[bad[ROW]]
    day = rejected[DAY] if DAY in rejected.columns else pl.Series([None] * bad.height, dtype=pl.Date)
    return pl.DataFrame(
        {
            "day": _day_within(day, days),
            "source": [source] * bad.height,
            "source_row": bad[ROW],
            "reasons": bad["reasons"],
            "row": to_json(rejected.drop(DAY, strict=False)),
            "quarantined_at": [at] * bad.height,
        },
        schema=QUARANTINE,
        strict=False,
    )


def _day_within(day: pl.Series, days: DayRange | None) -> pl.Series:
    """Day of each rejected row, always one of the ingested days, so that repeating the ingest replaces the row."""
    if days is None:
        return day
    inside = day.is_between(days.start, days.end, closed="left").fill_null(False)
    return day.zip_with(inside, pl.repeat(days.start, len(day), dtype=pl.Date, eager=True))
