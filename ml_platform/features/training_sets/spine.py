"""The query of a model's spine: only the columns and the span of time that are wanted are read."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import duckdb
import polars as pl

from ml_platform.features.training_sets.labels import plain_labels
from ml_platform.features.training_sets.spine_ids import check_ids, typed_ids
from ml_platform.features.training_sets.spine_values import placed_rows
from ml_platform.lake.names import literal, quoted
from ml_platform.lake.query import sql
from ml_platform.lake.query.sql_errors import naming_the_query
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import ModelSpec


class Span(NamedTuple):
    """Rows with start ≤ column < end (UTC)."""

    column: str
    start: datetime
    end: datetime


def read_spine(
    lake: Lake,
    spec: ModelSpec,
    folder: Path,
    columns: Sequence[str],
    *,
    versions: Mapping[str, int] | None = None,
    span: Span | None = None,
    typed_later: Collection[str] = (),
    without_id: bool = False,
) -> pl.DataFrame:
    """Run the query of a model's spine.

    Parameters
    ----------
    lake
        Where its tables are.
    spec
        The model.
    folder
        Folder of `spec.spine`.
    columns
        Columns that are wanted.
    versions
        Table → version to read; the newest when None.
    span
        Rows that are wanted, if not all. The condition reaches the tables where the query takes the instant from one of
        their columns as it is; the query can also ask for the span itself, see `ml_platform.lake.query.sql.query`.
    typed_later
        Inputs whose ids and instants the caller types and checks itself.
    without_id
        Whether rows without an id are given, for a caller that leaves them out.

    Returns
    -------
    polars.DataFrame
        The columns that are wanted; ids as `training_sets.spine_ids` reads them, labels as `plain_labels`.

    Raises
    ------
    duckdb.Error, LookupError
        If the query fails, or names a table that does not exist; with the model, file and line.
    ValueError
        If the query lacks a column or gives it twice, an id is null or not unique, a label cannot be told, or an
        instant is outside of the calendar.
    """
    text = spine_text(spec, folder)
    pinned = {name: versions[name] for name in sql.referenced_tables(text)} if versions is not None else None

    def narrow(relation: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
        if missing := sorted(set(columns) - set(relation.columns)):
            raise ValueError(f"{where(spec)} must give the columns {missing}; it gives {relation.columns}")
        for name in columns:
            if mistake := ambiguous(name, relation.columns):
                raise ValueError(f"{where(spec)} gives {mistake}")
        if span is not None and _is_instant(relation, span.column):
            relation = relation.filter(_condition(span))
        return relation.select(*map(quoted, columns))

    ends = None if span is None else (span.start, span.end)
    with naming_the_query(f"model '{spec.name}'", text, folder / spec.spine):
        rows = sql.query(lake, text, versions=pinned, span=ends, narrow=narrow)
    if spec.id not in typed_later:
        declared = next((field.type for field in spec.inputs if field.name == spec.id), None)
        rows = rows.with_columns(typed_ids(rows.get_column(spec.id), declared, where(spec)))
    check_ids(rows.get_column(spec.id), where(spec), without_id=without_id)
    if spec.target in columns:
        try:
            rows = rows.with_columns(plain_labels(rows.get_column(spec.target), spec.task, spec.target))
        except ValueError as error:
            raise ValueError(f"{where(spec)}: {error}") from error
    times = [name for name in (spec.timestamp, spec.label_available_at) if name in {*columns} - {*typed_later}]
    return placed_rows(rows, times, id_column=spec.id, where=where(spec))


def spine_text(spec: ModelSpec, folder: Path) -> str:
    """Read the query of a model's spine (raises ValueError, with model and file, if it is not one SELECT)."""
    file = folder / spec.spine
    text = file.read_text(encoding="utf-8")
    try:
        sql.referenced_tables(text)
    except ValueError as error:
        raise ValueError(f"model '{spec.name}': {file}: {error}") from error
    return text


def ambiguous(name: str, given: Iterable[str]) -> str | None:
    """Say that a query gives a column more than once, in any case, as SQL compares names; None when it does not.

    DuckDB takes the first one: of `SELECT *, coalesce(amount, 0) AS amount` the `amount` that was to be replaced.

    Examples
    --------
    >>> ambiguous("plan", ["id", "plan"]) is None
    True
    """
    same = [column for column in given if column.lower() == name.lower()]
    if len(same) < 2:
        return None
    return (
        f"'{name}' more than once ({', '.join(same)}), and the first would be taken; "
        f"to replace a column of *, write SELECT * REPLACE (… AS {name}), to leave one out, * EXCLUDE ({name})"
    )


def where(spec: ModelSpec) -> str:
    """What gives the rows, for messages."""
    return f"model '{spec.name}': {spec.spine}"


def _is_instant(relation: duckdb.DuckDBPyRelation, column: str) -> bool:
    """Whether a column has instants; others are refused where the rows are typed."""
    return str(relation.types[relation.columns.index(column)]) == "TIMESTAMP WITH TIME ZONE"


def _condition(span: Span) -> str:
    start, end = (f"TIMESTAMPTZ {literal(at.astimezone(UTC).isoformat())}" for at in (span.start, span.end))
    return f"{quoted(span.column)} >= {start} AND {quoted(span.column)} < {end}"
