"""What pushed rows cost: the server's CPU time per push and per row, beside a prediction; and what reads pay for them.

    python benchmarks/pushes.py [--requests 2000]

The real server (`python -m ml_platform.serving`, one worker) takes rows of a view of seven numbers into SQLite, from
one connection that waits for each answer. A prediction looks up three views; between two pushes it finds that none of
the rows that it remembers count any more. The figure is the server process' CPU time (user and system). Offline,
100,000 one-row pushes are moved into the lake, and a view of one million computed rows is read whole with and without
them.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import polars as pl
import psutil
from _results import write_section

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ml_platform.features.online.push_log import Pushed, stream  # noqa: E402
from ml_platform.features.online.pushed_rows import ingest_pushed, read_view  # noqa: E402
from ml_platform.features.views.compute import compute_view  # noqa: E402
from ml_platform.lake.storage.tables import Lake  # noqa: E402
from ml_platform.segment_log.segments import SegmentLog  # noqa: E402
from ml_platform.settings import Settings  # noqa: E402
from ml_platform_tests.serving.pushing import COLUMNS, VIEW, row, set_up, weather_view  # noqa: E402
from ml_platform_tests.serving.releases import KNOWN_AT, MODEL, ROW  # noqa: E402

MANY = 1000
PUSHED, COMPUTED, REPEATS = 100_000, 1_000_000, 5
SECOND = timedelta(seconds=1)


@contextmanager
def server(settings: Settings) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """Run the server until the block ends."""
    command = [sys.executable, "-m", "ml_platform.serving", "--port", "0", "--log-level", "warning"]
    environment = {**os.environ, "ML_PLATFORM_HOME": str(settings.home)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[1]
        with httpx.Client(base_url=url, timeout=30, transport=httpx.HTTPTransport(retries=20)) as client:
            while client.get("/health/ready").status_code != 200:
                time.sleep(0.05)
            yield client, psutil.Process(process.pid)
        process.terminate()


def cpu(process: psutil.Process, work: Callable[[int], httpx.Response], count: int) -> float:
    """CPU seconds of a process per request, after a few to warm up."""
    for number in range(20):
        work(-1 - number).raise_for_status()
    before = process.cpu_times()
    for number in range(count):
        work(number).raise_for_status()
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / count


def online(settings: Settings, requests: int) -> list[str]:
    """Rows of the table: what the server does."""
    with server(settings) as (client, process):

        def predict(_: int) -> httpx.Response:
            return client.post(f"/predict/{MODEL}", json=ROW)

        def push(number: int) -> httpx.Response:
            return client.post(f"/features/{VIEW}", json=row("EWR", KNOWN_AT + (100 + number) * SECOND, 1.0))

        def push_many(number: int) -> httpx.Response:
            at = KNOWN_AT + (100 + number) * SECOND
            return client.post(f"/features/{VIEW}", json={"rows": [row(f"A{place}", at, 1.0) for place in range(MANY)]})

        def push_and_predict(number: int) -> httpx.Response:
            push(requests + number).raise_for_status()
            return predict(number)

        alone = cpu(process, predict, requests)
        one = cpu(process, push, requests)
        both = cpu(process, push_and_predict, requests)
        many = cpu(process, push_many, max(requests // 50, 10))
        megabytes = process.memory_info().rss / 2**20
    return [
        "| request | CPU µs | beside a prediction |",
        "|---|---|---|",
        f"| a prediction, nothing pushed | {alone * 1e6:.0f} | 1.00 |",
        f"| a push of one row | {one * 1e6:.0f} | {one / alone:.2f} |",
        f"| a prediction after each push | {(both - one) * 1e6:.0f} | {(both - one) / alone:.2f} |",
        f"| a push of {MANY:,} rows, per row | {many / MANY * 1e6:.1f} | {many / MANY / alone:.3f} |",
        "",
        f"The worker held {megabytes:.0f} MiB afterwards.",
    ]


def offline(settings: Settings) -> list[str]:
    """Sentences on the lake's side."""
    lake, view = Lake(settings.lake_uri), weather_view()
    keys = [f"A{number % 1000}" for number in range(COMPUTED)]
    times = [KNOWN_AT - number // 1000 * SECOND for number in range(COMPUTED)]
    values = {name: pl.Series(name, range(COMPUTED), dtype=pl.Float64) for name in COLUMNS}
    lake.replace("raw/weather", pl.DataFrame({"origin": keys, "seen_at": times, **values}))
    compute_view(lake, view)
    without = _read_seconds(lake)
    types = {"origin": "string", "event_time": "timestamp", **dict.fromkeys(COLUMNS, "number")}
    log, start = SegmentLog(settings.push_log_dir, "push log"), int(KNOWN_AT.timestamp() * 1_000_000)
    for number in range(PUSHED):
        sent = [f"A{number % 1000}", start + number, *[1.0] * len(COLUMNS)]
        record = Pushed(
            request_id=str(number), view=VIEW, view_hash=view.hash, time=datetime.now(UTC), caller=None, types=types,
            rows=[sent],
        )  # fmt: skip
        log.append(stream(VIEW, view.hash), [record])
    log.close()
    began = time.process_time()
    moved = sum(report.rows for report in ingest_pushed(lake, settings.push_log_dir, VIEW))
    ingest = (time.process_time() - began) / moved
    beside = _read_seconds(lake)
    return [
        f"The ingest takes {ingest * 1e6:.1f} CPU µs per pushed row. Reading {COMPUTED:,} computed rows takes "
        f"{without:.2f} CPU seconds; with {PUSHED:,} pushed ones as well {beside:.2f}, {beside / without:.1f} times.",
    ]


def _read_seconds(lake: Lake) -> float:
    """CPU seconds of reading the view whole, the best of some."""
    found = []
    for _ in range(REPEATS):
        began = time.process_time()
        read_view(lake, weather_view()).collect(engine="streaming")
        found.append(time.process_time() - began)
    return min(found)


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=2000)
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        set_up(settings, Lake(settings.lake_uri), weather_view())
        table = online(settings, requests)
    with tempfile.TemporaryDirectory() as home:
        sentences = offline(Settings(home=Path(home)))
    lines = [*table, "", *sentences]
    print(
        write_section("Pushed rows", "python benchmarks/pushes.py", lines, packages=["fastapi", "polars", "deltalake"])
    )


if __name__ == "__main__":
    main()
