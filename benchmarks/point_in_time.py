"""Point-in-time join with TTL and ties: this project's two engines beside plain Polars and plain DuckDB statements.

Every contender runs in a process of its own on the same Parquet files and must give the same rows. Run with `--labels`
and `--rows` for another size.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
from _results import write_section

from ml_platform.features.join import ResolvedLookup, point_in_time_join

VIEWS, FEATURES = 3, 5
TTL = timedelta(days=7)
SPAN = 365 * 86_400  # seconds that events lie in
START = datetime(2024, 1, 1, tzinfo=UTC)
LIMIT = "1500MB"
PARTS = 10  # row groups are written part by part, so that the data need not fit in memory


def write_data(folder: Path, labels: int, rows: int) -> None:
    """Labels and views: keys of even share, times to the second so that ties occur, some repeated with `created`."""
    random = np.random.default_rng(0)
    keys = max(rows // 100, 1)
    spine = _times(random, labels).with_columns(key=pl.Series(random.integers(0, keys, labels)))
    spine.with_row_index("id").write_parquet(folder / "labels.parquet")
    for view in range(VIEWS):
        parts = []
        for _part in range(PARTS):
            frame = _times(random, rows // PARTS).with_columns(
                pl.Series("key", random.integers(0, keys, rows // PARTS)),
                *(pl.Series(f"f{n}", random.normal(size=rows // PARTS)) for n in range(FEATURES)),
            )
            again = frame.head(rows // PARTS // 100).with_columns(pl.col("f0") + 1, created=pl.lit(1))
            parts.append(pl.concat([frame.with_columns(created=pl.lit(0)), again]))
        whole = pl.concat(parts).with_columns(created=pl.col("event_time") + pl.duration(seconds="created"))
        whole.unique(["key", "event_time", "created"], keep="first", maintain_order=True).write_parquet(
            folder / f"view_{view}.parquet"
        )


def _times(random: np.random.Generator, rows: int) -> pl.DataFrame:
    seconds = pl.Series("event_time", random.integers(0, SPAN, rows) * 1_000_000 + int(START.timestamp()) * 1_000_000)
    return pl.DataFrame([seconds.cast(pl.Datetime("us", "UTC"))])


def project(folder: Path, engine: str) -> pl.DataFrame:
    """`point_in_time_join` as a training set calls it."""
    lookups = [
        ResolvedLookup(
            f"v{view}", pl.scan_parquet(folder / f"view_{view}.parquet"), {"key": "key"},
            tuple(f"f{n}" for n in range(FEATURES)), created="created", ttl=TTL,
        )
        for view in range(VIEWS)
    ]  # fmt: skip
    limit = LIMIT if engine == "duckdb" else None
    spine = pl.scan_parquet(folder / "labels.parquet")
    joined = point_in_time_join(spine, lookups, timestamp="event_time", engine=engine, memory_limit=limit)  # type: ignore[arg-type]
    return joined.collect(engine="streaming")


def plain_polars(folder: Path) -> pl.DataFrame:
    """The statement a Polars user would write: sort, drop superseded ties, as-of join; then the spine's order."""
    joined = pl.scan_parquet(folder / "labels.parquet").sort("event_time")
    for view in range(VIEWS):
        known = (
            pl.scan_parquet(folder / f"view_{view}.parquet")
            .sort("event_time", "created")
            .unique(["key", "event_time"], keep="last", maintain_order=True)
            .select("key", "event_time", *(pl.col(f"f{n}").alias(f"v{view}__f{n}") for n in range(FEATURES)))
        )
        joined = joined.join_asof(known, on="event_time", by="key", tolerance=TTL, check_sortedness=False)
    return joined.sort("id").collect(engine="streaming")


def plain_duckdb(folder: Path) -> pl.DataFrame:
    """ASOF joins in one statement per view, ties decided by a window, within the same memory limit."""
    with duckdb.connect() as connection, tempfile.TemporaryDirectory() as spill:
        connection.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '{LIMIT}'; SET temp_directory = '{spill}'")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(f"CREATE TABLE j0 AS FROM read_parquet('{folder}/labels.parquet')")
        for view in range(VIEWS):
            values = ", ".join(
                f"CASE WHEN v.event_time >= s.event_time - INTERVAL {TTL.days} DAY THEN v.f{n} END AS v{view}__f{n}"
                for n in range(FEATURES)
            )
            connection.execute(
                f"CREATE TABLE j{view + 1} AS SELECT s.*, {values} FROM j{view} s ASOF LEFT JOIN (SELECT * FROM "
                f"read_parquet('{folder}/view_{view}.parquet') QUALIFY row_number() OVER "
                f"(PARTITION BY key, event_time ORDER BY created DESC) = 1) v "
                f"ON s.key = v.key AND s.event_time >= v.event_time; DROP TABLE j{view}"
            )
        return connection.sql(f"FROM j{VIEWS} ORDER BY id").pl()


CONTENDERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    "this project, Polars": lambda folder: project(folder, "polars"),
    "plain Polars": plain_polars,
    f"this project, DuckDB ({LIMIT})": lambda folder: project(folder, "duckdb"),
    f"plain DuckDB ({LIMIT})": plain_duckdb,
}


def run_one(name: str, folder: Path) -> None:
    """Run one contender and print its seconds, peak memory and a digest of its rows as JSON."""
    begin = time.perf_counter()
    frame = CONTENDERS[name](folder)
    seconds = time.perf_counter() - begin
    # Not `ru_maxrss`, which a process takes over from the one that started it.
    [peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    names = [f"v{view}__f{n}" for view in range(VIEWS) for n in range(FEATURES)]
    digest = frame.sort("id").select(pl.struct("id", *names).hash().implode().hash()).item()
    found = frame.select(pl.mean_horizontal(pl.col(names).is_not_null().mean())).item()
    print(
        json.dumps({"seconds": seconds, "peak": peak / 2**20, "digest": digest, "rows": frame.height, "found": found})
    )


def main() -> None:
    """Write the data, run every contender in turns, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, default=1_000_000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, Path(arguments.folder))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), arguments.labels, arguments.rows)
        for _ in range(arguments.rounds):
            for name in CONTENDERS:
                command = [sys.executable, __file__, "--one", name, "--folder", folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                results[name].append(json.loads(done.stdout.splitlines()[-1]))
                print(name, results[name][-1], flush=True)
    digests = {round_["digest"] for rounds in results.values() for round_ in rounds}
    if len(digests) != 1:
        raise SystemExit(f"the contenders' rows differ: {results}")
    best = {name: min(rounds, key=lambda item: item["seconds"]) for name, rounds in results.items()}
    plain = min(best[name]["seconds"] for name in best if name.startswith("plain"))
    found = next(iter(best.values()))["found"]
    lines = [
        f"{arguments.labels:,} labels × {VIEWS} views of {arguments.rows:,} rows × {FEATURES} features, TTL {TTL.days} "
        f"days, 1 % ties decided by `created`; {found:.0%} of the values found; the best of {arguments.rounds} turns, "
        "each in a process of its own. All give the same rows.",
        "",
        "| contender | seconds | against the best plain statement | peak memory, GiB |",
        "| --- | --- | --- | --- |",
        *(
            f"| {name} | {b['seconds']:.1f} | {b['seconds'] / plain:.2f} | {b['peak']:.2f} |"
            for name, b in best.items()
        ),
    ]
    size = f" --labels {arguments.labels} --rows {arguments.rows}"
    command = "python benchmarks/point_in_time.py" + (size if arguments.rows != 10_000_000 else "")
    print(write_section("Point-in-time join", command, lines, packages=["polars", "duckdb"]))


if __name__ == "__main__":
    main()
