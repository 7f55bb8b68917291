"""Computes a view: all of its rows, or only the days that changed sources can affect."""

from datetime import datetime

import duckdb
import polars as pl
from pydantic import Field

from ml_platform.features.incremental_spec import Span
from ml_platform.features.views.batches import view_batches
from ml_platform.features.views.checked_rows import checked_rows
from ml_platform.features.views.incremental import changed_spans, compute_span, record_sources, write_all, write_span
from ml_platform.features.views.recorded_definitions import record_definition
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.query.sql_errors import naming_the_query
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.types import Strict


class ViewReport(Strict):
    """The result of computing a view."""

    rows: int = Field(description="Rows of the view's table afterwards.")
    version: int = Field(description="Version of the view's table that holds the result.")
    tables: dict[str, int] = Field(description="Lake table → version read.")
    newest: datetime | None = Field(description="Newest event time; null for an empty view.")
    null_share: dict[str, float] = Field(description="Feature → share of rows without a value.")
    spans: tuple[Span, ...] | None = Field(
        None, description="Spans of days that were computed, ends excluded or open; null when the whole view was."
    )


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
                lake,
                view,
                lambda: (checked_rows(view, frame) for frame in view_batches(lake, view, tables, connection)),
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
