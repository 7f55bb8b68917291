"""Runs a view's query or function over its sources, at given versions and from a given instant on."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

import duckdb
import polars as pl

from ml_platform.features.views.declared_types import UTC_MICROSECONDS
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.names import quoted
from ml_platform.lake.query import sql
from ml_platform.lake.storage.tables import Lake


def view_batches(
    lake: Lake,
    view: FeatureView,
    versions: Mapping[str, int],
    connection: duckdb.DuckDBPyConnection,
    *,
    since: tuple[Mapping[str, str], datetime] | None = None,
) -> Iterator[pl.DataFrame]:
    """Compute a view's rows from its sources at the given versions, not yet typed or checked.

    Gives at least one frame; all rows of an entity are in the same frame. `since` (source → time column, instant)
    leaves out the source rows before the instant.
    """
    if view.function is not None:
        frames = {table: lake.read(table, version=versions[table]) for table in view.sources}
        if since is not None:
            for table, column in since[0].items():
                at = pl.col(column).cast(UTC_MICROSECONDS)
                frames[table] = frames[table].filter((at >= since[1]) | at.is_null())
        rows = view.function(*frames.values())
        if not isinstance(rows, pl.LazyFrame):
            type_name = type(rows).__name__
            raise ValueError(f"view '{view.name}': its function must return a polars.LazyFrame, found {type_name}")
        yield rows.collect(engine="streaming")
        return
    sql.attach(connection, lake, view.source_tables, versions)
    if since is not None:
        _keep_since(connection, *since)
    if view.rolling is not None:
        from ml_platform.features.rolling.change_engine import compute_changes
        from ml_platform.features.rolling.numpy_engine import compute_sums
        from ml_platform.features.rolling.sql_engine import compute_parts

        arguments = (connection, view.rolling, view.entity, view.event_time)
        yield from compute_changes(*arguments) or compute_sums(*arguments) or compute_parts(*arguments)
        return
    yield connection.sql(view.sql).pl()


def _keep_since(connection: duckdb.DuckDBPyConnection, times: Mapping[str, str], since: datetime) -> None:
    """Restrict attached tables (table → time column) to the rows from an instant on; rows without a time stay."""
    for table, column in times.items():
        schema, _, name = table.partition("/")
        whole, view, at = quoted(f"{name}__whole"), f"{quoted(schema)}.{quoted(name)}", quoted(column)
        connection.execute(f"DROP VIEW IF EXISTS {quoted(schema)}.{whole}")
        connection.execute(f"ALTER VIEW {view} RENAME TO {whole}")
        connection.execute(
            f"CREATE VIEW {view} AS SELECT * FROM {quoted(schema)}.{whole} "
            f"WHERE {at} IS NULL OR {at} >= TIMESTAMPTZ '{since.astimezone(UTC).isoformat()}'"
        )
