"""What a body's format costs: the same rows as JSON, CSV and Parquet on MLflow's route.

    python benchmarks/bodies.py [--requests 20]

The real server (`python -m ml_platform.serving`, one worker) answers rows that all differ, with three look-ups each,
from one connection that waits for each answer. The figure is CPU time (user and system) of the worker, and of the
process that decodes its Parquet files. Texts and instants are texts in all formats.
"""

import argparse
import io
import json
import tempfile
from pathlib import Path

import polars as pl
import psutil
from _results import write_section
from pushes import server

from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import MODEL, ROW, fill_online_store, publish

PATH = f"/models/{MODEL}/invocations"
COUNTS = (1, 1_000, 10_000)


def bodies(count: int) -> dict[str, tuple[str, bytes]]:
    """The rows by format, each with its media type."""
    rows = [{**ROW, "flight_id": f"flight {number}", "distance": 200 + number % 5_000} for number in range(count)]
    columns = list(ROW)
    frame, file = pl.DataFrame(rows), io.BytesIO()
    frame.write_parquet(file)
    split = {"columns": columns, "data": [list(row.values()) for row in rows]}
    return {
        "dataframe_records": ("application/json", json.dumps({"dataframe_records": rows}).encode()),
        "dataframe_split": ("application/json", json.dumps({"dataframe_split": split}).encode()),
        "CSV": ("text/csv", frame.write_csv().encode()),
        "Parquet": ("application/vnd.apache.parquet", file.getvalue()),
    }


def spent(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def measure(settings: Settings, requests: int) -> list[str]:
    """Lines of the section."""
    lines = ["| rows | format | KiB | worker, CPU ms | its decoder, CPU ms |", "|---|---|---|---|---|"]
    with server(settings) as (client, worker):
        for count in COUNTS:
            for name, (media_type, body) in bodies(count).items():
                headers = {"Content-Type": media_type}
                for _ in range(3):
                    client.post(PATH, content=body, headers=headers).raise_for_status()
                children = worker.children()
                repeats = max(requests, 2_000 // count)
                before, decoder = spent(worker), sum(map(spent, children))
                for _ in range(repeats):
                    client.post(PATH, content=body, headers=headers).raise_for_status()
                own = 1000 * (spent(worker) - before) / repeats
                other = 1000 * (sum(map(spent, children)) - decoder) / repeats
                decoded = f"{other:.2f}" if name == "Parquet" else ""
                lines.append(f"| {count:,} | {name} | {len(body) / 1024:,.1f} | {own:.2f} | {decoded} |")
        memory = worker.memory_info().rss / 2**20
        [child] = worker.children()
        lines += [
            "",
            f"Afterwards the worker held {memory:.0f} MiB, its decoder {child.memory_info().rss / 2**20:.0f}.",
        ]
    return lines


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20, help="of each kind (default: %(default)s)")
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        fill_online_store(settings)
        publish(settings, 1)
        lines = measure(settings, requests)
    print(
        write_section(
            "Formats of a body",
            "python benchmarks/bodies.py",
            lines,
            packages=("fastapi", "msgspec", "pyarrow"),
        )
    )


if __name__ == "__main__":
    main()
