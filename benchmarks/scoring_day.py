"""What scoring one day costs when the history behind it grows: processor time and memory of a process of its own.

The same champion scores the same day, 10,000 orders of 1,000 shops with one look-up, from tables with more and more
days before it. Each size is measured in a fresh process, the median of three; an empty day of the same tables says what
of it is starting.

    python benchmarks/scoring_day.py [--rows 1000000 10000000]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
from _results import write_section

from ml_platform.inference.batch import score_window
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Target
from ml_platform.settings import Settings
from ml_platform_tests.toy_world import START, Shops, build_shops, shop_spec

DAILY = 10_000  # orders, and rows of the view
SHOPS = 1_000
BATCH_DAYS = 10  # days per file
RUNS = 3
TABLES = ("raw/orders", "features/shop_load")


def build(home: Path) -> Shops:
    """Train a model on a small world and release it."""
    shops = build_shops(Settings(home=home / "home"), home / "project", shop_spec(families=["lightgbm"]))
    model = shops.train()
    shops.store.publish(
        model.model, [Target(version=1, digest=model.digest)], reason="benchmark", by="benchmark", expected_revision=0
    )
    return shops


def fill(lake: Lake, days: int) -> None:
    """Replace the tables by a history of so many days that ends at the same day, in files of some days each."""
    for table, batch in zip(TABLES, (_orders, _loads), strict=True):
        firsts = range(-days, 0, BATCH_DAYS)
        lake.replace_in_batches(table, lambda batch=batch, firsts=firsts: (batch(day) for day in firsts))
    assert lake.read(TABLES[0]).select(pl.len()).collect().item() == days * DAILY


def _instants(random: np.random.Generator, first: int) -> pl.Series:
    seconds = np.sort(random.integers(0, BATCH_DAYS * 86400, BATCH_DAYS * DAILY)) + first * 86400
    begin = int(START.timestamp())
    return pl.Series(pl.from_epoch(pl.Series(begin + seconds), "s")).dt.cast_time_unit("us").dt.replace_time_zone("UTC")


def _orders(first: int) -> pl.DataFrame:
    random = np.random.default_rng(first + 100_000)
    at = _instants(random, first)
    return pl.DataFrame({"ordered_at": at}).select(
        order_id=pl.format("order-{}-{}", pl.lit(first), pl.int_range(pl.len())),
        shop=pl.format("shop-{}", pl.Series(random.integers(0, SHOPS, len(at)))),
        channel=pl.Series(random.choice(["web", "phone", "store"], len(at))),
        weight=pl.Series(random.gamma(2.0, 6.0, len(at))),
        ordered_at="ordered_at",
        known_at=pl.col("ordered_at") + timedelta(hours=5),
        minutes=pl.Series(random.normal(0, 20, len(at))),
        late=pl.Series(random.random(len(at)) < 0.3),
        outcome=pl.lit("on time"),
    )


def _loads(first: int) -> pl.DataFrame:
    random = np.random.default_rng(first + 200_000)
    at = _instants(random, first)
    return pl.DataFrame({"event_time": at}).select(
        shop=pl.format("shop-{}", pl.Series(random.integers(0, SHOPS, len(at)))),
        event_time="event_time",
        load=pl.Series(random.gamma(2.0, 1.0, len(at))),
        mood=pl.lit("fine"),
    )


def score(home: Path, day: int) -> None:
    """Score one day of the tables, and print what this process took."""
    shops = Shops(Settings(home=home / "home"), home / "project", shop_spec(families=["lightgbm"]))
    shops.views = build_views(shops)
    start = START + timedelta(days=day)
    began, before = time.perf_counter(), _cpu()
    report = score_window(
        shops.lake, shops.spec, shops.folder, shops.views, shops.store, start, start + timedelta(days=1)
    )
    took = {"cpu": _cpu() - before, "seconds": time.perf_counter() - began, "rows": report.rows}
    print(json.dumps({**took, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def build_views(shops: Shops) -> dict:
    """Read the world's views."""
    from ml_platform.features.views.load import load_views

    return load_views(shops.folder / "views")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(home: Path, day: int) -> dict[str, float]:
    """Medians over processes that score a day."""
    command = [sys.executable, __file__, "--score", str(home), "--day", str(day)]
    found = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(RUNS)
    ]
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def main() -> None:
    """Measure every size and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--score", type=Path)
    parser.add_argument("--day", type=int)
    chosen = parser.parse_args()
    if chosen.score:
        score(chosen.score, chosen.day)
        return
    lines = [
        f"One day of {DAILY:,} rows with one look-up (TTL of 3 days), as history grows; ratios to the first line.",
        "",
        "| rows of history, in each table | CPU s | ratio | peak memory MB | ratio | rows scored |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        shops, first = build(Path(folder)), None
        for rows in chosen.rows:
            fill(shops.lake, rows // DAILY)
            found = measure(Path(folder), -1)
            first = first or found
            lines.append(
                f"| {rows:,} | {found['cpu']:.2f} | {found['cpu'] / first['cpu']:.2f} | {found['mb']:.0f} | "
                f"{found['mb'] / first['mb']:.2f} | {found['rows']:,.0f} |"
            )
            print(lines[-1])
    write_section(
        "Scoring a day", "python benchmarks/scoring_day.py", lines, packages=("polars", "duckdb", "deltalake")
    )


if __name__ == "__main__":
    main()
