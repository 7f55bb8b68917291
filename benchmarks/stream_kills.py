"""Kills a stream's scorer, sink and connections again and again, and counts every row.

    python benchmarks/stream_kills.py [--kills 100]

Messages come into two partitions, broken ones among them; answers go to a topic, and from there to a Delta table. Each
kill is a SIGKILL at any moment of a worker's work, or of the proxy through which everybody reaches the broker. A
release is swapped in the middle. The same run with fewer kills is a test.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from _results import write_section

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ml_platform_tests.stream_scoring.marathon import Counted, run_marathon  # noqa: E402


def section(counted: Counted, seconds: float) -> str:
    """Write the section."""
    kills = " / ".join(str(counted.kills[name]) for name in ("scorer", "sink", "connections"))
    lines = [
        "| kills: scorer / sink / connections | messages | answered | dead letters | lost | doubled | table ≠ topic |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        f"| {kills} | {counted.messages:,} "
        f"| {counted.answered:,} | {counted.dead_letters:,} | {counted.lost} | {counted.doubled} "
        f"| {counted.table_differs} |",
        "",
        f"By versions {' and '.join(map(str, counted.versions))}, in {seconds:.0f} s.",
    ]
    return write_section(
        "Streams under kills", "python benchmarks/stream_kills.py", lines, packages=["confluent-kafka", "deltalake"]
    )


def main() -> None:
    """Kill, count, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        counted = run_marathon(Path(folder), parser.parse_args().kills)
        print(section(counted, time.perf_counter() - started))


if __name__ == "__main__":
    main()
