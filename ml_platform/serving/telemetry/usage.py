"""What serving costs by model and caller: each worker's use is divided among them by the time that their requests took.

A request costs one addition in a dictionary. Every `WRITE_SECONDS` a thread reads what the worker's process used since
the last time and writes a line for each model and caller, so that the lines of a worker add up to its process. A worker
that is killed loses what it used since then.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable

from ml_platform.cost.records import SERVING, Use, UseLog, is_metered, now
from ml_platform.processes.identity import this_process
from ml_platform.processes.usage import ProcessTree, Usage
from ml_platform.settings import Settings

WRITE_SECONDS = 30.0
ANONYMOUS = "anonymous"

logger = logging.getLogger("serving")


class UsageTally:
    """Counts the requests of one worker by model and caller, and writes what they used.

    Parameters
    ----------
    settings
        `cost_dir` gets the lines.
    count
        Called with model and CPU seconds of each line, for metrics.
    """

    def __init__(self, settings: Settings, count: Callable[[str, float], None] = lambda *_: None) -> None:
        self._log = UseLog(settings.cost_dir)
        self._count = count
        self._meter = ""
        self._tally: dict[tuple[str, str], list[float]] = {}  # seconds, requests, rows
        self._tree: ProcessTree | None = None
        self._used = Usage()
        self._looked = 0.0
        self._lock, self._starting = threading.Lock(), threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, model: str, caller: str, seconds: float, rows: int) -> None:
        """Note an answered request. Of two at the very same time, in two threads, one may be lost to the division."""
        entry = self._tally.get((model, caller))
        if entry is None:
            entry = self._tally.setdefault((model, caller), [0.0, 0, 0])
        entry[0] += seconds
        entry[1] += 1
        entry[2] += rows

    def start(self) -> None:
        """Begin to write, unless another process accounts for this one."""
        if is_metered():
            return
        self._meter = this_process()
        self._tree = ProcessTree(os.getpid())
        self._used = self._tree.sample()
        self._looked = time.monotonic()
        thread = threading.Thread(target=self._watch, name="usage", daemon=True)
        with self._starting:
            if not self._closing.is_set():  # a server may be stopped while it still starts
                thread.start()
                self._thread = thread

    async def run(self) -> None:
        """Begin to write, on the event loop."""
        await asyncio.to_thread(self.start)

    def close(self) -> None:
        """Write what is left."""
        with self._starting:
            self._closing.set()
        if self._thread is not None:
            self._thread.join()
            self.write()
        self._log.close()

    def write(self) -> None:
        """Divide what was used since the last time, and write it; when that fails, it is written the next time."""
        if self._tree is None:
            return
        with self._lock:
            tally, self._tally = self._tally, {}
            total = self._tree.sample()
            used, elapsed = total.since(self._used), (moment := time.monotonic()) - self._looked
            weights = tally or {("", ""): [1.0, 0, 0]}
            whole = sum(entry[0] for entry in weights.values()) or 1.0
            lines = [
                Use(
                    time=now(),
                    meter=self._meter,
                    kind=SERVING,
                    model=model,
                    key=caller,
                    cpu_seconds=round(used.cpu_seconds * seconds / whole, 6),
                    peak_bytes=total.memory_bytes,
                    byte_seconds=total.memory_bytes * elapsed * seconds / whole,
                    bytes_read=int(used.bytes_read * seconds / whole),
                    bytes_written=int(used.bytes_written * seconds / whole),
                    requests=int(requests),
                    rows=int(rows),
                )
                for (model, caller), (seconds, requests, rows) in weights.items()
            ]
            try:
                self._log.write(lines)
            except OSError as error:
                logger.error("what serving uses cannot be written, and is written later: %s", error)
                for (model, caller), entry in tally.items():
                    later = self._tally.setdefault((model, caller), [0.0, 0, 0])
                    for place, value in enumerate(entry):
                        later[place] += value
                return
            self._used, self._looked = total, moment
        for line in lines:
            self._count(line.model, line.cpu_seconds)

    def _watch(self) -> None:
        while not self._closing.wait(WRITE_SECONDS):
            self.write()
