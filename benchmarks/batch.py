"""What scoring a table in batch costs: beside plain `predict` over a frame, beside Spark, by memory, and on Ray.

    python benchmarks/batch.py usual large ray
    python benchmarks/batch.py spark --spark /path/of/a/python/with/pyspark,mlflow,lightgbm

Everything scores the same orders of the same Delta table with the same three look-ups, point in time, by the same
LightGBM over 41 features, and writes the scores. Each way runs in a process of its own that imports only what it needs
(`_batch_ways.py`), in turns, and the least of its turns counts. Figures are processor seconds of the process and what
it started, since the machine is shared; memory is the proportional set size of all these processes, looked at five
times a second.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from _batch_names import FEATURES, LOOKED_UP, NUMBERS, feature_names
from _batch_world import build
from _results import write_section

WAYS = Path(__file__).with_name("_batch_ways.py")
NAMES = {
    "ours": "`ml-platform score` into a file",
    "table": "`ml-platform score` into a table",
    "polars": "Polars `join_asof`, LightGBM `predict`",
    "pandas": "pandas `merge_asof`, LightGBM `predict`",
    "joined": "`ml-platform score` into a file, rows joined before",
    "spark": "`mlflow.pyfunc.spark_udf`, `local[2]`, rows joined before",
}
_EACH = 0.2  # seconds between looks at the memory


class Cost(NamedTuple):
    """What one way took."""

    start: float  # processor seconds until it was ready
    cpu: float  # after that
    seconds: float  # after that, by the clock
    mb: float  # most memory
    told: dict[str, Any]  # what it printed itself


def measure(way: str, home: Path, out: Path, python: str = sys.executable) -> Cost:
    """Run one way."""
    if (home / "scoring").exists():
        subprocess.run(["rm", "-r", home / "scoring"], check=True)  # it would find that all is there already
    for left in (out, home / "lake/scores"):
        subprocess.run(["rm", "-rf", left], check=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(
        [python, WAYS, way, home, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    tree, most, done = psutil.Process(process.pid), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(_EACH):
            most[0] = max(most[0], memory(tree))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = before = cpu = seconds = 0.0
    told: dict[str, Any] = {}
    try:
        for line in process.stdout:
            if line.startswith("READY"):
                start, before = spent(tree), time.perf_counter()
            elif line.startswith("DONE"):
                cpu, seconds = spent(tree) - start, time.perf_counter() - before
                process.stdin.close()
            elif line.startswith("{"):
                told = json.loads(line)
    finally:
        done.set()
        watcher.join()
        if process.wait() != 0:
            raise RuntimeError(f"{way} ended with code {process.returncode}")
    cost = Cost(start, cpu, seconds, most[0], told)
    print(way, *(f"{name}={value}" for name, value in cost._asdict().items()), flush=True)
    return cost


def spent(tree: psutil.Process) -> float:
    """Processor seconds of a process and all that it started, ended or not."""
    total = 0.0
    for process in (tree, *tree.children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # its parent has its seconds
    return total


def memory(tree: psutil.Process) -> float:
    """MB of a process and all that it started; a page that several share counts as a part in each."""
    total = 0.0
    try:
        for process in (tree, *tree.children(recursive=True)):
            total += process.memory_full_info().pss / 2**20
    except psutil.Error:
        pass  # it just ended
    return total


def in_turns(ways: Sequence[str], home: Path, turns: int) -> dict[str, Cost]:
    """The turn of each way that took least."""
    every = [{way: measure(way, home, home.parent / f"{way}.parquet") for way in ways} for _ in range(turns)]
    return {way: min((one[way] for one in every), key=lambda cost: cost.start + cost.cpu) for way in ways}


def usual(folder: Path, options: argparse.Namespace) -> None:
    """Beside plain `predict`."""
    rows, home = options.rows, folder / "home"
    build(home, rows, trees=300)
    costs = in_turns(["ours", "table", "polars", "pandas"], home, options.turns)
    write("Scoring in batch", options, [described(rows, 300), "", *compared(costs, "pandas", rows)])


def spark(folder: Path, options: argparse.Namespace) -> None:
    """Beside Spark."""
    if options.spark is None:
        raise SystemExit("say --spark and the path of a Python with pyspark, mlflow, lightgbm and polars")
    rows, home = options.rows, folder / "home"
    build(home, rows, trees=300)
    measure("join", home, folder / "join.parquet")
    costs = in_turns(["ours", "joined"], home, options.turns)
    every = [measure("spark", home, folder / f"spark-{turn}", options.spark) for turn in range(options.turns)]
    costs["spark"] = min(every, key=lambda cost: cost.cpu)
    one, other = costs["joined"], costs["spark"]
    write(
        "Scoring in batch beside Spark", options,
        [
            described(rows, 300), "",
            *compared(costs, "joined", rows),
            "",
            "Start excluded (of Spark: session, model, and workers that have scored rows; of ours: imports), over the "
            f"same joined rows, Spark takes {other.cpu / one.cpu:.1f} times the processor time and "
            f"{other.seconds / one.seconds:.1f} times as long by the clock.",
        ],
    )  # fmt: skip


def large(folder: Path, options: argparse.Namespace) -> None:
    """Memory as the rows grow, in process."""
    lines = [
        "Into a table of the lake, with 30 trees:",
        "",
        "| rows | CPU s | µs a row | seconds | peak memory MB (PSS) |",
        "|---|---|---|---|---|",
    ]
    for rows in options.large:
        home = folder / str(rows) / "home"
        build(home, rows, trees=30)
        one = measure("table", home, home.parent / "unused")
        lines.append(f"| {rows:,} | {one.cpu:.1f} | {1e6 * one.cpu / rows:.2f} | {one.seconds:,.0f} | {one.mb:,.0f} |")
        subprocess.run(["rm", "-r", home.parent], check=True)
    write("Scoring in batch: memory", options, lines)


def ray(folder: Path, options: argparse.Namespace) -> None:
    """One process beside two workers, by the processor time that bounds each."""
    lines = [
        "Over files, start excluded (of Ray and its workers). The bound is the processor time of the busier worker, or",
        "of the process that hands out the parts.",
        "",
        "| model | one process, CPU s | µs a row | busier of two workers | driver | times as fast | by the clock |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, trees, leaves in (("300 trees of 31 leaves", 300, 31), ("600 trees of 255 leaves", 600, 255)):
        rows, home = options.rows, folder / str(leaves) / "home"
        build(home, rows, trees=trees, leaves=leaves)
        turns = [
            (measure("ours", home, home.parent / "alone.parquet"), measure("ray", home, home.parent / "ray.parquet"))
            for _ in range(options.turns)
        ]
        alone, many = min((one for one, _ in turns), key=lambda cost: cost.cpu), min(
            (other for _, other in turns), key=lambda cost: max(cost.told["workers"][0], cost.told["own"])
        )  # fmt: skip
        busiest, own = many.told["workers"][0], many.told["own"]
        clock = min(one.seconds for one, _ in turns) / min(other.told["wall"] for _, other in turns)
        lines.append(
            f"| {name} | {alone.cpu:.1f} | {1e6 * alone.cpu / rows:.1f} | {busiest:.1f} | {own:.1f} | "
            f"{alone.cpu / max(busiest, own):.2f} | {clock:.2f} |"
        )
        subprocess.run(["rm", "-r", home.parent], check=True)
    write("Scoring in batch on Ray", options, [*lines, "", f"{options.rows:,} rows."])


def described(rows: int, trees: int) -> str:
    """What is scored."""
    return (
        f"{rows:,} rows, {len(LOOKED_UP)} look-ups of {FEATURES} features each, {len(feature_names())} features "
        f"({NUMBERS} numbers of the row), {trees} trees of 31 leaves."
    )


def compared(costs: dict[str, Cost], beside: str, rows: int) -> list[str]:
    """Table of ways, with ratios to one of them."""
    lines = [
        "| | CPU s with start | ratio | CPU s after it | µs a row | ratio | seconds after it | peak memory MB (PSS) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    peer = costs[beside]
    for way, one in costs.items():
        whole = one.start + one.cpu
        lines.append(
            f"| {NAMES[way]} | {whole:.1f} | {whole / (peer.start + peer.cpu):.2f} | {one.cpu:.1f} | "
            f"{1e6 * one.cpu / rows:.1f} | {one.cpu / peer.cpu:.2f} | {one.seconds:.1f} | {one.mb:,.0f} |"
        )
    return lines


def write(title: str, options: argparse.Namespace, lines: list[str]) -> None:
    """Write a section, with the load of the machine."""
    load = f"Load average {os.getloadavg()[1]:.1f} over the last 5 minutes, on {os.cpu_count()} cores."
    packages = ("polars", "pandas", "lightgbm", "onnxruntime", "numba", "deltalake", "ray")
    command = f"python benchmarks/batch.py {options.part}"
    print(write_section(title, command, [*lines, "", load], packages=packages))


def main() -> None:
    """Measure, and write the sections."""
    parts = {"usual": usual, "spark": spark, "large": large, "ray": ray}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*parts], default=["usual", "large", "ray"])
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--large", type=int, nargs="*", default=[2_000_000, 20_000_000])
    parser.add_argument("--spark", help="Python with pyspark, mlflow, lightgbm and polars")
    options = parser.parse_args()
    for part in options.parts:
        options.part = part
        with tempfile.TemporaryDirectory() as folder:
            parts[part](Path(folder), options)


if __name__ == "__main__":
    main()
