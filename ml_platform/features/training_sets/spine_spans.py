"""A spine in spans of time of some hundred thousand rows each, so that a set is made that is larger than memory."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import duckdb
import polars as pl

from ml_platform.features.training_sets.spine import Span, spine_text
from ml_platform.lake.names import quoted
from ml_platform.lake.query import sql
from ml_platform.lake.query.sql_errors import naming_the_query
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import ModelSpec

SPAN_ROWS: Final = 500_000  # of the spine; an hour with more of them is not divided
_IDS_AT_ONCE: Final = 20_000_000
_HOUR: Final = timedelta(hours=1)


def spine_spans(lake: Lake, spec: ModelSpec, folder: Path, versions: Mapping[str, int]) -> list[Span] | None:
    """Divide a spine into spans of whole hours, oldest first.

    Parameters
    ----------
    lake, spec, folder
        Where the tables and the query are.
    versions
        Versions of the tables.

    Returns
    -------
    list of Span or None
        None where that cannot be said before the rows are read: the timestamp is a request feature, or not every row
        has an instant.
    """
    text = spine_text(spec, folder)

    def by_hour(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
        at = quoted(spec.timestamp)
        is_instant = (
            spec.timestamp in relation.columns
            and str(relation.types[relation.columns.index(spec.timestamp)]) == "TIMESTAMP WITH TIME ZONE"
        )
        if not is_instant:
            return relation.limit(0).aggregate("NULL::TIMESTAMPTZ AS hour, 1 AS rows")
        return relation.aggregate(
            f"CASE WHEN isfinite({at}) THEN date_trunc('hour', {at}) END AS hour, count(*) AS rows",
            f"CASE WHEN isfinite({at}) THEN date_trunc('hour', {at}) END",
        )

    pinned = {name: versions[name] for name in sql.referenced_tables(text)}
    with naming_the_query(f"model '{spec.name}'", text, folder / spec.spine):
        hours = sql.query(lake, text, versions=pinned, narrow=by_hour).sort("hour")
    if hours.is_empty() or hours.get_column("hour").null_count():
        return None
    return [Span(spec.timestamp, start, end) for start, end in _grouped(hours)]


def _grouped(hours: pl.DataFrame) -> Iterator[tuple[datetime, datetime]]:
    first, last, total = None, None, 0
    for hour, rows in hours.iter_rows():
        at = hour.astimezone(UTC)
        if first is not None and last is not None and total + rows > SPAN_ROWS:
            yield first, last + _HOUR
            first, total = None, 0
        first, last, total = first or at, at, total + rows
    if first is not None and last is not None:
        yield first, last + _HOUR


def check_unique(ids: pl.LazyFrame, column: str, rows: int, where: str) -> None:
    """Refuse ids that stand in rows of several spans (raises ValueError); some million of them are held at once."""
    parts = 1 + rows // _IDS_AT_ONCE
    for part in range(parts):
        own = ids.select(column).filter(pl.col(column).hash() % parts == part).collect(engine="streaming")
        if twice := own.height - own.n_unique():
            example = own.filter(own.get_column(column).is_duplicated()).item(0, 0)
            raise ValueError(
                f"{where} gives {twice:,} rows or more with the id of another row, e.g. {example!r}; give each row one "
                f"of its own, or one row for each (QUALIFY row_number() OVER (PARTITION BY {column} ORDER BY …) = 1)"
            )
