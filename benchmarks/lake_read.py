"""What a read through the lake costs beside the engine alone on the same files.

.venv/bin/python benchmarks/lake_read.py
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
from _results import write_section
from polars.testing import assert_frame_equal

from ml_platform.lake.query.sql import query
from ml_platform.lake.storage.tables import Lake

DAYS, ROWS, REPEATS = 120, 60_000, 15
SELECT = """
    SELECT key, avg(a) AS a, max(b) AS b, count(*) AS n FROM {} WHERE day >= DATE '2024-02-01' GROUP BY key ORDER BY key
"""


def _table(lake: Lake) -> None:
    random = np.random.default_rng(1)
    days = [date(2024, 1, 1) + timedelta(days=day) for day in range(DAYS)]
    lake.append(
        "raw/events",
        pl.DataFrame(
            {
                "day": pl.Series(days).gather(np.repeat(np.arange(DAYS), ROWS)),
                "key": random.integers(0, 1000, DAYS * ROWS),
                **{name: random.normal(size=DAYS * ROWS) for name in "abcd"},
            }
        ),
        partition_by=["day"],
    )


def _summary(rows: pl.LazyFrame) -> pl.DataFrame:
    recent = rows.filter(pl.col("day") >= date(2024, 2, 1))
    return recent.group_by("key").agg(pl.mean("a"), pl.max("b"), n=pl.len()).sort("key").collect(engine="streaming")


def _alternating(*ways: Callable[[], object]) -> list[float]:
    """Median CPU seconds of each, measured in turns so that a busy machine hits all of them."""
    seconds: list[list[float]] = [[] for _ in ways]
    for repeat in range(REPEATS + 1):
        for way, taken in zip(ways, seconds, strict=True):
            start = time.process_time()
            way()
            if repeat:  # the first warms the caches
                taken.append(time.process_time() - start)
    return [statistics.median(taken) for taken in seconds]


def main() -> None:
    """Measure and write the section."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        _table(lake)
        version = lake.version("raw/events")
        files = [Path(file) for file in lake.snapshot("raw/events").file_uris()]
        parquet = f"read_parquet({[str(file) for file in files]}, hive_partitioning = true)"

        def duckdb_alone() -> pl.DataFrame:
            with duckdb.connect(":memory:") as connection:
                return connection.sql(SELECT.format(parquet)).pl()

        ways = {
            "Polars alone": lambda: _summary(pl.scan_parquet(files, hive_partitioning=True, try_parse_hive_dates=True)),
            "lake.read": lambda: _summary(lake.read("raw/events")),
            "lake.read, pinned version": lambda: _summary(lake.read("raw/events", version=version)),
            "DuckDB alone": duckdb_alone,
            "query": lambda: query(lake, SELECT.format("raw.events")),
        }
        for way in ways.values():
            assert_frame_equal(way(), ways["Polars alone"](), check_dtypes=False)
        seconds = dict(zip(ways, _alternating(*ways.values()), strict=True))
        size = sum(file.stat().st_size for file in files)
    lines = [
        f"{DAYS * ROWS / 1e6:.1f} million rows in {len(files)} daily partitions ({size / 2**20:.0f} MiB); three "
        f"columns of three months grouped by 1,000 keys; median CPU seconds of {REPEATS} alternating runs.",
        "",
        "| read by | CPU seconds | beside the engine alone |",
        "|---|---|---|",
    ]
    for name, taken in seconds.items():
        alone = seconds["DuckDB alone" if name in ("query", "DuckDB alone") else "Polars alone"]
        lines.append(f"| {name} | {taken:.3f} | {taken / alone:.2f} |")
    packages = ["polars", "duckdb", "deltalake"]
    print(write_section("A read through the lake", "python benchmarks/lake_read.py", lines, packages=packages))


if __name__ == "__main__":
    main()
