"""Trailing windows: a declared view beside plain Polars and its own SQL, from a file into a table.

Polars' `rolling` has a result at events alone, as a view with `rows: events`. By default a view also has a row whenever
an event leaves a window, so that the newest row is exact at any time. Both are measured beside the plain statement that
gives the same rows. Each contender runs in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
from _results import write_section

from ml_platform.features.rolling.spec import Rolling
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.query.sql import attach
from ml_platform.lake.storage.tables import Lake

WINDOWS = (1, 7, 30)  # days
EVENTS, KEYS = 10_000_000, 100_000
SOURCE = "raw/sales"


def view_of(rows: str) -> FeatureView:
    """The view that is measured."""
    declared = Rolling.model_validate(
        {
            "source": SOURCE,
            "time": "at",
            "rows": rows,
            "windows": [timedelta(days=days) for days in WINDOWS],
            "aggregates": {
                "n": {"function": "count", "description": "Sales."},
                "s": {"function": "sum", "column": "amount", "description": "Takings."},
                "m": {"function": "mean", "column": "amount", "description": "Mean sale."},
            },
        }
    )
    return FeatureView.model_validate(
        {
            "name": "selling",
            "description": "How a shop sells.",
            "owner": "benchmarks",
            "entity": ("key",),
            "event_time": "at",
            "columns": declared.columns(),
            "sql": declared.sql(("key",), "at"),
            "rolling": declared,
        }
    )


def write_data(lake: Lake, events: int) -> None:
    """A year of events to the second."""
    random = np.random.default_rng(0)
    seconds = pl.Series("at", random.integers(0, 365 * 86_400, events) * 1_000_000 + 1_700_000_000_000_000)
    keys = pl.Series("key", random.integers(0, max(events * KEYS // EVENTS, 1), events))
    frame = pl.DataFrame([keys, seconds.cast(pl.Datetime("us", "UTC"))])
    lake.append(SOURCE, frame.with_columns(amount=pl.Series(random.normal(size=events))))


def declared(lake: Lake, path: Path, rows: str) -> pl.LazyFrame:  # noqa: ARG001 - as the others are called
    """Compute the view as its asset does: read, computed, checked, and written as a version of its table."""
    view = view_of(rows)
    compute_view(lake, view)
    return lake.read(view.table)


def compiled(lake: Lake, path: Path, rows: str) -> pl.LazyFrame:
    """The SQL that the view stands for, into a Parquet file."""
    with duckdb.connect() as connection, tempfile.TemporaryDirectory() as spill:
        connection.execute(f"SET memory_limit = '4GB'; SET temp_directory = '{spill}'")
        attach(connection, lake, [SOURCE])
        connection.execute(f"COPY ({view_of(rows).sql}) TO '{path}' (FORMAT parquet)")
    return pl.scan_parquet(path)


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


def plain_at_changes(lake: Lake, path: Path) -> pl.LazyFrame:
    """`rolling` over the events and the instants at which they leave a window, into a Parquet file."""
    events = lake.read(SOURCE).collect().with_columns(event=pl.lit(1, pl.Int64))
    at = events.select("key", "at")
    left = [at.with_columns(pl.col("at") + timedelta(days=days)) for days in WINDOWS]
    points = pl.concat([at, *left]).unique().filter(pl.col("at") <= events.get_column("at").max())
    rows = pl.concat([events, points], how="diagonal").sort("key", "at", "event", nulls_last=False)
    _windows(rows).filter(rows.get_column("event").is_null()).write_parquet(path)
    return pl.scan_parquet(path)


def plain_at_events(lake: Lake, path: Path) -> pl.LazyFrame:
    """`rolling` over the events, into a Parquet file; two events at one instant give the row twice."""
    events = lake.read(SOURCE).collect().with_columns(event=pl.lit(1, pl.Int64))
    _windows(events.sort("key", "at")).write_parquet(path)
    return pl.scan_parquet(path).unique(["key", "at"])


PLAIN = "plain Polars `rolling`"
CONTENDERS: dict[tuple[str, str], Callable[[Lake, Path], pl.LazyFrame]] = {
    ("events", "this project"): partial(declared, rows="events"),
    ("events", PLAIN): plain_at_events,
    ("changes", "this project"): partial(declared, rows="changes"),
    ("changes", "this project's SQL in DuckDB (4 GB)"): partial(compiled, rows="changes"),
    ("changes", PLAIN): plain_at_changes,
}


def run_one(rows: str, name: str, folder: Path) -> None:
    """Run one contender and print its CPU seconds, peak memory, rows and their sum as JSON."""
    lake = Lake(str(folder / "lake"))
    begin, begin_cpu = time.perf_counter(), time.process_time()
    written = CONTENDERS[rows, name](lake, folder / "rows.parquet")
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    [peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    counts = [pl.col(f"n_{days}d").cast(pl.Int64).sum() for days in WINDOWS]
    sums = [pl.col(f"{kind}_{days}d").cast(pl.Float64).abs().sum() for days in WINDOWS for kind in "sm"]
    [found] = written.select(pl.len(), *counts, *sums).collect(engine="streaming").rows()
    same = [float(f"{value:.6g}") for value in found]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak / 2**20, "rows": found[0], "same": same}))


def main() -> None:
    """Run every contender once and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(*arguments.one, Path(arguments.folder))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_data(Lake(f"{folder}/lake"), arguments.events)
        for contender in CONTENDERS:
            command = [sys.executable, __file__, "--one", *contender, "--folder", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[contender] = json.loads(done.stdout.splitlines()[-1])
            print(contender, found[contender], flush=True)
    for rows in ("events", "changes"):
        if len({json.dumps(one["same"]) for (kind, _), one in found.items() if kind == rows}) != 1:
            raise SystemExit(f"the contenders' rows differ: {found}")
    lines = [
        f"{arguments.events:,} events, 100 of a key in a year; {', '.join(map(str, WINDOWS))} days × count, sum, mean. "
        "One turn each, in a process of its own. Contenders for the same rows give the same; this project writes them "
        "to a table of the lake, sorted by time, the others to a Parquet file.",
        "",
        "| a row is written | contender | rows | seconds | CPU seconds | against plain Polars | peak memory, GiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| at {rows} | {name} | {one['rows']:,} | {one['seconds']:.1f} | {one['cpu']:.1f} | "
            f"{one['cpu'] / found[rows, PLAIN]['cpu']:.2f} | {one['peak']:.2f} |"
            for (rows, name), one in found.items()
        ),
        "",
        "At changes: at every event and whenever one leaves a window. Wanted: at events within 1.3 times plain Polars, "
        "under 2 GiB.",
    ]
    command = "python benchmarks/rolling.py" + (f" --events {arguments.events}" if arguments.events != EVENTS else "")
    packages = ["polars", "duckdb", "numpy", "deltalake"]
    print(write_section("Trailing windows", command, lines, packages=packages))


if __name__ == "__main__":
    main()
