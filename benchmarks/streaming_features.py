"""Streamed features: CPU time per event, what a look-up pays for timelines, and the batch engine of the same windows.

    python benchmarks/streaming_features.py [--events 100000] [--entities 5000]

Events are JSON messages in memory, so that no broker is measured: they are read, counted in windows of one minute, one
hour and one day with count, sum, mean, distinct and last (15 features), kept in the state file by one transaction per
batch, and timelines are written to SQLite. A look-up is `Lookups.find` over three views of those 15 features, from
which every value is taken. All figures are CPU time of one process.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import numpy as np
import polars as pl
from _results import write_section

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ml_platform.features.expressions.columns import Columns  # noqa: E402
from ml_platform.features.online.open import open_online_store  # noqa: E402
from ml_platform.features.online.store import to_micros  # noqa: E402
from ml_platform.features.rolling.change_engine import compute_changes  # noqa: E402
from ml_platform.features.rolling.numpy_engine import compute_sums  # noqa: E402
from ml_platform.features.rolling.spec import Rolling  # noqa: E402
from ml_platform.features.streaming.feature_stream import FeatureStream  # noqa: E402
from ml_platform.features.streaming.read_events import EventReader  # noqa: E402
from ml_platform.features.views.load import load_views  # noqa: E402
from ml_platform.features.views.view import FeatureView  # noqa: E402
from ml_platform.lake.storage.tables import Lake  # noqa: E402
from ml_platform.registry.manifest import Feature, Manifest, ViewLookup  # noqa: E402
from ml_platform.serving.inputs.feature_lookup import Lookups  # noqa: E402
from ml_platform.streams.protocols import Message  # noqa: E402
from ml_platform_tests.serving import releases  # noqa: E402

START = datetime(2024, 5, 1, tzinfo=UTC)
SPAN = timedelta(hours=2)
BATCHES = (50, 500, 5000)
VIEW = """
description: How a shop is selling.
owner: shops@example.com
entity: [shop]
ttl: 2 days
rolling:
  source: raw/sales
  time: sold_at
  windows: [1 minute, 1 hour, 1 day]
  aggregates:
    sales: {function: count, description: Sales.}
    revenue: {function: sum, column: amount, decimals: 2, description: Takings.}
    basket: {function: mean, column: amount, decimals: 2, description: Mean sale.}
    clerks: {function: distinct, column: clerk, description: Clerks seen.}
    last_clerk: {function: last, column: clerk, type: string, description: Who sold last.}
stream:
  source: {type: kafka, topic: sales, servers: "127.0.0.1:9"}
  columns: {shop: string, amount: number, clerk: string, sold_at: timestamp}
  max_batch: 5000
"""


def declared(folder: Path, number: int = 1) -> list[FeatureView]:
    """Views that differ by name alone."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(number):
        (folder / f"shop_sales_{place}.yaml").write_text(VIEW)
    return list(load_views(folder).values())


def messages(events: int, entities: int) -> list[Message]:
    """Events of two hours, few entities with many and many with few, 1 % of them late by up to five minutes."""
    chance = random.Random(4)
    made = []
    for place in range(events):
        arrived = START + SPAN * (place / events)
        at = arrived - timedelta(seconds=chance.uniform(0, 300) if chance.random() < 0.01 else 0)
        shop = min(int(chance.paretovariate(0.7)), entities)
        value = {
            "shop": f"s{shop}",
            "amount": round(chance.uniform(0, 99), 2),
            "clerk": f"c{chance.randrange(20)}",
            "sold_at": at.isoformat(),
        }
        made.append(Message(0, place, json.dumps(value).encode(), None, to_micros(arrived)))
    return made


def take_all(folder: Path, views: list[FeatureView], made: list[Message], batch: int) -> tuple[float, float, float]:
    """CPU seconds of taking all messages, of landing them, and timelines written per event."""
    now = [START.timestamp()]
    with (
        open_online_store(f"sqlite:///{folder}/online.db") as store,
        FeatureStream(Lake(str(folder / "lake")), views, store, folder / "streams", clock=lambda: now[0]) as one,
    ):
        before = time.process_time()
        for place in range(0, len(made), batch):
            some = made[place : place + batch]
            now[0] = some[-1].time / 1e6
            one.take(some)
            one.pass_time()
        taken = time.process_time() - before
        before = time.process_time()
        one.land()
        return taken, time.process_time() - before, one.counts.written / len(made)


def engine_lines(events: int, entities: int) -> list[str]:
    """The table of the engine."""
    made = messages(events, entities)
    reader_view = declared(Path(tempfile.mkdtemp()))[0]
    assert reader_view.stream is not None
    assert reader_view.rolling is not None
    reader = EventReader(reader_view.stream, [reader_view.rolling])
    before = time.process_time()
    for place in range(0, events, 5000):
        reader.read(made[place : place + 5000])
    reading = time.process_time() - before
    lines = [
        "| events at once | µs an event | events a second and core | of which reading JSON | timelines an event |",
        "| --- | --- | --- | --- | --- |",
    ]
    for batch in BATCHES:
        number = min(events, batch * 400)
        with tempfile.TemporaryDirectory() as folder:
            taken, landing, written = take_all(Path(folder), declared(Path(folder) / "views"), made[:number], batch)
        each = 1e6 * taken / number
        lines.append(
            f"| {batch:,} | {each:.1f} | {1e6 / each:,.0f} | {1e6 * reading / events:.1f} µs | {written:.2f} |"
        )
    return [*lines, "", f"Landing in the raw table takes {1e6 * landing / number:.2f} µs an event, in one commit."]


def measured(work: Callable[[], Any], repeats: int) -> float:
    """Least CPU microseconds of a call, over five rounds."""
    rounds = []
    for _ in range(5):
        before = time.process_time()
        for _ in range(repeats):
            work()
        rounds.append(time.process_time() - before)
    return 1e6 * min(rounds) / repeats


def lookup_lines(entities: int) -> list[str]:
    """The table of look-ups."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        views, made = declared(folder / "views", 3), messages(30_000, entities)
        take_all(folder, views, made, 5000)
        with open_online_store(f"sqlite:///{folder}/online.db") as store:
            shops = sorted({json.loads(one.value or b"")["shop"] for one in made})
            names = sorted(views[0].columns)
            plain = pl.DataFrame({"shop": shops, "event_time": START}).with_columns(
                pl.lit(1.0).alias(name) if not name.startswith("last") else pl.lit("c1").alias(name) for name in names
            )
            for view in views:
                store.write(view.name, view.entity, plain, view.event_time, view_hash=view.hash)
            at = to_micros(START + SPAN * (30_000 / 30_000))
            rows: dict[str, list[float]] = {}
            for kind in ("plain", "streamed, no change has passed", "streamed, changes have passed"):
                lookups = Lookups(manifest(views, streamed=kind != "plain"), store)
                instant = at if kind.endswith("changes have passed") else to_micros(START)
                for number in (1, 100):
                    columns = Columns({"shop": (shops * 100)[:number]}, {"shop": "string"}, number)
                    as_of = np.full(number, instant)
                    rows.setdefault(kind, []).append(measured(partial(fill, lookups, columns, as_of), 2000 // number))
    base = rows["plain"]
    return [
        "| look-up of three views, 45 features | 1 row | 100 rows |",
        "| --- | --- | --- |",
        *(
            f"| {kind} | {one:.0f} µs ({one / base[0]:.2f}×) | {many:.0f} µs ({many / base[1]:.2f}×) |"
            for kind, (one, many) in rows.items()
        ),
    ]


def fill(lookups: Lookups, columns: Columns, as_of: np.ndarray) -> None:
    """Look up, and take every value."""
    found, _ = lookups.find(columns, as_of)
    for view in found:
        view.view.numbers(view.entities)


def manifest(views: list[FeatureView], *, streamed: bool) -> Manifest:
    """A model that looks up every feature of the views."""
    base = msgspec.json.decode(releases.bundle(1)["manifest.json"], type=Manifest)
    lookups = tuple(
        ViewLookup(
            view=view.name,
            view_hash=view.hash,
            keys={"shop": "shop"},
            features=tuple(f"{view.name}__{name}" for name in view.columns),
            ttl_seconds=2 * 86_400.0,
            streamed=streamed,
        )
        for view in views
    )
    features = tuple(
        Feature(
            name=name,
            kind="categorical" if "__last" in name else "numeric",
            source=f"view:{lookup.view}",
            categories=("c1",) if "__last" in name else None,
        )
        for lookup in lookups
        for name in lookup.features
    )
    return msgspec.structs.replace(base, lookups=lookups, features=features)


def batch_lines(events: int, entities: int) -> list[str]:
    """The batch engine over arrivals beside that of plain windows: counts, sums and means alone."""
    made = messages(events, entities)
    decoded = pl.DataFrame([json.loads(one.value or b"") for one in made]).with_columns(
        pl.col("sold_at").str.to_datetime(time_unit="us", time_zone="UTC"),
        pl.Series("arrived", [one.time for one in made]).cast(pl.Datetime("us", "UTC")),
    )
    view = declared(Path(tempfile.mkdtemp()))[0]
    assert view.rolling is not None
    sums = {name: item for name, item in view.rolling.aggregates.items() if item.function in {"count", "sum", "mean"}}
    shared = {"source": "raw/sales", "time": "sold_at", "windows": view.rolling.windows}
    exact = Rolling.model_validate({**shared, "arrived": "arrived", "aggregates": sums})
    floats = {name: item.model_copy(update={"decimals": None}) for name, item in sums.items()}
    plain = Rolling.model_validate({**shared, "aggregates": floats})
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw; SET threads = 1")
        connection.register("sales", decoded)
        connection.execute("CREATE TABLE raw.sales AS FROM sales")
        times = []
        for engine, rolling in ((compute_sums, plain), (compute_changes, exact)):
            before = time.process_time()
            frames = engine(connection, rolling, ("shop",), "event_time")
            assert frames is not None
            rows = sum(frame.height for frame in frames)
            times.append((1e6 * (time.process_time() - before) / events, rows))
    (one, rows), (other, exact_rows) = times
    return [
        f"The batch engine of windows over arrivals takes {other:.1f} µs an event ({exact_rows:,} rows), that of plain "
        f"windows {one:.1f} µs ({rows:,} rows): {other / one:.2f}×, for nine features."
    ]


def main() -> None:
    """Measure, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--entities", type=int, default=5_000)
    options = parser.parse_args()
    lines = [
        *engine_lines(options.events, options.entities),
        "",
        *lookup_lines(options.entities),
        "",
        *batch_lines(options.events, options.entities),
    ]
    command = f"python benchmarks/streaming_features.py --events {options.events} --entities {options.entities}"
    print(write_section("Streamed features", command, lines, packages=("polars", "duckdb")))


if __name__ == "__main__":
    main()
