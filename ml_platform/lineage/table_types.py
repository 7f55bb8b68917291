"""Columns of tables as DuckDB sees them: of contracts, of views before they are computed, of what is in the lake."""

from collections.abc import Callable, Mapping
from typing import Any

import duckdb
import polars as pl

from ml_platform.features.stream_spec import ARRIVED, PARTITION, POSITION, TOO_LATE
from ml_platform.features.views.declared_types import DTYPES, UTC_MICROSECONDS
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.query.duckdb_types import duckdb_type
from ml_platform.lake.query.sql import referenced_tables
from ml_platform.lineage.sql_columns import create_tables

Columns = dict[str, str]  # column → DuckDB type


def sql_table(table: str) -> str:
    """Name of a lake table in SQL and in the graph.

    Examples
    --------
    >>> sql_table("raw/flights"), sql_table("quarantine/raw/flights")
    ('raw.flights', 'quarantine.raw/flights')
    """
    return ".".join(table.split("/", 1))


def duckdb_columns(schema: Mapping[str, pl.DataType]) -> Columns:
    """DuckDB's types of a Polars schema."""
    return {name: duckdb_type(dtype) for name, dtype in pl.Schema(schema).items()}


class TableTypes:
    """The columns of a project's tables, by name of the lake; each is looked up once.

    Parameters
    ----------
    tables, views
        The project's raw tables and views.
    stored
        Gives the schema of a table that nothing declares, if it is in the lake.
    """

    def __init__(
        self,
        tables: Mapping[str, RawTable],
        views: Mapping[str, FeatureView],
        stored: Callable[[str], Mapping[str, pl.DataType] | None],
    ) -> None:
        self._tables = tables
        self._views = {view.table: view for view in views.values()}
        self._stored = stored
        self._known: dict[str, Columns] = {}

    def __call__(self, table: str) -> Columns:
        """Columns of a table with their DuckDB types.

        Raises
        ------
        LookupError
            If nothing declares it and it is not in the lake.
        """
        if table not in self._known:
            self._known[table] = duckdb_columns(self.schema(table))
        return self._known[table]

    def schema(self, table: str) -> Mapping[str, Any]:
        """Columns of a table with their Polars types (raises LookupError as above)."""
        if table in self._tables:
            return {name: column.dtype for name, column in self._tables[table].contract.columns().items()}
        if table in self._views:
            return self._of_view(self._views[table])
        streamed = next(
            (one for one in self._views.values() if one.stream and one.rolling and one.rolling.source == table), None
        )
        if streamed is not None:
            return stream_schema(streamed)
        schema = self._stored(table)
        if schema is None:
            raise LookupError(f"no table '{table}' is declared, and none is in the lake")
        return schema

    def of_query(self, sql: str) -> dict[str, Columns]:
        """The tables that a query reads, by their names in SQL."""
        return {sql_table(table): self(table) for table in sorted(referenced_tables(sql))}

    def _of_view(self, view: FeatureView) -> dict[str, Any]:
        times = dict.fromkeys([view.event_time, *([view.created] if view.created else [])], UTC_MICROSECONDS)
        features = {name: DTYPES[column.type] for name, column in view.columns.items()}
        return {**self._keys(view), **times, **features}

    def _keys(self, view: FeatureView) -> dict[str, Any]:
        """Types of a view's entity columns: declared nowhere, so those of the sources' columns or the query's."""
        known: dict[str, Any] = {}
        for source in view.source_tables:
            known |= {name: kind for name, kind in self.schema(source).items() if name in view.entity}
        if view.sql and set(view.entity) - set(known):
            with duckdb.connect(":memory:", config={"threads": 1}) as connection:
                create_tables(connection, self.of_query(view.sql))
                known |= connection.sql(view.sql).pl().schema
        return {name: known.get(name, pl.String()) for name in view.entity}


def stream_schema(view: FeatureView) -> dict[str, Any]:
    """Schema of the raw table that a view's stream fills."""
    assert view.stream is not None
    own = {ARRIVED: UTC_MICROSECONDS, TOO_LATE: pl.Boolean(), PARTITION: pl.Int64(), POSITION: pl.Int64()}
    return {**{name: DTYPES[kind] for name, kind in view.stream.columns.items()}, **own}
