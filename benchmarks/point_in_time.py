"""Point-in-time join with TTL and ties: this project's two engines beside plain Polars, plain DuckDB and Feast.

Every contender runs in a process of its own on the same Parquet files and must give the same rows. Feast, which needs
an older pandas, gets an environment of its own, made by uv in a temporary folder; `--without-feast` leaves it out. Its
cost grows with the events that lie within the TTL, so that two longer ones are measured too.
`--large 1 3 10` shows how cost grows with the size, for those that spill within 4 GB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
from _results import write_section

from ml_platform.features.point_in_time.join import point_in_time_join
from ml_platform.features.point_in_time.lookup import ResolvedLookup

LABELS, ROWS = 1_000_000, 10_000_000
VIEWS, FEATURES = 3, 5
VALUES = [f"v{view}__f{n}" for view in range(VIEWS) for n in range(FEATURES)]
TTLS = (7, 90, 365)  # days: 2, 22 and 50 events of a key before the mean label
SPAN = 365 * 86_400  # seconds that events lie in
START = datetime(2024, 1, 1, tzinfo=UTC)
LIMIT, LARGE_LIMIT = "1500MB", "4GB"
PARTS = 10  # row groups are written part by part, so that the data need not fit in memory
FEAST = ("feast[duckdb]==0.67.*", "pandas<3")
FEAST_NAME = "Feast 0.67, DuckDB offline store"


@dataclass(frozen=True)
class Case:
    """What a contender is asked."""

    folder: Path
    limit: str
    days: int

    @property
    def ttl(self) -> timedelta:
        """Age up to which an event counts."""
        return timedelta(days=self.days)


def write_data(folder: Path, labels: int, rows: int) -> None:
    """Labels and views: keys of even share, times to the second so that ties occur, some repeated with `created`."""
    random = np.random.default_rng(0)
    keys = max(rows // 100 // PARTS, 1) * PARTS
    spine = _times(random, labels).with_columns(key=pl.Series(random.integers(0, keys, labels)))
    spine.with_row_index("id").cast({"id": pl.Int64}).write_parquet(folder / "labels.parquet")
    for view in range(VIEWS):
        parts = (_events(random, rows // PARTS, keys, part) for part in range(PARTS))
        first = next(parts).to_arrow()
        with pq.ParquetWriter(folder / f"view_{view}.parquet", first.schema, compression="zstd") as writer:
            writer.write_table(first, row_group_size=500_000)
            for frame in parts:
                writer.write_table(frame.to_arrow(), row_group_size=500_000)


def _events(random: np.random.Generator, rows: int, keys: int, part: int) -> pl.DataFrame:
    """Events of every tenth key, so that no two parts share one: the same instant twice is told by `created`."""
    frame = _times(random, rows).with_columns(
        pl.Series("key", random.integers(0, keys // PARTS, rows) * PARTS + part),
        *(pl.Series(f"f{n}", random.normal(size=rows)) for n in range(FEATURES)),
    )
    again = frame.head(rows // 100).with_columns(pl.col("f0") + 1, created=pl.lit(1))
    whole = pl.concat([frame.with_columns(created=pl.lit(0)), again])
    return (
        whole.with_columns(created=pl.col("event_time") + pl.duration(seconds="created"))
        .unique(["key", "event_time", "created"], keep="first", maintain_order=True)
        .sample(fraction=1.0, shuffle=True, seed=part)
    )


def _times(random: np.random.Generator, rows: int) -> pl.DataFrame:
    seconds = pl.Series("event_time", random.integers(0, SPAN, rows) * 1_000_000 + int(START.timestamp()) * 1_000_000)
    return pl.DataFrame([seconds.cast(pl.Datetime("us", "UTC"))])


def project(case: Case, engine: str) -> pl.DataFrame:
    """`point_in_time_join` as a training set calls it."""
    lookups = [
        ResolvedLookup(
            f"v{view}", pl.scan_parquet(case.folder / f"view_{view}.parquet"), {"key": "key"},
            tuple(f"f{n}" for n in range(FEATURES)), created="created", ttl=case.ttl,
        )
        for view in range(VIEWS)
    ]  # fmt: skip
    spine = pl.scan_parquet(case.folder / "labels.parquet")
    joined = point_in_time_join(spine, lookups, timestamp="event_time", engine=engine, memory_limit=case.limit)  # type: ignore[arg-type]
    return joined.collect(engine="streaming")


def plain_polars(case: Case) -> pl.DataFrame:
    """The statement a Polars user would write: sort, drop superseded ties, as-of join; then the spine's order."""
    joined = pl.scan_parquet(case.folder / "labels.parquet").sort("event_time")
    for view in range(VIEWS):
        known = (
            pl.scan_parquet(case.folder / f"view_{view}.parquet")
            .sort("event_time", "created")
            .unique(["key", "event_time"], keep="last", maintain_order=True)
            .select("key", "event_time", *(pl.col(f"f{n}").alias(f"v{view}__f{n}") for n in range(FEATURES)))
        )
        joined = joined.join_asof(known, on="event_time", by="key", tolerance=case.ttl, check_sortedness=False)
    return joined.sort("id").collect(engine="streaming")


def plain_duckdb(case: Case) -> pl.DataFrame:
    """ASOF joins in one statement per view, ties decided by a window, within the same memory limit."""
    with duckdb.connect() as connection, tempfile.TemporaryDirectory() as spill:
        connection.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '{case.limit}'; SET temp_directory = '{spill}'")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(f"CREATE TABLE j0 AS FROM read_parquet('{case.folder}/labels.parquet')")
        for view in range(VIEWS):
            values = ", ".join(
                f"CASE WHEN v.event_time >= s.event_time - INTERVAL {case.days} DAY THEN v.f{n} END AS v{view}__f{n}"
                for n in range(FEATURES)
            )
            connection.execute(
                f"CREATE TABLE j{view + 1} AS SELECT s.*, {values} FROM j{view} s ASOF LEFT JOIN (SELECT * FROM "
                f"read_parquet('{case.folder}/view_{view}.parquet') QUALIFY row_number() OVER "
                f"(PARTITION BY key, event_time ORDER BY created DESC) = 1) v "
                f"ON s.key = v.key AND s.event_time >= v.event_time; DROP TABLE j{view}"
            )
        return connection.sql(f"FROM j{VIEWS} ORDER BY id").pl()


CONTENDERS: dict[str, Callable[[Case], pl.DataFrame]] = {
    "this project, Polars": lambda case: project(case, "polars"),
    "plain Polars": plain_polars,
    "this project, DuckDB": lambda case: project(case, "duckdb"),
    "plain DuckDB": plain_duckdb,
}


def run_one(name: str, case: Case) -> None:
    """Run one contender and print its seconds, CPU seconds, peak memory and a digest of its rows as JSON."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    frame = CONTENDERS[name](case)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - begin_cpu
    # Not `ru_maxrss`, which a process takes over from the one that started it.
    [peak] = [int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line]
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak / 2**20, **digest(frame)}))


def digest(frame: pl.DataFrame) -> dict[str, float]:
    """What must be the same for all: the rows' hash and number, and how many values were found."""
    values = frame.sort("id").select("id", *VALUES)
    found = values.select(pl.mean_horizontal(pl.col(VALUES).is_not_null().mean())).item()
    return {"digest": values.select(pl.struct(pl.all()).hash().implode().hash()).item(), "found": found}


def feast_python(folder: Path) -> Path:
    """Make an environment with Feast and give its interpreter."""
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *FEAST], check=True)
    return python


def measured(command: Iterable[str | Path]) -> dict[str, float]:
    """Run a contender and read what it prints last."""
    environment = {**os.environ, "FEAST_USAGE": "False"}
    done = subprocess.run(list(command), check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def turns(names: Iterable[str], case: Case, rounds: int, feast: Path | None) -> dict[str, dict[str, float]]:
    """Best turn of each contender by CPU seconds; all must give the same rows."""
    best: dict[str, dict[str, float]] = {}
    asked = ["--folder", str(case.folder), "--limit", case.limit, "--days", str(case.days)]
    for number in range(rounds):
        for name in names:
            found = measured([sys.executable, __file__, "--one", name, *asked])
            best[name] = min(best.get(name, found), found, key=lambda one: one["cpu"])
            print(case.days, name, found, flush=True)
        if feast is not None and number == 0:  # long enough for one turn to tell
            sizes = map(str, (VIEWS, FEATURES, case.days))
            found = measured([feast, Path(__file__).with_name("point_in_time_feast.py"), case.folder, *sizes])
            best[FEAST_NAME] = found | digest(pl.read_parquet(case.folder / "feast.parquet"))
            print(case.days, FEAST_NAME, best[FEAST_NAME], flush=True)
    if len({one["digest"] for one in best.values()}) != 1:
        raise SystemExit(f"the contenders' rows differ: {best}")
    return best


def side_by_side(rounds: int, with_feast: bool) -> None:
    """Measure all contenders at one size and write the section."""
    lines = [
        f"{LABELS:,} labels × {VIEWS} views of {ROWS:,} rows × {FEATURES} features, unsorted, 100 events of a key in a "
        f"year, 1 % ties decided by `created`; DuckDB within {LIMIT}, Feast without a limit. Of {rounds} "
        "turn(s) the best (Feast: of one), each in a process of its own. All give the same rows. Compare CPU seconds.",
        "",
        "| TTL | contender | seconds | CPU seconds | against the best plain statement | against this project, Polars | "
        "peak memory, GiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as environment:
        feast = feast_python(Path(environment)) if with_feast else None
        write_data(Path(folder), LABELS, ROWS)
        for days in TTLS:
            best = turns(CONTENDERS, Case(Path(folder), LIMIT, days), rounds, feast)
            plain = min(best[name]["cpu"] for name in best if name.startswith("plain"))
            ours = best["this project, Polars"]["cpu"]
            lines += [
                f"| {days} days | {name} | {one['seconds']:.1f} | {one['cpu']:.1f} | {one['cpu'] / plain:.2f} | "
                f"{one['cpu'] / ours:.1f} | {one['peak']:.2f} |"
                for name, one in best.items()
            ]
    lines += [
        "",
        "Feast pairs each label with every event of its key within the TTL and then keeps the newest: its cost is that "
        f"of the pairs, about 2, 22 and 50 for a label and view at {', '.join(map(str, TTLS))} days, the last as if a "
        "value held until it is replaced. The other contenders find the newest event first and look at its age then.",
    ]
    packages = ["polars", "duckdb", "numpy"]
    print(write_section("Point-in-time join", "python benchmarks/point_in_time.py", lines, packages=packages))


def growth(factors: list[int]) -> None:
    """Measure what spills at several sizes and write the section."""
    lines = [
        f"Times {LABELS:,} labels × {VIEWS} views of {ROWS:,} rows × {FEATURES} features; DuckDB within {LARGE_LIMIT}, "
        "spilling; one turn each. The joined rows are held in memory at the end.",
        "",
        "| size | contender | seconds | CPU seconds | against plain | peak memory, GiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for factor in factors:
        with tempfile.TemporaryDirectory() as folder:
            write_data(Path(folder), LABELS * factor, ROWS * factor)
            names = ["this project, DuckDB", "plain DuckDB"]
            best = turns(names, Case(Path(folder), LARGE_LIMIT, TTLS[0]), 1, None)
        lines += [
            f"| {factor} | {name} | {one['seconds']:.0f} | {one['cpu']:.0f} | "
            f"{one['cpu'] / best[names[1]]['cpu']:.2f} | {one['peak']:.2f} |"
            for name, one in best.items()
        ]
    command = f"python benchmarks/point_in_time.py --large {' '.join(map(str, factors))}"
    print(write_section("Point-in-time join, growth", command, lines, packages=["polars", "duckdb"]))


def main() -> None:
    """Read what to measure and do it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--without-feast", action="store_true")
    parser.add_argument("--large", type=int, nargs="+", metavar="FACTOR", help="multiples of the size, e.g. 1 3 10")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--limit", help=argparse.SUPPRESS)
    parser.add_argument("--days", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, Case(Path(arguments.folder), arguments.limit, arguments.days))
    elif arguments.large:
        growth(arguments.large)
    else:
        side_by_side(arguments.rounds, not arguments.without_feast)


if __name__ == "__main__":
    main()
