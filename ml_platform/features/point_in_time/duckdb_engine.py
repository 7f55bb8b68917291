"""The as-of join of keys and times in DuckDB, within a memory limit, spilling to disk."""

from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import polars as pl

from ml_platform.features.point_in_time.lookup import ROW, SEEN, TIME, VISIBLE, ResolvedLookup
from ml_platform.features.point_in_time.ticks import AT, FROM
from ml_platform.lake.names import literal, quoted


def match_spilling(
    spine_keys: pl.DataFrame,
    known: pl.LazyFrame,
    lookup: ResolvedLookup,
    *,
    memory_limit: str | None = None,
) -> pl.DataFrame:
    """Do what `memory_engine.match_in_memory` does, with DuckDB.

    The view's keys and times are first streamed to a Parquet file, so that they need not fit in memory.
    """
    seen = [pl.col(SEEN).to_physical()] if lookup.knowledge_time else []
    with TemporaryDirectory(prefix="point_in_time_") as folder, duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET temp_directory = {literal(folder)}")
        connection.execute("SET preserve_insertion_order = false")
        if memory_limit is not None:
            connection.execute(f"SET memory_limit = {literal(memory_limit)}")
        rows = Path(folder) / "known.parquet"
        # As integers: DuckDB's timestamps reach less far than Polars', and their arithmetic fails at the ends.
        known.with_columns(pl.col(TIME).to_physical(), *seen).sink_parquet(rows, compression="lz4")
        connection.register("spine_keys", spine_keys)
        matches = connection.sql(_statement(rows, lookup)).pl()
    return matches.cast(pl.Schema({ROW: spine_keys.schema[ROW], **known.collect_schema()}))


def _statement(rows: Path, lookup: ResolvedLookup) -> str:
    keys = [quoted(key) for key in lookup.on.values()]
    source, time = f"read_parquet({literal(str(rows))})", TIME
    columns = [*keys, TIME]
    if lookup.knowledge_time:
        # See `memory_engine.newest_when_visible`; the window includes all rows that become visible at the same instant.
        time, row = VISIBLE, f"row({TIME}, {SEEN})"
        columns.append(SEEN)
        source = (
            f"(SELECT *, greatest({TIME}, {SEEN}) AS {VISIBLE} FROM {source} WHERE {SEEN} IS NOT NULL "
            f"QUALIFY {row} = max({row}) OVER (PARTITION BY {', '.join(keys)} ORDER BY greatest({TIME}, {SEEN})))"
        )
    fresh = "" if lookup.ttl is None else f" WHERE v.{TIME} >= s.{FROM}"
    same = " AND ".join(f"s.{key} = v.{key}" for key in keys)
    return (
        f"SELECT s.{ROW}, {', '.join(f'v.{name}' for name in columns)} FROM spine_keys AS s "
        f"ASOF JOIN {source} AS v ON {same} AND s.{AT} >= v.{time}{fresh}"
    )
