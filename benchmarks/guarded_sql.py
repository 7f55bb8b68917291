"""What masks and filters cost: SQL through a guard beside the same SQL on an open lake, and the gate alone.

.venv/bin/python benchmarks/guarded_sql.py
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import duckdb
import numpy as np
import polars as pl

from ml_platform.lake.access import TableAccess
from ml_platform.lake.query.principal_gate import check_principals_sql
from ml_platform.lake.query.sql import parse_tree, query
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.lake.guarded_world import SmallGuard

WIDE = (
    "SELECT k, " + ", ".join(f"avg(c{n}) AS a{n}, max(c{n}) AS m{n}" for n in range(30)) + " FROM raw.wide GROUP BY k"
)
QUERIES = {"wide: 60 aggregates of 30 columns": WIDE, "narrow: one sum": "SELECT sum(c0) FROM raw.wide"}


def cpu(run: Callable[[], object], times: int) -> float:
    """Median CPU seconds of a call."""
    spent = []
    for _ in range(times):
        begun = time.process_time()
        run()
        spent.append(time.process_time() - begun)
    return statistics.median(spent)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=7)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    columns = {f"c{n}": random.normal(size=options.rows) for n in range(60)}
    rows = pl.DataFrame(
        {"k": random.integers(0, 50, options.rows), "city": random.integers(0, 100, options.rows), **columns}
    )
    lake = Lake(tempfile.mkdtemp(prefix="guarded-sql-"))
    lake.append("raw/wide", rows)
    masks: dict[str, str | None] = dict.fromkeys(rows.columns)
    access = TableAccess(masks | {"c1": "round(c1, 1)", "c2": "NULL", "city": "NULL"}, "city >= 0")
    guarded = Lake(lake.uri, guard=SmallGuard({"raw/wide": access}))
    for name, sql in QUERIES.items():
        query(lake, sql), query(guarded, sql)
        plain, masked = (
            cpu(lambda s=sql: query(lake, s), options.times),
            cpu(lambda s=sql: query(guarded, s), options.times),
        )  # type: ignore[misc]
        print(f"{name}: open {plain * 1000:.0f} ms CPU, guarded {masked * 1000:.0f} ms CPU, ratio {masked / plain:.2f}")
    with duckdb.connect() as connection:
        tree = parse_tree(WIDE, connection)
        gate = cpu(lambda: [check_principals_sql(tree) for _ in range(100)], 5) * 10
        parse = cpu(lambda: [parse_tree(WIDE, connection) for _ in range(100)], 5) * 10
        print(f"the wide query's tree: {parse:.2f} ms to parse, {gate:.2f} ms to check")


if __name__ == "__main__":
    main()
