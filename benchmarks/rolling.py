"""Trailing windows: a declared view beside plain Polars and its own SQL, each in a process of its own.

Polars' `rolling` has a result at events alone; a declared view also has a row whenever an event leaves a window, so
that the newest row is exact at any time. Measured are the statement that gives those rows and the shorter one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
from _results import write_section

from ml_platform.features.rolling import Rolling
from ml_platform.features.rolling_sums import compute_sums

WINDOWS = (1, 7, 30)  # days
EVENTS, KEYS = 10_000_000, 100_000
DECLARED = Rolling.model_validate(
    {
        "source": "raw/sales",
        "time": "at",
        "windows": [timedelta(days=days) for days in WINDOWS],
        "aggregates": {
            "n": {"function": "count", "description": "Sales."},
            "s": {"function": "sum", "column": "amount", "description": "Takings."},
            "m": {"function": "mean", "column": "amount", "description": "Mean sale."},
        },
    }
)


def write_data(path: Path, events: int) -> None:
    """A year of events to the second."""
    random = np.random.default_rng(0)
    seconds = pl.Series("at", random.integers(0, 365 * 86_400, events) * 1_000_000 + 1_700_000_000_000_000)
    keys = pl.Series("key", random.integers(0, max(events * KEYS // EVENTS, 1), events))
    pl.DataFrame([keys, seconds.cast(pl.Datetime("us", "UTC"))]).with_columns(
        amount=pl.Series(random.normal(size=events))
    ).write_parquet(path)


def _declared(path: Path, *, by_sql: bool) -> pl.DataFrame:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; SET memory_limit = '4GB'; CREATE SCHEMA raw")
        connection.execute(f"CREATE VIEW raw.sales AS FROM read_parquet('{path}')")
        rows = None if by_sql else compute_sums(connection, DECLARED, ("key",), "at")
        return connection.sql(DECLARED.sql(("key",), "at")).pl() if rows is None else rows


def _windows(rows: pl.DataFrame) -> pl.DataFrame:
    parts = [
        rows.rolling("at", period=f"{days}d", group_by="key").agg(
            pl.col("event").sum().alias(f"n_{days}d"),
            pl.col("amount").sum().alias(f"s_{days}d"),
            pl.col("amount").mean().alias(f"m_{days}d"),
        )
        for days in WINDOWS
    ]
    return pl.concat([parts[0], *(part.drop("key", "at") for part in parts[1:])], how="horizontal")


def plain_polars(path: Path) -> pl.DataFrame:
    """`rolling` over the events and the instants at which they leave a window."""
    events = pl.read_parquet(path).with_columns(event=pl.lit(1, pl.Int64))
    at = events.select("key", "at")
    left = [at.with_columns(pl.col("at") + timedelta(days=days)) for days in WINDOWS]
    points = pl.concat([at, *left]).unique().filter(pl.col("at") <= events.get_column("at").max())
    rows = pl.concat([events, points], how="diagonal").sort("key", "at", "event", nulls_last=False)
    return _windows(rows).filter(rows.get_column("event").is_null())


def plain_polars_at_events(path: Path) -> pl.DataFrame:
    """`rolling` over the events alone: fewer rows, no row when a window empties."""
    return _windows(pl.read_parquet(path).with_columns(event=pl.lit(1, pl.Int64)).sort("key", "at"))


CONTENDERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    "this project": lambda path: _declared(path, by_sql=False),
    "this project's SQL in DuckDB (4 GB)": lambda path: _declared(path, by_sql=True),
    "plain Polars `rolling`, the same rows": plain_polars,
    "plain Polars `rolling`, rows at events alone": plain_polars_at_events,
}


def run_one(name: str, path: Path) -> None:
    """Run one contender and print its CPU seconds, peak memory, rows and their sum as JSON."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    frame = CONTENDERS[name](path)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    [peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    counts = frame.select(pl.col(f"n_{days}d").cast(pl.Int64).sum() for days in WINDOWS).row(0)
    same = frame.select(pl.col(f"{kind}_{days}d").cast(pl.Float64).abs().sum() for days in WINDOWS for kind in "sm")
    print(
        json.dumps(
            {
                "seconds": seconds, "cpu": cpu, "peak": peak / 2**20, "rows": frame.height, "counts": counts,
                "sums": [float(f"{value:.6g}") for value in same.row(0)],
            }
        )
    )  # fmt: skip


def main() -> None:
    """Run every contender once and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, Path(arguments.path))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sales.parquet"
        write_data(path, arguments.events)
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--one", name, "--path", str(path)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, found[name], flush=True)
    alike = {json.dumps([one["rows"], one["counts"], one["sums"]]) for one in list(found.values())[:3]}
    if len(alike) != 1:
        raise SystemExit(f"the contenders' rows differ: {alike}")
    plain = found["plain Polars `rolling`, the same rows"]["cpu"]
    lines = [
        f"{arguments.events:,} events, 100 of a key in a year; {', '.join(map(str, WINDOWS))} days × count, sum, mean. "
        "One turn each, in a process of its own. The first three give the same rows, held whole at the end.",
        "",
        "| contender | rows | seconds | CPU seconds | against plain Polars | peak memory, GiB |",
        "| --- | --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {one['rows']:,} | {one['seconds']:.1f} | {one['cpu']:.1f} | {one['cpu'] / plain:.2f} | "
            f"{one['peak']:.2f} |"
            for name, one in found.items()
        ),
    ]
    command = "python benchmarks/rolling.py" + (f" --events {arguments.events}" if arguments.events != EVENTS else "")
    print(write_section("Trailing windows", command, lines, packages=["polars", "duckdb", "numpy"]))


if __name__ == "__main__":
    main()
