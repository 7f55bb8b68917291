"""Runs processes together: started at once, watched until ready, started again when they end, and all stopped together.

Taken ports are found before anything starts, readiness is checked over HTTP, one process that ends takes no other with
it, the exit code says whether all went well, and nothing that was started outlives the run, grandchildren included:
not even when this process is killed.
"""

import math
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ml_platform.processes import table
from ml_platform.processes.child import (
    NAME_MARK,
    RUNNER_MARK,
    Child,
    Ended,
    Late,
    Life,
    Process,
    Ready,
    describe_end,
    guard_against_sudden_end,
)
from ml_platform.processes.output import TERMINAL, Output

__all__ = ["CannotStart", "Process", "check_ports", "end_leftovers", "run", "say"]

STOP_SECONDS = 30.0  # between asking and killing: Dagster took twelve to end its own children on a busy machine
BEAT_SECONDS = 10.0


class CannotStart(RuntimeError):
    """A process cannot be started as asked: which, why and what to change."""


def check_ports(processes: Sequence[Process]) -> None:
    """Raise `CannotStart` when a port is taken, saying by whom and which variable moves it."""
    occupied = []
    for process in processes:
        if process.port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", process.port))
            except OSError:
                holder = table.listener(process.port)
                remedy = f", or set {process.port_variable}=<free port>" if process.port_variable else ""
                occupied.append(
                    f"port {process.port} ({process.name}) is taken by {holder or 'another process'}: stop it{remedy}"
                )
    if occupied:
        raise CannotStart("; ".join(occupied))


def end_leftovers(processes: Sequence[Process], home: Path) -> None:
    """End what a run that was killed left of these processes on the same home, and say so.

    Raises
    ------
    CannotStart
        When one of them belongs to a run that is alive: two daemons over one home would start everything twice.
    """
    for process in processes:
        for pid in table.marked({NAME_MARK: process.name, "ML_PLATFORM_HOME": str(home)}):
            token = table.variable(pid, RUNNER_MARK) or ""
            if (runner := runner_of(token)) is not None:
                raise CannotStart(
                    f"{process.name} already runs on {home}: pid {pid}, started by pid {runner}. "
                    f"Stop that run first (kill {runner}), or set ML_PLATFORM_HOME to another folder"
                )
            say(f"ending what an earlier run left behind: {process.name}, pid {pid}")
            table.end([pid])


def runner_of(token: str) -> int | None:
    """Return the process of the run that marked its children with a token; None when it has ended."""
    runner, _, rest = token.partition(".")
    is_alive = runner.isdigit() and table.started(int(runner)) == int(rest.partition(".")[0] or -1)
    return int(runner) if is_alive else None


def say(text: str) -> None:
    """Print a line of the runner itself."""
    TERMINAL.write(f"platform: {text}")


class _Supervisor:
    """The loop: it alone starts, restarts, gives up and stops, on what children, signals and `on_ready` tell it."""

    def __init__(
        self,
        processes: Sequence[Process],
        logs: Path | None,
        *,
        on_ready: Callable[[], None] | None,
        on_given_up: Callable[[Process, str], None] | None,
        oneshot: bool,
    ) -> None:
        self.token = f"{os.getpid()}.{table.started(os.getpid())}.{uuid.uuid4().hex}"
        self.events: SimpleQueue[Any] = SimpleQueue()
        output = Output([process.name for process in processes], logs)
        self.children = [Child(process, self.token, output, self.events) for process in processes]
        self.logs, self.on_ready, self.on_given_up, self.oneshot = logs, on_ready, on_given_up, oneshot
        self.starts: dict[Child, float] = {}  # child → when it is started again
        self.began = time.monotonic()
        self.beat = self.began + BEAT_SECONDS
        self.ready = False
        self.stopping: float | None = None  # when asking turns into killing
        self.code: int | None = None
        self.failure: BaseException | None = None

    def loop(self) -> int:
        for child in self.children:
            self._start(child)
        self._check_ready()
        while not self._finished():
            try:
                event = self.events.get(timeout=self._timeout())
            except Empty:
                event = None
            self._handle(event)
            self._tick()
        return self.code or 0

    def _handle(self, event: Any) -> None:
        match event:
            case Ended(life, code) if life is life.child.life:
                life.child.life = None
                self._ended(life, code)
            case Ready(life) if life is life.child.life and self.stopping is None:
                again = " again" if life.child.was_ready else ""
                life.child.was_ready = True
                process, elapsed = life.child.process, time.monotonic() - life.began
                say(f"{process.name} is ready{again} after {elapsed:.1f} s: {process.url}")
                self._check_ready()
            case Late(life) if life is life.child.life and self.stopping is None:
                process = life.child.process
                variable = process.ready_seconds_variable
                remedy = f"; if the machine is only busy, set {variable}=<more seconds>" if variable else ""
                say(
                    f"{process.name} gave no answer at {process.url}{process.ready_path} "
                    f"within {process.ready_seconds:.0f} s: it is ended{remedy}"
                )
                life.child.signal(signal.SIGKILL)
            case signal.Signals() as number:
                self._stop(0 if self.ready else 128 + number)
            case BaseException() as failure:
                self.failure = failure
                self._stop(1)
            case "done" if self.oneshot:
                self._stop(0)

    def _tick(self) -> None:
        now = time.monotonic()
        if self.stopping is not None:
            if now >= self.stopping:
                self.stopping = math.inf
                for child in self.children:
                    child.signal(signal.SIGKILL)
                table.send(signal.SIGKILL, {RUNNER_MARK: self.token})
            return
        for child in [child for child, due in self.starts.items() if now >= due]:
            del self.starts[child]
            self._start(child)
        waiting = [child.process.name for child in self.children if not child.was_ready and not child.given_up]
        if waiting and now >= self.beat:
            self.beat = now + BEAT_SECONDS
            say(f"waiting for {', '.join(waiting)} ({now - self.began:.0f} s)")

    def _timeout(self) -> float | None:
        due = [*self.starts.values(), *([] if self.stopping is None else [self.stopping])]
        if not all(child.was_ready or child.given_up for child in self.children):
            due.append(self.beat)
        nearest = min(due, default=math.inf)
        return None if math.isinf(nearest) else max(0.0, nearest - time.monotonic())

    def _finished(self) -> bool:
        return self.stopping is not None and all(child.life is None for child in self.children)

    def _start(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:
            say(f"{child.process.name} cannot be started: {error}")
            self._give_up(child, f"it cannot be started: {error}", 127)

    def _ended(self, life: Life, code: int) -> None:
        child, name = life.child, life.child.process.name
        if self.stopping is not None:
            return
        how = describe_end(code)
        say(f"{name} ended by itself {how}; its last lines:")
        for line in list(child.tail):
            TERMINAL.write(f"    {line}")
        if self.logs is not None:
            say(f"all of them in {self.logs / (name + '.log')}")
        pause = child.pause()
        if pause is None:
            times = child.process.restarts
            say(f"{name} is given up" + (f" after {times} restarts in a row" if times else ""))
            self._give_up(
                child, f"it ended by itself {how}, {times} restarts in a row", 128 - code if code < 0 else code
            )
            return
        say(f"{name} is started again in {pause:.0f} s ({child.failures} of {child.process.restarts})")
        self.starts[child] = time.monotonic() + pause

    def _give_up(self, child: Child, reason: str, code: int) -> None:
        child.given_up = True
        self.code = self.code or code or 1
        if self.on_given_up is not None:
            try:
                self.on_given_up(child.process, reason)
            except Exception as error:  # noqa: BLE001  (whoever cannot be told, the others go on)
                say(f"that {child.process.name} was given up could not be told: {error}")
        left = [other.process.name for other in self.children if not other.given_up]
        if self.oneshot or not left:
            self._stop(self.code)
        else:
            say(f"still running: {', '.join(left)}")
            self._check_ready()

    def _check_ready(self) -> None:
        if self.ready or not all(child.was_ready or child.given_up for child in self.children):
            return
        self.ready = True
        if self.stopping is None and (self.on_ready is not None or self.oneshot):
            threading.Thread(target=self._call_on_ready, name="on_ready", daemon=True).start()

    def _call_on_ready(self) -> None:
        try:
            if self.on_ready is not None:
                self.on_ready()
        except BaseException as failure:  # noqa: BLE001  (raised again by `run`, when all processes have stopped)
            self.events.put(failure)
        else:
            self.events.put("done")

    def _stop(self, code: int) -> None:
        """Ask all processes to end; the first reason counts."""
        if self.stopping is not None:
            return
        self.code = self.code or code
        self.stopping = time.monotonic() + STOP_SECONDS
        self.starts.clear()
        for child in self.children:
            child.signal(signal.SIGTERM)
        # Who left the session of its parent is not reached by the signal to the group, and may hold the output open.
        sessions = [child.life.popen.pid for child in self.children if child.life is not None]
        table.send(signal.SIGTERM, {RUNNER_MARK: self.token}, outside_sessions=sessions)


def run(
    processes: Sequence[Process],
    *,
    on_ready: Callable[[], None] | None = None,
    on_given_up: Callable[[Process, str], None] | None = None,
    oneshot: bool = False,
    logs: Path | None = None,
) -> int:
    """Run the processes until Ctrl-C or SIGTERM, until none is left, or, with `oneshot`, until `on_ready` has returned.

    A process that ends by itself is started again after a pause that doubles, `Process.restarts` times in a row; then
    it is given up and the others go on. With `oneshot` giving one up ends the run.

    Parameters
    ----------
    processes
        What to run; names must differ.
    on_ready
        Called in a thread once every process with a `ready_path` has answered or was given up.
    on_given_up
        Called with the process and the reason when one is given up; what it raises is printed, and the others go on.
    oneshot
        Stop all processes after `on_ready`.
    logs
        Folder for the processes' output, a file each; printed with prefixes when None.

    Returns
    -------
    int
        0 when stopped after all were ready; else the exit code of the process that was given up, 1 where that was 0;
        130 or 143 when interrupted before.

    Raises
    ------
    CannotStart
        When a port is taken; nothing has been started then.
    BaseException
        What `on_ready` raised, after all processes have stopped.

    Examples
    --------
    >>> import sys, tempfile
    >>> sleeper = Process("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"])
    >>> run([sleeper], on_ready=lambda: print("up"), oneshot=True, logs=Path(tempfile.mkdtemp()))
    up
    0
    """
    check_ports(processes)
    supervisor = _Supervisor(processes, logs, on_ready=on_ready, on_given_up=on_given_up, oneshot=oneshot)
    guard = guard_against_sudden_end(supervisor.token)
    with _signals_into(supervisor.events):
        try:
            code = supervisor.loop()
        finally:
            table.end_marked({RUNNER_MARK: supervisor.token})
            guard.communicate()
    if supervisor.failure is not None:
        raise supervisor.failure
    return code


@contextmanager
def _signals_into(events: "SimpleQueue[Any]") -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and the end of the terminal into events of the loop."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda got, _: events.put(signal.Signals(got))) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
