"""PostgreSQL as a source: everything, or only what changed since the newest row that was read.

With a cursor column the rows come in its order, batch by batch; each batch is merged into the table by primary key,
and how far it went is recorded after it. A run that is killed goes on from the last recorded batch: what is read twice
finds its place by the key.
"""

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import polars as pl

from ml_platform.lake.constraints import loosen, tighten
from ml_platform.lake.contracts import ROW
from ml_platform.lake.evolution import fit, set_aside
from ml_platform.lake.ingest import IngestReport, quarantine_of, quarantined, validate
from ml_platform.lake.keyed import merge
from ml_platform.lake.source_spec import SourceSpec, SqlSource
from ml_platform.lake.tables import Lake

if TYPE_CHECKING:
    import psycopg

Progress = Callable[[str], None]
CURSORS = "governance/source_cursors"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TYPED = {"int2", "int4", "int8", "numeric", "float4", "float8", "bool", "date", "timestamp", "timestamptz", "bytea"}


def read_query(spec: SourceSpec) -> pl.DataFrame:
    """Read all rows of the query."""
    frames = list(_batches(_source(spec), since=None))
    return spec.take(pl.concat(frames, how="vertical_relaxed"))


def load_changes(lake: Lake, spec: SourceSpec, *, progress: Progress = lambda _line: None) -> IngestReport:
    """Merge the rows whose cursor is not older than the newest one read before; rejected ones go to the quarantine.

    Rows that were deleted in the database stay in the table.

    Parameters
    ----------
    progress
        Told after each batch how far it is.

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
    if since is not None and source.lookback_seconds and not isinstance(since, int):
        since -= timedelta(seconds=source.lookback_seconds)
    read = written = 0
    reasons: Counter[str] = Counter()
    for batch in _batches(source, since):
        rows = spec.take(batch)
        known, extra = set_aside(rows, contract, spec.evolution)
        verdict = validate(known, contract, where=f"the query of '{spec.name}'")
        _quarantine(lake, spec, rows, verdict.rejected)
        good = verdict.accepted.join(extra, on=ROW, maintain_order="left").drop(ROW)
        merge(
            lake,
            spec.name,
            fit(lake, spec.name, good, spec.evolution),
            on=contract.primary_key(),
            add_columns=spec.evolution == "add_columns",
        )
        _record_cursor(lake, spec, batch[source.cursor])
        read, written = read + batch.height, written + good.height
        reasons.update(verdict.rejected["reasons"].explode(empty_as_null=False).to_list())
        progress(f"{read} rows, up to {source.cursor} {batch[source.cursor][-1]}")
    unheld, counted = tighten(lake, spec.name, contract), dict(reasons.most_common())
    return IngestReport(spec.name, read, written, read - written, lake.version(spec.name), counted, unheld)


def last_cursor(lake: Lake, spec: SourceSpec) -> datetime | date | int | None:
    """Give the newest cursor value that was read; None before the first."""
    if not lake.exists(CURSORS):
        return None
    rows = lake.read(CURSORS).filter(pl.col("table") == spec.name).collect()
    if rows.is_empty():
        return None
    kind, value = rows.select("kind", "value").row(0)
    if kind == "integer":
        return int(value)
    at = _EPOCH + timedelta(microseconds=value)
    return at.date() if kind == "date" else at


def _record_cursor(lake: Lake, spec: SourceSpec, cursor: pl.Series) -> None:
    newest = cursor[-1]
    if isinstance(newest, datetime):
        kind, value = "timestamp", (newest - _EPOCH) // timedelta(microseconds=1)
    elif isinstance(newest, date):
        midnight = datetime(newest.year, newest.month, newest.day, tzinfo=UTC)
        kind, value = "date", (midnight - _EPOCH) // timedelta(microseconds=1)
    else:
        kind, value = "integer", int(newest)
    row = pl.DataFrame({"table": [spec.name], "kind": [kind], "value": [value], "read_at": [datetime.now(UTC)]})
    merge(lake, CURSORS, row, on=["table"])


def _quarantine(lake: Lake, spec: SourceSpec, rows: pl.DataFrame, rejected: pl.DataFrame) -> None:
    """Keep the rejected rows, but those only once that are read again because they lie at the cursor's newest value."""
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
    try:
        import psycopg
        from psycopg import sql
    except ImportError as error:
        raise ImportError("Reading from PostgreSQL wants psycopg: pip install 'ml-platform[postgres]'.") from error
    url = os.environ.get(source.url_variable)
    if not url:
        raise ValueError(
            f"The environment has no {source.url_variable}, which the table's defs.yaml names as url_variable; "
            "set it to the database's URL (postgresql://user:password@host/database)."
        )
    # The query's last line may be a comment.
    statement = sql.SQL("SELECT * FROM ({}\n) AS source_rows").format(sql.SQL(source.query.rstrip().rstrip(";")))
    if source.cursor is not None:
        cursor = sql.Identifier(source.cursor)
        if since is not None:
            statement += sql.SQL(" WHERE {} >= {}").format(cursor, sql.Literal(since))
        statement += sql.SQL(" ORDER BY {}").format(cursor)
    with psycopg.connect(url) as connection, connection.cursor(name="ml_platform") as server:
        connection.execute("SET TIME ZONE 'UTC'")
        _read_as_text(server, but=_TYPED)
        server.execute(statement)
        columns = [column.name for column in server.description or ()]
        first = True
        while (rows := _fetched(server, source)) or (first and source.cursor is None):
            first = False
            frame = pl.DataFrame(_plain(rows), columns, orient="row", infer_schema_length=None)
            if source.cursor is not None:
                _check_cursor(frame, source)
            yield frame


def _check_cursor(frame: pl.DataFrame, source: SqlSource) -> None:
    cursor = frame[source.cursor] if source.cursor in frame.columns else None
    if (
        cursor is None
        or cursor.null_count()
        or not (cursor.dtype.is_integer() or cursor.dtype == pl.Date or isinstance(cursor.dtype, pl.Datetime))
        or (isinstance(cursor.dtype, pl.Datetime) and cursor.dtype.time_zone is None)
    ):
        found = "no such column" if cursor is None else f"{cursor.dtype} with {cursor.null_count()} nulls"
        raise ValueError(
            f"sql.cursor '{source.cursor}' wants a column of the query that is a timestamp with time zone, a date or "
            f"an integer, and never null; found {found}."
        )


def _read_as_text(server: "psycopg.ServerCursor", *, but: Collection[str]) -> None:
    """Read values of other types, lists of any, as the texts that PostgreSQL shows: JSON, intervals, addresses, …."""
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
            f"The query of ${source.url_variable} gave a value that no timestamp or number can be: {error}. Leave it "
            "out there, e.g. by NULLIF(column, 'infinity')."
        ) from error


def _plain(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Give columns of exact numbers that hold NaN or infinity, which Polars has not, as texts."""
    odd = [
        number
        for number, values in enumerate(zip(*rows, strict=True))
        if any(isinstance(value, Decimal) and not value.is_finite() for value in values)
    ]
    if not odd:
        return rows
    return [
        tuple(str(value) if number in odd and value is not None else value for number, value in enumerate(row))
        for row in rows
    ]


def _source(spec: SourceSpec) -> SqlSource:
    if spec.sql is None:
        raise ValueError(f"'{spec.name}' does not read a database.")
    return spec.sql
