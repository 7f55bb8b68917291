"""The point-in-time join in DuckDB: one ASOF JOIN per view, within a memory limit, spilling to disk."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import polars as pl

from ml_platform.features.join import ROW, SEEN, TIME, VISIBLE, ResolvedLookup, feature_column, named_columns

_INDEX = "__index"


def join_spilling(
    spine: pl.LazyFrame, lookups: Sequence[ResolvedLookup], timestamp: str, *, memory_limit: str | None = None
) -> pl.LazyFrame:
    """Do what `point_in_time_join` does, by its rules, with DuckDB.

    Both sides are written to Parquet files first, as streams, so that neither has to fit in memory; the spine with
    its features is held at the end.
    """
    schema = spine.collect_schema()
    wanted = dict(schema)
    with TemporaryDirectory(prefix="point_in_time_") as folder, duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"SET temp_directory = {_text(folder)}")
        connection.execute("SET preserve_insertion_order = false")
        if memory_limit is not None:
            connection.execute(f"SET memory_limit = {_text(memory_limit)}")
        joined = Path(folder) / "spine.parquet"
        spine.with_row_index(ROW).sink_parquet(joined, compression="lz4")
        for number, lookup in enumerate(lookups):
            rows, result = Path(folder) / f"view_{number}.parquet", Path(folder) / f"joined_{number}.parquet"
            named = named_columns(lookup).with_row_index(_INDEX)
            features = [feature_column(lookup.view, feature) for feature in lookup.features]
            wanted |= {name: kind for name, kind in named.collect_schema().items() if name in features}
            named.sink_parquet(rows, compression="lz4")
            statement = _statement(joined, rows, lookup, timestamp, features)
            connection.execute(f"COPY ({statement}) TO {_text(str(result))} (FORMAT parquet, COMPRESSION lz4)")
            joined.unlink()
            rows.unlink()
            joined = result
        columns = ", ".join(map(_quoted, wanted))
        frame = connection.sql(f"SELECT {columns} FROM read_parquet({_text(str(joined))}) ORDER BY {ROW}").pl()
    return frame.cast(pl.Schema(wanted)).lazy()


def _statement(spine: Path, rows: Path, lookup: ResolvedLookup, timestamp: str, features: Sequence[str]) -> str:
    keys = [_quoted(key) for key in lookup.on.values()]
    time, taken = TIME, ", ".join([*keys, *map(_quoted, features)])
    source = f"read_parquet({_text(str(rows))})"
    order = f"{SEEN} DESC NULLS LAST, {_INDEX} DESC" if lookup.created else f"{_INDEX} DESC"
    if lookup.knowledge_time:
        # See `join._join_known`: only rows that are the newest event at the instant at which they come into sight.
        time = VISIBLE
        newest = f"max(__rank) OVER (PARTITION BY {', '.join(keys)} ORDER BY {VISIBLE}, __rank)"
        source = (
            f"(SELECT * FROM (SELECT *, greatest({TIME}, {SEEN}) AS {VISIBLE}, "
            f"row_number() OVER (ORDER BY {TIME}, {SEEN}, {_INDEX}) AS __rank FROM {source} WHERE {SEEN} IS NOT NULL) "
            f"QUALIFY __rank = {newest})"
        )
        order = "__rank DESC"
    one_each = f"row_number() OVER (PARTITION BY {', '.join([*keys, time])} ORDER BY {order}) = 1"
    known = f"SELECT {taken}, {', '.join(dict.fromkeys([TIME, time]))} FROM {source} QUALIFY {one_each}"
    at = f"s.{_quoted(timestamp)}"
    fresh = "true"
    if lookup.ttl is not None:
        fresh = f"v.{TIME} >= {at} - to_microseconds({lookup.ttl // lookup.ttl.resolution})"
    values = ", ".join(f"CASE WHEN {fresh} THEN v.{_quoted(name)} END AS {_quoted(name)}" for name in features)
    same = " AND ".join(f"s.{key} = v.{key}" for key in keys)
    return (
        f"SELECT s.*, {values} FROM read_parquet({_text(str(spine))}) AS s "
        f"ASOF LEFT JOIN ({known}) AS v ON {same} AND {at} >= v.{time}"
    )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
