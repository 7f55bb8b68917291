"""PostgreSQL as a source: reads everything, or only what changed since the newest row that was read.

With a cursor column, rows are read in its order, batch by batch. Each batch is merged into the table by primary key, in
a commit that also records the cursor's position. So a run goes on where a killed one stopped, or where a restored table
was, and rows that are read twice replace themselves.
"""

import math
import os
from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl

from ml_platform.distribution import extra
from ml_platform.instants import earlier
from ml_platform.lake.contracts.contract import ROW
from ml_platform.lake.contracts.delta_constraints import loosen, tighten
from ml_platform.lake.contracts.schema_evolution import fit, put_back, set_aside
from ml_platform.lake.ingestion.ingest import IngestReport, Progress, quarantine_of, quarantined, validate
from ml_platform.lake.sources.source_spec import SourceSpec, SqlSource
from ml_platform.lake.storage.merge import merge
from ml_platform.lake.storage.tables import Lake

if TYPE_CHECKING:
    import psycopg

_KINDS = ("integer", "date", "timestamp")  # of cursors
_URL = "postgresql://user:password@host/database"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMERIC = 1700  # PostgreSQL's object id of the type
_TYPED = {"int2", "int4", "int8", "numeric", "float4", "float8", "bool", "date", "timestamp", "timestamptz", "bytea"}


def read_query(spec: SourceSpec) -> pl.DataFrame:
    """Read all rows of the query."""
    frames = list(_batches(_source(spec), since=None))
    return spec.take(pl.concat(frames, how="vertical_relaxed"))


def load_changes(lake: Lake, spec: SourceSpec, *, progress: Progress = lambda _line: None) -> IngestReport:
    """Merge the rows whose cursor is at or after the last position; rejected rows go to the quarantine.

    Rows that were deleted in the database stay in the table.

    Parameters
    ----------
    progress
        Called with a line of text after each batch.

    Raises
    ------
    SchemaMismatch
        If the query's columns are not the contract's.
    ValueError
        If the cursor is neither a timestamp with time zone, a date nor an integer, or null somewhere.
    """
    source, contract = _source(spec), spec.schema_class()
    if source.cursor is None:
        raise ValueError(f"'{spec.name}' has no sql.cursor: it is read as a whole.")
    if not lake.exists(spec.name):
        lake.append(spec.name, contract.create_empty(), partition_by=spec.partition_by)
    loosen(lake, spec.name, contract)
    since = last_cursor(lake, spec)
    if since is not None and not isinstance(since, int):
        since = _back(since, timedelta(seconds=source.lookback_seconds))
    read = written = 0
    reasons: Counter[str] = Counter()
    for batch in _batches(source, since):
        rows = spec.take(batch)
        known, extra = set_aside(rows, contract, spec.evolution)
        verdict = validate(known, contract, where=f"the query of '{spec.name}'")
        _quarantine(lake, spec, rows, verdict.rejected)
        good = put_back(verdict.accepted, extra).drop(ROW)
        merge(
            lake,
            spec.name,
            fit(lake, spec.name, good, spec.evolution),
            on=contract.primary_key(),
            add_columns=spec.evolution == "add_columns",
            app_transaction=_position(source, batch[source.cursor][-1]),
        )
        read, written = read + batch.height, written + good.height
        reasons.update(verdict.rejected["reasons"].explode(empty_as_null=False).to_list())
        progress(f"{read} rows, up to {source.cursor} {batch[source.cursor][-1]}")
    unheld, counted = tighten(lake, spec.name, contract), dict(reasons.most_common())
    return IngestReport(spec.name, read, written, read - written, lake.version(spec.name), counted, unheld)


def last_cursor(lake: Lake, spec: SourceSpec) -> datetime | date | int | None:
    """Return the newest cursor value that was read; None before the first."""
    for kind in _KINDS:
        number = lake.last_app_version(spec.name, f"cursor/{_source(spec).cursor}/{kind}")
        if number is not None and kind == "integer":
            return number
        if number is not None:
            at = _EPOCH + timedelta(microseconds=number)
            return at.date() if kind == "date" else at
    return None


def _back(since: datetime | date, lookback: timedelta) -> datetime | date:
    """Where to read from: whole days before a date, of which a part of a day takes nothing away."""
    if isinstance(since, datetime):
        return earlier(since, lookback)
    return since - timedelta(days=min(math.ceil(lookback / timedelta(days=1)), (since - date.min).days))


def _position(source: SqlSource, newest: datetime | date | int) -> tuple[str, int]:
    """Name and number that record a cursor's position in the table's log."""
    if isinstance(newest, int):
        return f"cursor/{source.cursor}/integer", newest
    kind, at = "timestamp", newest
    if not isinstance(at, datetime):
        kind, at = "date", datetime(at.year, at.month, at.day, tzinfo=UTC)
    return f"cursor/{source.cursor}/{kind}", (at - _EPOCH) // timedelta(microseconds=1)


def _quarantine(lake: Lake, spec: SourceSpec, rows: pl.DataFrame, rejected: pl.DataFrame) -> None:
    """Append rejected rows to the quarantine, except those that are there already and were only read again."""
    if rejected.is_empty():
        return
    name = quarantine_of(spec.name)
    bad = quarantined(rows, rejected, source=_source(spec).url_variable, at=datetime.now(UTC))
    if lake.exists(name):
        bad = bad.join(lake.read(name).select("row").collect(), on="row", how="anti", maintain_order="left")
    if bad.height:
        lake.append(name, bad)


def _batches(source: SqlSource, since: datetime | date | int | None) -> Iterator[pl.DataFrame]:
    """Yield the query's rows, in the cursor's order if there is one; at least one frame, perhaps empty."""
    opened = _connect(source)
    from psycopg import sql

    # The query's last line may be a comment.
    statement = sql.SQL("SELECT * FROM ({}\n) AS source_rows").format(sql.SQL(source.query.rstrip().rstrip(";")))
    if source.cursor is not None:
        cursor = sql.Identifier(source.cursor)
        if since is not None:
            # Rows without a cursor value would never be read; so they are read last, and refused.
            statement += sql.SQL(" WHERE {0} >= {1} OR {0} IS NULL").format(cursor, sql.Literal(since))
        statement += sql.SQL(" ORDER BY {} NULLS LAST").format(cursor)
    with opened as connection, connection.cursor(name="ml_platform") as server:
        connection.execute("SET TIME ZONE 'UTC'")
        _read_as_text(server, but=_TYPED)
        _execute(server, statement, source)
        described = server.description or ()
        columns = [column.name for column in described]
        first = True
        exact = [place for place, column in enumerate(described) if column.type_code == _NUMERIC]
        while (rows := _fetched(server, source)) or (first and source.cursor is None):
            first = False
            frame = pl.DataFrame(_plain(rows, exact), columns, orient="row", infer_schema_length=None)
            if source.cursor is not None:
                _check_cursor(frame, source)
            yield frame


def _connect(source: SqlSource) -> "psycopg.Connection":
    with extra("postgres"):
        import psycopg
    url = os.environ.get(source.url_variable)
    if not url:
        raise ValueError(
            f"The environment has no {source.url_variable}, which the table's defs.yaml names as url_variable; "
            f"set it to the database's URL ({_URL})."
        )
    try:
        return psycopg.connect(url)
    except psycopg.OperationalError as error:
        raise ConnectionError(f"The database of ${source.url_variable} cannot be reached: {error}") from error
    except psycopg.ProgrammingError:  # its message shows the password
        raise ValueError(f"${source.url_variable} is not the URL of a PostgreSQL database; wanted {_URL}.") from None


def _execute(server: "psycopg.ServerCursor", statement: "psycopg.sql.Composed", source: SqlSource) -> None:
    import psycopg

    try:
        server.execute(statement)
    except psycopg.ProgrammingError as error:
        raise ValueError(f"The query of ${source.url_variable} cannot be run: {error}") from error


def _check_cursor(frame: pl.DataFrame, source: SqlSource) -> None:
    cursor = frame[source.cursor] if source.cursor in frame.columns else None
    if (
        cursor is None
        or cursor.null_count()
        or not (cursor.dtype.is_integer() or cursor.dtype == pl.Date or isinstance(cursor.dtype, pl.Datetime))
        or (isinstance(cursor.dtype, pl.Datetime) and cursor.dtype.time_zone is None)
    ):
        described = "no such column" if cursor is None else f"{cursor.dtype} with {cursor.null_count()} nulls"
        raise ValueError(
            f"sql.cursor '{source.cursor}' wants a column of the query that is a timestamp with time zone, a date or "
            f"an integer, and never null; found {described}."
        )
    if cursor.dtype.is_integer() and source.lookback_seconds:
        raise ValueError(
            f"sql.lookback_seconds wants a cursor that is a time; '{source.cursor}' is an integer. Leave it out "
            "(a row with a smaller number that is committed late is not read), or take a timestamp."
        )


def _read_as_text(server: "psycopg.ServerCursor", *, but: Collection[str]) -> None:
    """Read values of all other types, and arrays, as the text that PostgreSQL shows: JSON, intervals, addresses, …."""
    from psycopg.types.string import TextLoader

    for kind in server.adapters.types:
        if kind.name not in but:
            server.adapters.register_loader(kind.oid, TextLoader)
        server.adapters.register_loader(kind.array_oid, TextLoader)


def _fetched(server: "psycopg.ServerCursor", source: SqlSource) -> list[tuple[Any, ...]]:
    import psycopg

    try:
        return server.fetchmany(source.batch_rows)
    except psycopg.DataError as error:
        raise ValueError(
            f"The query of ${source.url_variable} gave a value that no timestamp or number can hold: {error}. Exclude "
            "it in the query, e.g. by NULLIF(column, 'infinity')."
        ) from error


def _plain(rows: list[tuple[Any, ...]], exact: Collection[int]) -> list[tuple[Any, ...]]:
    """Convert columns of exact numbers (by position) with NaN or infinity, which Polars' decimals lack, to text."""
    odd = {place for place in exact if any(row[place] is not None and not row[place].is_finite() for row in rows)}
    if not odd:
        return rows
    return [
        tuple(str(value) if place in odd and value is not None else value for place, value in enumerate(row))
        for row in rows
    ]


def _source(spec: SourceSpec) -> SqlSource:
    if spec.sql is None:
        raise ValueError(f"'{spec.name}' does not read a database.")
    return spec.sql
