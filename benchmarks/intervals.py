"""What an interval or a set of classes adds to a request: CPU time of one server, with and without `?interval=0.9`.

The model has 300 trees over the flights' features, three of whose views are looked up; as a classifier, and as a
regression. Rounds with and without alternate, so that a busy machine is alike to both.

    python benchmarks/intervals.py [--requests 2000] [--rounds 24]
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from _load import message, server
from _plain_model import boosted_graph
from _results import write_section

from ml_platform.registry.manifest import Conformal, Target
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import MODEL, ROW, bundle, fill_online_store

LEVELS = (0.5, 0.9, 0.99)
ROWS: dict[str, Any] = {"rows": 500, "first": "2013-05-01T00:00:00Z", "last": "2013-05-29T00:00:00Z"}
TASKS: dict[str, dict[str, Any]] = {
    "set of two classes": {"conformal": Conformal(levels=LEVELS, cutoffs=(0.6, 0.3, 0.05), **ROWS)},
    "interval of a regression": {
        "task": "regression",
        "threshold": None,
        "conformal": Conformal(levels=LEVELS, lower=(-1.0, -3.0, -9.0), upper=(2.0, 5.0, 20.0), **ROWS),
    },
}


def measure(home: Path, changes: dict[str, Any], count: int, requests: int, rounds: int) -> tuple[float, float, float]:
    """CPU seconds per request of so many rows, without and with, and their ratio; medians over rounds."""
    settings = Settings(home=home)
    fill_online_store(settings)
    store = ReleaseStore(settings.releases_dir)
    digest = store.put_bundle(bundle(1, graph=boosted_graph(), **changes))
    store.publish(MODEL, [Target(version=1, digest=digest)], reason="a benchmark", by="benchmark")
    body = json.dumps(ROW if count == 1 else {"rows": [ROW] * count}).encode()
    messages = [message(f"/predict/{MODEL}{query}", body) for query in ("", "?interval=0.9")]
    costs: tuple[list[float], list[float]] = ([], [])
    command = [sys.executable, "-m", "ml_platform.serving", "--port", "{port}", "--log-level", "warning"]
    with server(command, {"ML_PLATFORM_HOME": str(home)}) as running:
        for text in messages:
            running.measure([text], requests // 4)
        for _ in range(rounds):
            for found, text in zip(costs, messages, strict=True):
                found.append(running.measure([text], requests).cpu)
    ratio = statistics.median(after / before for before, after in zip(*costs, strict=True))
    return statistics.median(costs[0]), statistics.median(costs[1]), ratio


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2_000, help="Requests of one row in a round.")
    parser.add_argument("--rounds", type=int, default=24, help="Rounds with, and as many without.")
    options = parser.parse_args()
    lines = [
        "CPU time of the server per request, asked without and with `?interval=0.9`; medians of alternating rounds.",
        "",
        "| answer | rows | without, µs | with, µs | ratio |",
        "|---|---|---|---|---|",
    ]
    for what, changes in TASKS.items():
        for count in (1, 100):
            with tempfile.TemporaryDirectory() as folder:
                requests = options.requests // (1 if count == 1 else 10)
                before, after, ratio = measure(Path(folder), changes, count, requests, options.rounds)
            lines.append(f"| {what} | {count} | {1e6 * before:.0f} | {1e6 * after:.0f} | {ratio:.3f} |")
            print(lines[-1], flush=True)
    packages = ("onnxruntime", "msgspec", "uvicorn")
    print(write_section("Intervals", "python benchmarks/intervals.py", lines, packages=packages))


if __name__ == "__main__":
    main()
