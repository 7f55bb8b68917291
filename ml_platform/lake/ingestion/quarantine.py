"""The quarantine of rejected rows: look at them, correct them, re-admit them; every re-admission is recorded.

A re-admission makes three commits: to the record (who, when, what), the table, the quarantine. Each row is appended to
the table under its own name (`append_once`), and a record counts only if the table has the row with the record's
number. So a crash between the commits neither loses nor duplicates a row: rows that are in the table but still in the
quarantine are hidden, and the next re-admission removes them.
"""

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from ml_platform.lake.access import AccessDenied, object_name
from ml_platform.lake.contracts.contract import ROW
from ml_platform.lake.contracts.schema_evolution import fit, put_back, set_aside
from ml_platform.lake.ingestion.ingest import QUARANTINE, quarantine_of, validate
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.ingestion.row_json import read_back, to_json
from ml_platform.lake.storage.merge import append_once, remove
from ml_platform.lake.storage.tables import Lake
from ml_platform.lake.storage.type_mapping import TIMESTAMP

RECORD = "governance/readmissions"
ID = "quarantine_id"
_KEY = ["source", "source_row", "quarantined_at"]
_OWN = [ID, "quarantine_reasons", "quarantine_day", "quarantine_source", "quarantine_row"]


@dataclass(frozen=True)
class Readmission:
    """What became of the given rows, whose number is `admitted + len(refused) + gone`.

    Attributes
    ----------
    admitted
        Number of rows that meet the contract now and were moved to the table.
    refused
        `quarantine_id` → reasons, for rows that stay in the quarantine.
    gone
        Number of rows that were no longer in the quarantine.
    version
        The table's version afterwards.
    """

    table: str
    admitted: int
    refused: dict[str, list[str]]
    gone: int
    version: int


def look(lake: Lake, table: str) -> pl.DataFrame:
    """Read the rejected rows of a table.

    Returns
    -------
    polars.DataFrame
        `quarantine_id`, `quarantine_reasons`, `quarantine_day`, `quarantine_source`, `quarantine_row` (position in the
        source), then the source's columns with their original values, as text.
    """
    pending = _pending(lake, table)
    rows = [json.loads(row) for row in pending["row"]]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    original = pl.DataFrame(
        {name: [_text(row.get(name)) for row in rows] for name in columns}, schema=dict.fromkeys(columns, pl.String)
    )
    own = pending.select(
        ID, *[pl.col(name.removeprefix("quarantine_")).alias(name) for name in _OWN[1:4]], quarantine_row="source_row"
    )
    return pl.concat([own, original], how="horizontal")


def readmit(lake: Lake, raw: RawTable, corrected: pl.DataFrame, *, by: str, note: str) -> Readmission:
    """Check corrected rows against the table's contract again, and move those that meet it into the table.

    Every re-admission is recorded in `governance/readmissions` with the row before and after. Correct the source too: a
    later ingest of the same days (or of the whole table, if it is not dated) reads it again.

    Parameters
    ----------
    raw
        The table, with its contract and its transform from the source's columns.
    corrected
        Rows as `look` gives them, or some of them, with corrected values in the source's columns, typed or as text.
    by, note
        Who re-admits them, and why the new values are right.

    Raises
    ------
    ValueError
        If `quarantine_id` is missing or given twice.
    SchemaMismatch
        If the columns are not the source's.
    """
    if ID not in corrected.columns or corrected[ID].is_duplicated().any():
        raise ValueError(f"Rows to re-admit to '{raw.name}' want the column '{ID}' that `look` gave, each value once.")
    pending = _pending(lake, raw.name)
    _remove_admitted(lake, raw.name)
    corrected = corrected.with_columns(pl.col(ID).cast(pl.String))
    chosen = corrected.filter(pl.col(ID).is_in(pending[ID].implode()))
    contract = raw.raw_contract or raw.contract
    types = {name: column.dtype for name, column in contract.columns().items()}
    values, unreadable = read_back(chosen.drop(_OWN, strict=False), types)
    readable = pl.Series([place not in unreadable for place in range(chosen.height)], dtype=pl.Boolean)
    refused = {chosen[ID][place]: reasons for place, reasons in unreadable.items()}
    chosen, values = chosen.filter(readable), values.filter(readable)
    rows, extra = set_aside(values, contract, raw.evolution)
    verdict = validate(
        rows,
        raw.contract,
        where=f"corrected rows for '{raw.name}'",
        raw_contract=raw.raw_contract,
        transform=raw.transform,
    )
    names = dict(enumerate(chosen[ID]))
    refused |= {names[row]: list(reasons) for row, reasons in verdict.rejected.rows()}
    fitting, clashes = _fits_table(lake, raw, verdict.accepted)
    refused |= {names[row]: [reason] for row, reason in clashes}
    ids = [names[row] for row in fitting[ROW]]
    number, transactions = time.time_ns() // 1000, [_transaction(one) for one in ids]
    if ids:
        _record(lake, raw.name, pending, chosen.filter(pl.col(ID).is_in(ids)), number=number, by=by, note=note)
        new = fit(lake, raw.name, put_back(fitting, extra).drop(ROW), raw.evolution)
        append_once(
            lake,
            raw.name,
            new,
            names=transactions,
            numbers=dict.fromkeys(transactions, number),
            partition_by=raw.table_partitions,
            add_columns=raw.evolution == "add_columns",
        )
        _remove_admitted(lake, raw.name)
    # A row that somebody else re-admitted at the same time has the other's number.
    admitted = _numbers(lake, raw.name, ids).count(number)
    gone = corrected.height - chosen.height - len(unreadable) + len(ids) - admitted
    return Readmission(raw.name, admitted, refused, gone, lake.version(raw.name))


def readmissions(lake: Lake, table: str) -> pl.DataFrame:
    """List what was re-admitted to a table, newest first: id, by, note, reasons, row before and after (JSON), when."""
    if lake.guard is not None:
        lake.check_whole(table)  # rows are quoted as they were
        lake = lake.without_guard()
    if not lake.exists(RECORD):
        lake.snapshot(table)
        return pl.DataFrame(schema=_record_schema())
    record = lake.read(RECORD).filter(pl.col("table") == table).collect()
    numbers = _numbers(lake, table, record["id"])
    # If the table does not have a record's number, that re-admission crashed before its rows were written.
    return record.filter(record["number"].eq_missing(pl.Series(numbers, dtype=pl.Int64))).sort(
        "readmitted_at", descending=True
    )


def _pending(lake: Lake, table: str) -> pl.DataFrame:
    """Read the quarantined rows with their ids, without those that are already in the table."""
    rows = _with_ids(lake, table)
    return rows.filter(~_is_admitted(lake, table, rows))


def _with_ids(lake: Lake, table: str) -> pl.DataFrame:
    name = quarantine_of(table)
    if lake.guard is not None:
        lake.check_whole(table)
        if not lake.exists(name) and lake.without_guard().exists(name):  # not to be taken for none
            raise AccessDenied(lake.principal, "select", object_name(name), "Its rows are granted by themselves.")
    if lake.exists(name):
        rows = lake.read(name).sort(_KEY).collect()
    else:
        lake.snapshot(table)  # raises for a misspelt name
        rows = pl.DataFrame(schema=QUARANTINE)
    return rows.with_columns(pl.Series(ID, [_identify(*key) for key in rows.select(_KEY).rows()], dtype=pl.String))


def _is_admitted(lake: Lake, table: str, rows: pl.DataFrame) -> pl.Series:
    return pl.Series([number is not None for number in _numbers(lake, table, rows[ID])], dtype=pl.Boolean)


def _remove_admitted(lake: Lake, table: str) -> None:
    rows = _with_ids(lake, table)
    done = rows.filter(_is_admitted(lake, table, rows))
    if done.height:
        lake.sync(table)
        remove(lake, quarantine_of(table), done.select(_KEY))


def _fits_table(lake: Lake, raw: RawTable, rows: pl.DataFrame) -> tuple[pl.DataFrame, list[tuple[int, str]]]:
    """Separate rows that the table cannot take, by its days or its primary keys; also give each one's reason."""
    clashes = []
    if raw.calendar is not None:
        inside = rows[raw.calendar.column].is_between(raw.calendar.first, raw.calendar.last)
        clashes += [(row, f"{raw.calendar.column}: outside of the table's days") for row in rows.filter(~inside)[ROW]]
        rows = rows.filter(inside)
    if (key := raw.contract.primary_key()) and lake.exists(raw.name):
        duplicates = rows.lazy().join(lake.read(raw.name).select(key), on=key, how="semi").select(ROW).collect()[ROW]
        clashes += [(row, f"the table has a row with this {', '.join(key)} already") for row in duplicates]
        rows = rows.filter(~pl.col(ROW).is_in(duplicates.implode()))
    return rows, clashes


def _record(
    lake: Lake, table: str, pending: pl.DataFrame, chosen: pl.DataFrame, *, number: int, by: str, note: str
) -> None:
    after = to_json(chosen.drop(_OWN, strict=False))
    given = pl.DataFrame({"id": chosen[ID], "after": after})
    before = pending.select("day", "source", "source_row", "reasons", id=ID, before="row")
    rows = before.join(given, on="id").with_columns(
        table=pl.lit(table),
        number=pl.lit(number, dtype=pl.Int64),
        by=pl.lit(by),
        note=pl.lit(note),
        readmitted_at=pl.lit(datetime.now(UTC)).cast(TIMESTAMP),
    )
    lake.without_guard().append(RECORD, rows.select(_record_schema().names()))


def _record_schema() -> pl.Schema:
    text = dict.fromkeys(("table", "id", "by", "note", "source", "before", "after"), pl.String())
    return pl.Schema(
        {
            **text,
            "day": pl.Date(),
            "source_row": pl.Int64(),
            "reasons": pl.List(pl.String()),
            "number": pl.Int64(),
            "readmitted_at": TIMESTAMP,
        }
    )


def _identify(source: str, source_row: int, quarantined_at: datetime) -> str:
    return hashlib.sha256(f"{source}\0{source_row}\0{quarantined_at.isoformat()}".encode()).hexdigest()[:12]


def _numbers(lake: Lake, table: str, ids: Iterable[str]) -> list[int | None]:
    """Number with which each row was appended to the table; None if it was not."""
    done = lake.deliveries(table, lake.version(table)) if lake.exists(table) else {}
    return [done.get(_transaction(one)) for one in ids]


def _transaction(row_id: str) -> str:
    return f"readmitted/{row_id}"


def _text(value: object) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
