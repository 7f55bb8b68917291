"""Feature views: usually one SQL file each, which declares entity, event time, TTL and columns before the query."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

import duckdb
import polars as pl
from pydantic import Field, PrivateAttr, ValidationError, model_validator

from ml_platform.features.declared_types import UTC_MICROSECONDS
from ml_platform.features.definitions import record_definition
from ml_platform.features.incremental import (
    DAY_COLUMN,
    Incremental,
    Span,
    changed_spans,
    compute_span,
    keep_since,
    record_sources,
    write_all,
    write_span,
)
from ml_platform.features.rolling import Rolling
from ml_platform.features.view_files import in_words, read_declaration
from ml_platform.features.view_rows import checked_rows
from ml_platform.lake import sql
from ml_platform.lake.sql_errors import naming_the_query
from ml_platform.lake.tables import Lake
from ml_platform.spec_types import Duration, Strict, Tag

# A text, a quoted name, or a run of blanks and comments, which SQL reads as one space.
_QUOTED_OR_BLANK = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|(?:\s|--[^\n]*|/\*.*?\*/)+""", re.DOTALL)


class FeatureColumn(Strict):
    """One feature of a view."""

    type: Literal["number", "integer", "boolean", "string"]
    description: str
    unit: str | None = None


class FeatureView(Strict):
    """A set of features of an entity over time.

    A row holds the newest known values of its entity from `event_time` on, until a newer row or the end of `ttl`.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{1,62}$")
    description: str
    owner: str
    entity: tuple[str, ...] = Field(min_length=1, description="Columns that identify what the features describe.")
    event_time: str = Field("event_time", description="Column with the instant from which the row was known (UTC).")
    created: str | None = Field(
        None, description="Column that decides between rows with the same event time: the latest wins."
    )
    ttl: Duration | None = Field(None, description="Age up to which a row may be used; unlimited when absent.")
    tags: dict[str, Tag] = Field(default_factory=dict)
    columns: dict[str, FeatureColumn] = Field(min_length=1)
    sql: str = Field("", description="Query over the lake's tables that gives every row of the view.")
    incremental: Incremental | None = Field(None, description="Allows computing only the changed days.")
    rolling: Rolling | None = Field(None, description="Windows that `sql` was compiled from.")
    sources: tuple[str, ...] = Field((), description="Lake tables that a view in Python reads, in argument order.")
    code: str = Field("", description="Source code of a view in Python (see `ml_platform.features.polars_view`).")
    _function: Callable[..., pl.LazyFrame] | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if bool(self.sql) == bool(self.code):
            raise ValueError("a view is a query or a function: give one of `sql` and `code`")
        if self.incremental and DAY_COLUMN in {*self.columns, *self.keys}:
            raise ValueError(f"columns: '{DAY_COLUMN}' is the partition of an incremental view; choose another name")
        if len(set(self.keys)) < len(self.keys):
            raise ValueError(
                f"entity, event_time and created: each is a column of its own, found {list(self.keys)}; leave one out"
            )
        if twice := sorted(set(self.columns) & set(self.keys)):
            raise ValueError(
                f"columns: {twice} also name the entity or a time of the view; give the feature its own name"
            )
        return self

    @property
    def table(self) -> str:
        """Lake table that holds the view's rows."""
        return f"features/{self.name}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Entity and time columns, which together identify a row."""
        return (*self.entity, self.event_time, *((self.created,) if self.created else ()))

    @property
    def hash(self) -> str:
        """SHA-256 of all that decides values and their meaning: query, keys, TTL, types, units; not descriptions."""
        meaning = {
            "entity": self.entity,
            "event_time": self.event_time,
            "created": self.created,
            "ttl": self.ttl.total_seconds() if self.ttl else None,
            "columns": {name: (column.type, column.unit) for name, column in sorted(self.columns.items())},
            "sql": _QUOTED_OR_BLANK.sub(lambda found: found[0] if found[0][0] in "'\"" else " ", self.sql).strip(),
            **({"code": self.code, "sources": self.sources} if self.code else {}),
        }
        return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()

    @property
    def source_tables(self) -> tuple[str, ...]:
        """Lake tables that the view is computed from."""
        return self.sources if self.code else tuple(sorted(sql.referenced_tables(self.sql)))

    def with_function(self, function: Callable[..., pl.LazyFrame]) -> Self:
        """Copy the view, with a function that computes its rows from its sources."""
        view = self.model_copy()
        view._function = function
        return view

    def batches(
        self,
        lake: Lake,
        versions: Mapping[str, int],
        connection: duckdb.DuckDBPyConnection,
        *,
        since: tuple[Mapping[str, str], datetime] | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Compute the view's rows from its sources at the given versions, not yet typed or checked.

        Gives at least one frame; all rows of an entity are in the same frame. `since` (source → time column, instant)
        leaves out the source rows before the instant.
        """
        if self._function is not None:
            frames = {table: lake.read(table, version=versions[table]) for table in self.sources}
            if since is not None:
                for table, column in since[0].items():
                    at = pl.col(column).cast(UTC_MICROSECONDS)
                    frames[table] = frames[table].filter((at >= since[1]) | at.is_null())
            rows = self._function(*frames.values())
            if not isinstance(rows, pl.LazyFrame):
                found = type(rows).__name__
                raise ValueError(f"view '{self.name}': its function must return a polars.LazyFrame, found {found}")
            yield rows.collect(engine="streaming")
            return
        sql.attach(connection, lake, self.source_tables, versions)
        if since is not None:
            keep_since(connection, *since)
        if self.rolling is not None:
            from ml_platform.features.rolling_parts import compute_parts
            from ml_platform.features.rolling_sums import compute_sums

            asked = (connection, self.rolling, self.entity, self.event_time)
            yield from compute_sums(*asked) or compute_parts(*asked)
            return
        yield connection.sql(self.sql).pl()


class ViewReport(Strict):
    """The result of computing a view."""

    rows: int
    version: int = Field(description="Version of the view's table that holds the result.")
    tables: dict[str, int] = Field(description="Lake table → version read.")
    newest: datetime | None = Field(description="Newest event time; null for an empty view.")
    null_share: dict[str, float] = Field(description="Feature → share of rows without a value.")
    spans: tuple[Span, ...] | None = Field(
        None, description="Spans of days that were computed, ends excluded or open; null when the whole view was."
    )


def load_view(path: Path) -> FeatureView:
    """Read a view from its file.

    `<name>.sql` has YAML in a leading `/* … */` comment, then the query. `<name>.yaml` has the same keys, but `rolling`
    (see `ml_platform.features.rolling`) instead of columns and query. `<name>.py` has a `view` made by
    `ml_platform.features.polars_view`.

    Raises
    ------
    ValueError
        If the file does not describe a view; the message names the file and what is wrong.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "daily_sales.sql"
    ...     _ = path.write_text('''/*
    ... description: Sales of a shop on the day before.
    ... owner: shops@example.com
    ... entity: [shop]
    ... ttl: 2 days
    ... columns:
    ...   revenue: {type: number, unit: EUR, description: Sum of the day's receipts.}
    ... */
    ... SELECT shop, day + INTERVAL 1 DAY AS event_time, revenue FROM raw.sales''')
    ...     view = load_view(path)
    >>> view.table, view.ttl
    ('features/daily_sales', datetime.timedelta(days=2))
    """
    if path.suffix == ".py":
        from ml_platform.features.polars_view import load_polars_view

        return load_polars_view(path)
    try:
        view = FeatureView.model_validate({"name": path.stem, **read_declaration(path)})
    except ValidationError as error:
        raise ValueError(f"{path}: {in_words(error, FeatureView)}") from error
    try:
        sql.referenced_tables(view.sql)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return view


def load_views(folder: Path) -> dict[str, FeatureView]:
    """Read every view of a folder, by name: from `*.sql`, `*.yaml` (not `defs.yaml`) and `*.py` (not `_*.py`).

    Raises
    ------
    ValueError
        If a file does not describe a view, or two files describe the same one.
    """
    found = [path for pattern in ("*.sql", "*.yaml", "*.py") for path in folder.glob(pattern)]
    paths = sorted(path for path in found if path.name != "defs.yaml" and not path.name.startswith("_"))
    views: dict[str, FeatureView] = {}
    for path in paths:
        view = load_view(path)
        if view.name in views:
            raise ValueError(f"{path}: another file in this folder already declares the view '{view.name}'")
        views[view.name] = view
    return views


def compute_view(lake: Lake, view: FeatureView, *, connection: duckdb.DuckDBPyConnection | None = None) -> ViewReport:
    """Compute a view from the newest versions of its sources, and replace its table or only its changed days.

    Parameters
    ----------
    lake
        Where the sources are read and the view's table is written.
    view
        The view to compute.
    connection
        DuckDB connection to run on, e.g. one with a memory limit; an in-memory one when absent.

    Raises
    ------
    duckdb.Error, LookupError
        If the query fails, or a table that it reads does not exist; with the name of the view.
    ValueError
        If the query's columns are not the declared ones, or a row lacks a key or shares all its keys with another.
    """
    if connection is None:
        with duckdb.connect() as own:
            return compute_view(lake, view, connection=own)
    with naming_the_query(f"view '{view.name}'", view.sql):
        tables = lake.versions(view.source_tables)
        spans = changed_spans(lake, view, tables) if view.incremental else None
        if view.incremental and spans is not None:
            for span in spans:
                write_span(lake, view, checked_rows(view, compute_span(lake, view, tables, span, connection)), span)
            version = lake.version(view.table)
        else:
            version = write_all(
                lake, view, lambda: (checked_rows(view, frame) for frame in view.batches(lake, tables, connection))
            )
    record_sources(lake, view, tables, version)
    record_definition(lake, view, version)
    return _report(lake, view, version, tables, spans)


def _report(
    lake: Lake, view: FeatureView, version: int, tables: dict[str, int], spans: list[Span] | None
) -> ViewReport:
    counts = (
        lake.read(view.table, version=version)
        .select(
            pl.len().alias("__rows"),
            pl.col(view.event_time).max().alias("__newest"),
            *(pl.col(name).null_count() for name in view.columns),
        )
        .collect()
        .row(0, named=True)
    )
    rows = counts["__rows"]
    return ViewReport(
        rows=rows,
        version=version,
        tables=tables,
        newest=counts["__newest"],
        null_share={name: counts[name] / max(rows, 1) for name in view.columns},
        spans=None if spans is None else tuple(spans),
    )
