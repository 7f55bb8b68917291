"""Runs processes together: started at once, watched until ready, and all of them stopped with the first that ends.

Honcho's manager starts them, each in a session of its own, and multiplexes their output. This module adds what a person
expects of one command: taken ports are found before anything starts, readiness is checked over HTTP, the exit code says
whether all went well, and nothing that was started outlives the run, grandchildren included.
"""

import math
import multiprocessing
import os
import shlex
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from honcho.manager import Manager
from honcho.printer import Message, Printer

from ml_platform import process_table

STOP_SECONDS = 30.0  # between asking and killing: `dagster dev` took twelve to end its own children on a busy machine
HTTP_ERROR = 400
TAIL_LINES = 15
BEAT_SECONDS = 10.0
MARK = "ML_PLATFORM_RUNNER"  # inherited by all descendants, even by those that leave their session


class CannotStart(RuntimeError):
    """A process cannot be started as asked: which, why and what to change."""


@dataclass(frozen=True)
class Process:
    """One process to run.

    Parameters
    ----------
    name
        What its lines are prefixed with.
    command
        Program and arguments.
    port
        Loopback port it listens on; checked before anything starts.
    port_variable
        Environment variable that moves the port, named when it is taken.
    ready_path
        Path under `http://127.0.0.1:<port>` that answers without an error once the process is ready.
    title
        What the address is called when it is printed.
    environment
        Added to this process's own environment.
    cwd
        Directory it runs in.
    ready_seconds
        How long it may take to become ready.
    """

    name: str
    command: Sequence[str]
    port: int | None = None
    port_variable: str = ""
    ready_path: str | None = None
    title: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    ready_seconds: float = 180.0

    @property
    def url(self) -> str:
        """Address of the process on this machine."""
        return f"http://127.0.0.1:{self.port}"


def check_ports(processes: Sequence[Process]) -> None:
    """Raise `CannotStart` when a port is taken, saying by whom and which variable moves it."""
    taken = []
    for process in processes:
        if process.port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", process.port))
            except OSError:
                holder = process_table.listener(process.port)
                remedy = f", or set {process.port_variable}=<free port>" if process.port_variable else ""
                taken.append(
                    f"port {process.port} ({process.name}) is taken by {holder or 'another process'}: stop it{remedy}"
                )
    if taken:
        raise CannotStart("; ".join(taken))


class _Events:
    """The manager's queue, overheard: who has started, who has stopped, and everybody's last lines."""

    def __init__(self, queue: "multiprocessing.Queue[Message]") -> None:
        self.queue = queue
        self.expected = 0
        self.running: dict[str, int] = {}
        self.on_all_running: Callable[[], None] | None = None
        self.started = threading.Event()
        self.stopped: dict[str, int] = {}
        self.tails: dict[str, deque[str]] = {}

    def put(self, message: Message) -> None:
        self.queue.put(message)

    def get(self, timeout: float) -> Message:
        self.started.set()  # the manager listens once it has forked for all processes
        if self.on_all_running is not None and len(self.running) == self.expected:
            call, self.on_all_running = self.on_all_running, None
            call()
        message = self.queue.get(timeout=timeout)
        if message.type == "start":
            self.running[message.name] = message.data["pid"]
        elif message.type == "stop":
            self.stopped[message.name] = message.data["returncode"]
        elif message.type == "line":
            tail = self.tails.setdefault(message.name, deque(maxlen=TAIL_LINES))
            tail.append(message.data.decode("utf-8", "replace").rstrip())
        return message


class _Output(Printer):
    """Prints the processes' lines, or keeps them in a file each so that the terminal stays readable."""

    def __init__(self, logs: Path | None) -> None:
        super().__init__(sys.stdout)
        self.logs = logs
        if logs is not None:
            logs.mkdir(parents=True, exist_ok=True)

    def write(self, message: Message) -> None:
        if self.logs is None:
            super().write(message)
            return
        text = message.data if isinstance(message.data, str) else message.data.decode("utf-8", "replace")
        with (self.logs / f"{message.name}.log").open("a", encoding="utf-8") as file:
            file.write(f"{message.time:%H:%M:%S} {text}")


class _Manager(Manager):
    """Honcho's manager, which also remembers why it stops and does not wait for ever for who ignores SIGTERM."""

    def __init__(self, printer: Printer, token: str) -> None:
        super().__init__(printer)
        self._token = token
        self._deadline = math.inf
        self.events: Any = _Events(self.events)
        self.cause: str | None = None
        self._killer = threading.Timer(STOP_SECONDS, self.kill)
        self._killer.daemon = True

    def terminate(self) -> None:
        """Ask all processes to end; the first reason counts."""
        if self.cause is None:
            self.cause = next(iter(self.events.stopped), "signal")
            self._stop()

    def finish(self, cause: str, returncode: int) -> None:
        """End the run for a reason of its own."""
        if self.cause is None:
            self.cause, self.returncode = cause, returncode
            self._stop()

    def _stop(self) -> None:
        self._deadline = time.monotonic() + STOP_SECONDS
        self._killer.start()
        # The manager can only end processes whose pid it has heard, and hears in the thread of its loop.
        self.events.on_all_running = self._ask

    def _ask(self) -> None:
        super().terminate()
        # Who left the session of its parent is not reached by the signal to the group, and may hold the output open.
        process_table.send(signal.SIGTERM, MARK, self._token, outside_sessions=self.events.running.values())

    def kill(self) -> None:
        """End all processes the hard way, but not before they had their time."""
        if time.monotonic() >= self._deadline:
            super().kill()
            process_table.send(signal.SIGKILL, MARK, self._token)

    def loop(self) -> None:
        """Run until all processes have ended."""
        self.events.expected = len(self._processes)
        super().loop()
        self._killer.cancel()


class _Watcher(threading.Thread):
    """Waits for readiness beside the manager's loop, then calls `on_ready`."""

    def __init__(
        self, manager: _Manager, processes: Sequence[Process], on_ready: Callable[[], None] | None, oneshot: bool
    ) -> None:
        super().__init__(name="readiness", daemon=True)
        self.manager, self.processes, self.on_ready, self.oneshot = manager, processes, on_ready, oneshot
        self.begin = time.monotonic()
        self.ready = False
        self.failure: BaseException | None = None

    def run(self) -> None:
        self.manager.events.started.wait()
        waiting = [process for process in self.processes if process.ready_path]
        beat = self.begin + BEAT_SECONDS
        while waiting and self.manager.cause is None:
            elapsed = time.monotonic() - self.begin
            for process in [process for process in waiting if _answers(process)]:
                waiting.remove(process)
                say(f"{process.name} is ready after {elapsed:.1f} s: {process.url}")
            if late := [process for process in waiting if elapsed > process.ready_seconds]:
                say(f"{late[0].name} gave no answer at {late[0].url}{late[0].ready_path} within {elapsed:.0f} s")
                self.manager.finish(late[0].name, 1)
                return
            if waiting and time.monotonic() > beat:
                say(f"waiting for {', '.join(process.name for process in waiting)} ({elapsed:.0f} s)")
                beat += BEAT_SECONDS
            time.sleep(0.2)
        if self.manager.cause is not None:
            return
        self.ready = True
        try:
            if self.on_ready is not None:
                self.on_ready()
        except BaseException as failure:  # noqa: BLE001  (raised again by `run`, when all processes have stopped)
            self.failure = failure
            self.manager.finish("on_ready", 1)
            return
        if self.oneshot:
            self.manager.finish("done", 0)


def _answers(process: Process) -> bool:
    try:
        with urllib.request.urlopen(f"{process.url}{process.ready_path}", timeout=2) as response:
            return int(response.status) < HTTP_ERROR
    except (OSError, urllib.error.URLError, ValueError):
        return False


def say(text: str) -> None:
    """Print a line of the runner itself."""
    print(f"platform: {text}", flush=True)


def run(
    processes: Sequence[Process],
    *,
    on_ready: Callable[[], None] | None = None,
    oneshot: bool = False,
    logs: Path | None = None,
) -> int:
    """Run the processes until Ctrl-C or SIGTERM, until one ends, or, with `oneshot`, until `on_ready` has returned.

    Parameters
    ----------
    processes
        What to run; names must differ.
    on_ready
        Called in a thread once every process with a `ready_path` answers.
    oneshot
        Stop all processes after `on_ready`.
    logs
        Folder for the processes' output, a file each; printed with prefixes when None.

    Returns
    -------
    int
        0 when stopped after all were ready; else the exit code of the process that ended by itself, 1 where that was 0;
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
    token = uuid.uuid4().hex
    manager = _Manager(_Output(logs), token)
    for process in processes:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **process.environment, MARK: token}
        command = "exec " + shlex.join(process.command)
        manager.add_process(process.name, command, env=environment, cwd=process.cwd and str(process.cwd))
    watcher = _Watcher(manager, processes, on_ready, oneshot)
    handlers: dict[signal.Signals, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    # A closed terminal ends the run like SIGTERM does; the manager knows only the other two.
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    watcher.start()
    try:
        manager.loop()
    finally:
        process_table.end_marked(MARK, token)
        for child in multiprocessing.active_children():
            child.join()
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if watcher.failure is not None:
        raise watcher.failure
    return _exit_code(manager, watcher.ready, logs)


def _exit_code(manager: _Manager, ready: bool, logs: Path | None) -> int:
    code = int(manager.returncode or 0)
    if manager.cause == "done" or (manager.cause == "signal" and ready):
        return 0
    if manager.cause in manager.events.stopped and manager.cause != "signal":
        say(f"{manager.cause} ended by itself with exit code {manager.events.stopped[manager.cause]}; its last lines:")
        for line in manager.events.tails.get(manager.cause, ()):
            print(f"    {line}")
        if logs is not None:
            say(f"all of them in {logs / (str(manager.cause) + '.log')}")
    return 128 - code if code < 0 else code or 1
