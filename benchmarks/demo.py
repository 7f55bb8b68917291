"""Time and peak memory of `make demo ONESHOT=1`, from an empty data folder: `python benchmarks/demo.py`.

Memory is the sum over the whole process tree of the proportional set size, which counts a page shared by n processes as
1/n each, so that forked workers are not counted twice.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from _results import write_section

ROOT = Path(__file__).resolve().parents[1]
TARGET_SECONDS, TARGET_GIB = 240, 4
SAMPLE_SECONDS = 0.5


def tree_bytes(root: psutil.Process) -> tuple[int, int]:
    """Return the proportional set size of a process and its descendants, and their number."""
    total = count = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        count += 1
    return total, count


def main() -> int:
    """Run the demo once, watch it, write the figures; return its exit code."""
    with tempfile.TemporaryDirectory(prefix="demo-benchmark-") as home:
        environment = {**os.environ, "ML_PLATFORM_HOME": home}
        begin = time.monotonic()
        demo = subprocess.Popen(["make", "demo", "ONESHOT=1"], cwd=ROOT, env=environment)
        peak = processes = 0
        while demo.poll() is None:
            try:
                size, count = tree_bytes(psutil.Process(demo.pid))
            except psutil.NoSuchProcess:
                break
            if size > peak:
                peak, processes = size, count
            time.sleep(SAMPLE_SECONDS)
        code = demo.wait()
        seconds = time.monotonic() - begin
    if code:
        print(f"make demo ONESHOT=1 failed with exit code {code}: nothing measured", file=sys.stderr)
        return code
    lines = [
        f"From an empty data folder, packages installed; wanted: under {TARGET_SECONDS} s and {TARGET_GIB} GiB.",
        "",
        f"- {seconds:.0f} s until the prediction was printed and every process had stopped",
        f"- {peak / 1024**3:.2f} GiB at the peak (proportional set size), over {processes} processes",
    ]
    print(write_section("The demo", "python benchmarks/demo.py", lines, packages=["dagster", "lightgbm"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
