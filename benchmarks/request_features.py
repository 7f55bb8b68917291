"""Cost of a request's derived features and look-ups: compiled expressions beside Polars, the online store per request.

All request features of flight_delay are computed for one row by Polars (the frame is there, the query is built and run)
and by the compiled closures that serving uses, and for many rows by Polars, its home ground. The online store is read
for one entity of one to six views, as a request is. Everything is CPU time, which a busy machine inflates least.

    python benchmarks/request_features.py
"""

import tempfile
import time
import timeit
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from _results import ROOT, write_section

from ml_platform.features.expressions.compile import compile_tree, evaluator
from ml_platform.features.expressions.request_features import add_request_features, load_request_features
from ml_platform.features.online.open import open_online_store

FEATURES = ROOT / "ml_platform" / "defs" / "flight_delay" / "request_features.py"
DEPARTURE = datetime(2013, 9, 12, 9, 15, tzinfo=UTC)
ROWS = 100_000
WRITTEN = 200_000


def microseconds(function: Callable[[], Any], number: int) -> float:
    """CPU time per call, best of five."""
    return min(timeit.repeat(function, number=number, repeat=5, timer=time.process_time)) / number * 1e6


def expressions() -> list[str]:
    """Table of one row and many rows, Polars against the closures."""
    features = load_request_features(FEATURES)
    compiled = [(name, evaluator(compile_tree(feature.expression))) for name, feature in features.items()]
    request = {"scheduled_departure": DEPARTURE, "scheduled_arrival": DEPARTURE + timedelta(hours=4)}
    one = pl.DataFrame([request]).with_columns(pl.all().dt.cast_time_unit("us"))
    many = pl.select(pl.int_range(ROWS).alias("n")).join(one, how="cross")
    many = many.with_columns(pl.col(list(request)) + pl.duration(seconds="n")).rechunk()

    def online() -> dict[str, Any]:
        row: dict[str, Any] = dict(request)
        for name, evaluate in compiled:
            row[name] = evaluate(row)
        return row

    closures = microseconds(online, 5_000)
    figures = [
        (f"compiled, one row ({len(compiled)} features)", closures),
        ("Polars, one row", microseconds(lambda: add_request_features(one.lazy(), features).collect(), 100)),
        (
            f"Polars, per row of {ROWS:,}",
            microseconds(lambda: add_request_features(many.lazy(), features).collect(), 1) / ROWS,
        ),
    ]
    table = ["| request features | CPU µs per row | times compiled |", "|---|---|---|"]
    return table + [f"| {what} | {cost:.3g} | {cost / closures:.3g} |" for what, cost in figures]


def online_store() -> list[str]:
    """Cost of reading one entity's row of one to six views, and writing speed."""
    values = {f"value_{n}": 1.5 * n for n in range(6)}
    names = [f"N{n:05}" for n in range(WRITTEN)]
    frame = pl.DataFrame({"key": names, "event_time": [DEPARTURE] * WRITTEN}).with_columns(
        pl.col("event_time").dt.cast_time_unit("us"), **{name: pl.lit(value) for name, value in values.items()}
    )
    with tempfile.TemporaryDirectory() as folder, open_online_store(f"sqlite:///{folder}/online.db") as store:
        start = time.process_time()
        store.write("view_0", ("key",), frame)
        speed = WRITTEN / (time.process_time() - start)
        for view in range(1, 6):
            store.write(f"view_{view}", ("key",), frame.head(4_000))
        reads = {
            views: microseconds(lambda n=views: store.read([(f"view_{v}", ("N00042",)) for v in range(n)]), 2_000)
            for views in (1, 3, 6)
        }
        batch = [("view_0", (name,)) for name in names[:10_000]]
        bulk = microseconds(lambda: store.read(batch), 1) / len(batch)
    lines = [
        f"{speed:,.0f} rows of six values written per CPU second; 10,000 keys in one read: {bulk:.1f} µs each.",
        "",
    ]
    table = ["| views looked up for one row | CPU µs per request |", "|---|---|"]
    return lines + table + [f"| {views} | {cost:.1f} |" for views, cost in reads.items()]


def main() -> None:
    """Measure, print and keep."""
    lines = [*expressions(), "", *online_store()]
    print(
        write_section(
            "Request features and look-ups",
            "python benchmarks/request_features.py",
            lines,
            packages=("polars", "msgspec"),
        )
    )


if __name__ == "__main__":
    main()
