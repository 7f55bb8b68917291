"""What measuring costs: a meter beside busy processes, and one addition a request.

Run it: `python benchmarks/cost_metering.py`.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _results import write_section

from ml_platform.cost.meter import Meter
from ml_platform.serving.telemetry.usage import UsageTally
from ml_platform.settings import Settings

SECONDS = 40
# A process of some memory that computes: what a step of training looks like from outside.
BUSY = """
import numpy, time
a = numpy.random.rand(20_000_000)
end = time.time() + {}
while time.time() < end:
    a.sort()
"""
REQUESTS = 1_000_000


class TimedMeter(Meter):
    """A meter that knows what its thread has used."""

    cpu_seconds = 0.0

    def _watch(self) -> None:
        began = time.thread_time()
        super()._watch()
        self.cpu_seconds = time.thread_time() - began


def metered(processes: int) -> tuple[float, float]:
    """CPU seconds of a meter's thread beside busy processes, and those of the processes."""
    meter = TimedMeter(Path(tempfile.mkdtemp()), "run")
    meter.start()
    children = [subprocess.Popen([sys.executable, "-c", BUSY.format(SECONDS)]) for _ in range(processes)]
    for number, child in enumerate(children):
        meter.begin(str(number), {}, pid=child.pid)
    for child in children:
        child.wait()
    used = 0.0
    for number in range(processes):
        account = meter.end(str(number))
        used += account.used.cpu_seconds if account else 0.0
    meter.close()
    return meter.cpu_seconds, used


def noted() -> tuple[float, float]:
    """Nanoseconds of `UsageTally.note`, and of a dictionary's look-up alone."""
    tally = UsageTally(Settings(home=Path(tempfile.mkdtemp())))
    began = time.thread_time_ns()
    for _ in range(REQUESTS):
        tally.note("flight_delay", "shop", 0.0001, 1)
    ours = (time.thread_time_ns() - began) / REQUESTS
    counts = {"flight_delay": 0}
    began = time.thread_time_ns()
    for _ in range(REQUESTS):
        counts["flight_delay"] += 1
    return ours, (time.thread_time_ns() - began) / REQUESTS


def main() -> None:
    """Measure, and write the section."""
    rows = []
    for processes in (1, 2):
        meter, used = metered(processes)
        rows.append(f"| {processes} | {used:.1f} | {meter:.3f} | {meter / used:.2%} |")
    ours, bare = noted()
    others = len([name for name in os.listdir("/proc") if name.isdigit()])
    text = f"""\
A meter's thread beside steps of 160 MB that compute for {SECONDS} s, on a machine with {others} processes.
Wanted: at most 1 %.

| steps at once | their CPU s | the meter's CPU s | share |
|---|---|---|---|
{chr(10).join(rows)}

A request to serving: {ours:.0f} ns to note model, caller, time and rows; a bare count in a dictionary takes {bare:.0f}.
Wanted: at most 1,000 ns."""
    write_section("Metering", "python benchmarks/cost_metering.py", text.splitlines(), packages=["dagster"])


if __name__ == "__main__":
    main()
