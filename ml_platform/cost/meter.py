"""Measures a process tree while it works, and writes down what its parts use; holds parts to their limits.

A thread looks at the tree every second, and up to every five where looking would take more than a two-hundredth of
what the tree uses. What it used goes to the part that used it: a step with a process of its own, the step that runs in
this process, or else the run or command as a whole.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.cost.limits import StepLimit, exceeded
from ml_platform.cost.records import METER, Use, UseLog, now
from ml_platform.cost.step_stop import forget, install, request_stop
from ml_platform.processes import table
from ml_platform.processes.identity import this_process
from ml_platform.processes.usage import ProcessTree, Usage

SHORTEST_PAUSE = 1.0
LONGEST_PAUSE = 5.0
OVERHEAD = 200  # looking takes at most this part of what is used: a look's CPU time × this is used until the next
WRITE_SECONDS = 10.0  # what a kill loses at most
GRACE_SECONDS = 30.0  # from the asking until a step's processes are killed
MARKED_EVERY = 5  # looks for processes that left the tree

NOTHING = Usage()

logger = logging.getLogger("ml_platform.cost")


@dataclass
class Account:
    """What one part used until now."""

    labels: Use
    pid: int | None = None  # of a process of its own
    began: float = field(default_factory=time.monotonic)
    used: Usage = NOTHING
    peak_bytes: int = 0
    byte_seconds: float = 0.0
    seconds: float = 0.0
    limits: tuple[StepLimit, ...] = ()
    reason: str | None = None  # why it is being stopped
    asked: float = 0.0  # when it was told so last
    written: "tuple[Usage, float, float]" = (NOTHING, 0.0, 0.0)  # what is in lines: used, byte_seconds, seconds

    def add(self, used: Usage, elapsed: float) -> None:
        """Add what was used since the last look; memory is that of now."""
        self.used = self.used + Usage(used.cpu_seconds, used.bytes_read, used.bytes_written)
        self.peak_bytes = max(self.peak_bytes, used.memory_bytes)
        self.byte_seconds += used.memory_bytes * elapsed
        self.seconds = time.monotonic() - self.began

    def line(self) -> Use | None:
        """Return the line of what was not written yet; None when there is nothing."""
        used, byte_seconds, seconds = self.written
        more = self.used.since(used)
        self.written = (self.used, self.byte_seconds, self.seconds)
        if not (more.cpu_seconds or more.bytes_read or more.bytes_written or self.seconds > seconds):
            return None
        return msgspec.structs.replace(
            self.labels,
            time=now(),
            seconds=self.seconds - seconds,
            cpu_seconds=round(more.cpu_seconds, 6),
            peak_bytes=self.peak_bytes,
            byte_seconds=self.byte_seconds - byte_seconds,
            bytes_read=more.bytes_read,
            bytes_written=more.bytes_written,
        )


class Meter:
    """Accounts for this process and all that it starts, from `start` until `close`.

    Parameters
    ----------
    folder
        Where the lines go, and requests to stop.
    kind
        What is measured: a run, a command.
    labels
        Further fields of `Use` that all lines share, such as `run`, `job`.
    whole_process
        Whether what this process used before `start` counts too.

    Examples
    --------
    >>> import tempfile
    >>> meter = Meter(Path(tempfile.mkdtemp()), "command", {"job": "score"})
    >>> meter.start()
    >>> meter.begin("sum", {"asset": "toy/sum"})
    >>> _ = sum(range(1_000_000))
    >>> meter.end("sum").used.cpu_seconds >= 0
    True
    >>> meter.close()
    """

    def __init__(
        self, folder: Path, kind: str, labels: Mapping[str, Any] | None = None, *, whole_process: bool = False
    ) -> None:
        self._folder = folder
        self._log = UseLog(folder)
        self._identity = this_process()
        self._template = Use(time=now(), meter=self._identity, kind=kind, **(labels or {}))
        self._rest = Account(self._template)
        self._parts: dict[str, Account] = {}
        self._ended: list[Account] = []
        self._inside: str | None = None  # the part that runs in this process
        self._whole_process = whole_process
        self._tree = ProcessTree(os.getpid(), self._marked)
        self._total = Usage()
        self._looked = self._wrote = time.monotonic()
        self._looks = 0
        self._cpus = 1.0  # in use by the tree, between the last two looks
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cost meter", daemon=True)
        self._undo: list[Callable[[], None]] = []

    def start(self) -> None:
        """Begin. In the main thread, so that a step in this process can be stopped."""
        before = os.environ.get(METER)
        os.environ[METER] = self._identity
        self._undo = [lambda: _restore(METER, before), install(self._folder)]
        total = self._tree.sample()
        if not self._whole_process:
            self._total = total
        self._look()
        self._thread.start()

    def begin(
        self, part: str, labels: Mapping[str, Any], *, pid: int | None = None, limits: Iterable[StepLimit] = ()
    ) -> None:
        """Begin a part: a process of the tree, or what this process does from now on."""
        with self._lock:
            self._look()
            labelled = msgspec.structs.replace(self._template, step=part, **labels)
            self._parts[part] = Account(labelled, pid, limits=tuple(limits))
            if pid is None:
                self._inside = part
            else:
                self._tree.watch(pid)
                self._look()

    def end(self, part: str) -> Account | None:
        """End a part and return what it used; None when it was not begun."""
        with self._lock:
            if part not in self._parts:
                return None
            self._look()
            account = self._parts.pop(part)
            self._ended.append(account)
            if self._inside == part:
                self._inside = None
            if account.reason is not None:
                forget(self._folder, account.pid or os.getpid())
            self._write()
        if account.pid is not None:
            left = [pid for pid in self._tree.processes(account.pid) if pid != account.pid]
            # A step that ended well ends what it started; one that was stopped or killed may have left a Ray behind.
            if left and (account.reason is not None or table.started(account.pid) is None):
                table.end(left)
        return account

    def why_stopped(self, part: str) -> str | None:
        """Return why a part was told to stop; None when it was not."""
        with self._lock:
            account = self._parts.get(part) or next((a for a in self._ended if a.labels.step == part), None)
            return account.reason if account else None

    def close(self) -> None:
        """Write what is left, and end."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for part in list(self._parts):
                self._ended.append(self._parts.pop(part))
            self._look()
            self._write()
        self._log.close()
        for undo in self._undo:
            undo()

    def _marked(self) -> list[int]:
        return table.marked({METER: self._identity})

    def _watch(self) -> None:
        pause = SHORTEST_PAUSE
        while not self._closing.wait(pause):
            began = time.thread_time()
            with self._lock:
                try:
                    self._look()
                    self._hold_to_limits()
                    if time.monotonic() - self._wrote >= WRITE_SECONDS:
                        self._write()
                except OSError as error:  # a full disk: it is tried again with all that was not written
                    logger.error("what %s uses cannot be written: %s", self._template.job or "a command", error)
            spent = OVERHEAD * (time.thread_time() - began)
            pause = min(max(SHORTEST_PAUSE, spent / max(self._cpus, 0.01)), LONGEST_PAUSE)

    def _look(self) -> None:
        """Sample the tree and add what was used since the last time to the parts that used it."""
        before = {part: self._tree.usage(one.pid) for part, one in self._parts.items() if one.pid is not None}
        total = self._tree.sample(marked=self._looks % MARKED_EVERY == 0)
        self._looks += 1
        elapsed = (moment := time.monotonic()) - self._looked
        self._looked = moment
        self._cpus = (total.cpu_seconds - self._total.cpu_seconds) / max(elapsed, 1e-3)
        rest, self._total = total.since(self._total), total
        cpu, read, written, memory = rest.cpu_seconds, rest.bytes_read, rest.bytes_written, rest.memory_bytes
        for part, earlier in before.items():
            account = self._parts[part]
            used = self._tree.usage(account.pid).since(earlier)
            account.add(used, elapsed)
            cpu, read = cpu - used.cpu_seconds, read - used.bytes_read
            written, memory = written - used.bytes_written, memory - used.memory_bytes
        left = Usage(max(cpu, 0.0), max(read, 0), max(written, 0), max(memory, 0))
        inside = self._parts.get(self._inside or "")
        if inside is not None:
            inside.add(left, elapsed)
            left = Usage()
        self._rest.add(left, elapsed)
        self._rest.peak_bytes = max(self._rest.peak_bytes, total.memory_bytes)  # of the whole: peaks are not added

    def _hold_to_limits(self) -> None:
        for account in self._parts.values():
            account.reason = account.reason or exceeded(
                account.limits,
                account.labels.asset or account.labels.step,
                cpu_seconds=account.used.cpu_seconds,
                memory_bytes=account.peak_bytes,
                seconds=account.seconds,
            )
            if account.reason is None:
                continue
            moment, pid = time.monotonic(), account.pid or os.getpid()
            if not account.asked:
                account.asked = moment
                request_stop(self._folder, pid, account.reason)
            elif moment - account.asked >= GRACE_SECONDS:
                family = self._tree.processes(account.pid) if account.pid else self._started_inside()
                if account.pid is None:
                    account.asked = moment
                    request_stop(self._folder, pid, account.reason)  # once more: somebody caught it
                for one in family:
                    _kill(one)

    def _started_inside(self) -> list[int]:
        """What the step in this process has started: all of the tree that is nobody's own."""
        return [pid for pid in self._tree.processes(os.getpid()) if pid != os.getpid()]

    def _write(self) -> None:
        accounts = [*self._ended, *self._parts.values(), self._rest]
        before = [account.written for account in accounts]
        try:
            self._log.write([line for account in accounts if (line := account.line())])
        except OSError:
            for account, written in zip(accounts, before, strict=True):
                account.written = written
            raise
        self._ended = [one for one in self._ended if one.reason is not None]
        self._wrote = time.monotonic()


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _restore(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
