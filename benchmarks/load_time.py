"""How long the code location takes to load, as a multiple of `import dagster` alone: `python benchmarks/load_time.py`.

Each import runs in a fresh process and is measured by its CPU time, which other work on the machine disturbs least.
Byte code is there already, as at every start but the first.
"""

import os
import resource
import statistics
import subprocess
import sys

from _results import write_section

RUNS = 15
TARGET = 2.1
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
ALONE, LOCATION = "import dagster", "from ml_platform.definitions import defs; defs()"


def cpu_seconds(statement: str) -> float:
    """Return the CPU time, user and system, of a fresh Python that executes one statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> None:
    """Measure both, alternating, and write the ratio of the medians."""
    for statement in (ALONE, LOCATION):  # byte code and file cache
        cpu_seconds(statement)
    times: dict[str, list[float]] = {ALONE: [], LOCATION: []}
    for _ in range(RUNS):
        for statement, seconds in times.items():
            seconds.append(cpu_seconds(statement))
    medians = {statement: statistics.median(seconds) for statement, seconds in times.items()}
    lines = [
        f"Median of {RUNS} fresh processes each, CPU seconds, with byte code; wanted: at most {TARGET} times.",
        "",
        "| statement | CPU s | ratio |",
        "|---|---|---|",
        *(f"| `{name}` | {seconds:.2f} | {seconds / medians[ALONE]:.2f} |" for name, seconds in medians.items()),
    ]
    print(write_section("Loading the code location", "python benchmarks/load_time.py", lines, packages=["dagster"]))


if __name__ == "__main__":
    main()
