"""What a read of a table costs while reads are written to the audit log, beside the same read while they are not.

.venv/bin/python benchmarks/audited_reads.py
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
from _results import write_section

from ml_platform.lake.bound import bound_lake
from ml_platform.lake.query.sql import query
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings

REPEATS = 300


def _alternating(*ways: Callable[[], object]) -> list[float]:
    """Median CPU microseconds of each, measured in turns so that a busy machine hits all of them."""
    seconds: list[list[float]] = [[] for _ in ways]
    for repeat in range(REPEATS + 3):
        for way, taken in zip(ways, seconds, strict=True):
            start = time.process_time()
            way()
            if repeat >= 3:  # the first warm the caches
                taken.append(time.process_time() - start)
    return [1e6 * statistics.median(taken) for taken in seconds]


def main() -> None:
    """Measure and write the section."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Settings(home=Path(folder), audit_reads=False)
        kept = plain.model_copy(update={"audit_reads": True})
        Lake(plain.lake_uri).append("raw/events", pl.DataFrame({f"c{number}": [1.0] * 1000 for number in range(20)}))
        quiet, audited = bound_lake(plain, "sql"), bound_lake(kept, "sql")
        select = "SELECT avg(c1) FROM raw.events"
        results = _alternating(
            lambda: quiet.read("raw/events").collect(),
            lambda: audited.read("raw/events").collect(),
            lambda: query(quiet, select),
            lambda: query(audited, select),
        )
        (line,) = _alternating(lambda: audited.record_read("raw/events", 0, [f"c{number}" for number in range(20)], 1))
        lines = sum(path.read_bytes().count(b"\n") for path in kept.audit_dir.glob("*.jsonl"))
        size = sum(path.stat().st_size for path in kept.audit_dir.glob("*.jsonl")) / lines
    rows = [
        f"| {name} | {before:,.0f} | {after:,.0f} | {after / before:.2f} |"
        for name, before, after in (("rows of a table", *results[:2]), ("SQL", *results[2:]))
    ]
    write_section(
        "Reads in the audit log",
        "python benchmarks/audited_reads.py",
        [
            f"A table of 1,000 rows and 20 columns, medians of {REPEATS} reads in turns. A line takes {line:,.0f} µs "
            f"and {size:,.0f} bytes, which is less than what reads differ by from one another.",
            "",
            "| read | CPU µs without | with | ratio |",
            "| --- | ---: | ---: | ---: |",
            *rows,
        ],
        packages=("polars", "duckdb", "deltalake"),
    )


if __name__ == "__main__":
    main()
