"""One supervised process: its command, its present life, and the threads that read, await and probe it.

What happens is put into the runner's queue as `Ended`, `Ready` or `Late`; the runner alone decides what follows.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from ml_platform.processes import table
from ml_platform.processes.output import Output

HTTP_ERROR = 400
TAIL_LINES = 15
STABLE_SECONDS = 60.0  # who lived that long starts counting its ends anew
LONGEST_PAUSE = 30.0
RUNNER_MARK = "ML_PLATFORM_RUNNER"  # inherited by all descendants, even by those that leave their session
NAME_MARK = "ML_PLATFORM_PROCESS"


@dataclass(frozen=True)
class Process:
    """One process to run.

    Parameters
    ----------
    name
        What its lines are prefixed with.
    command
        Program and arguments; every user of the machine can read them, so secrets go into `environment`.
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
        How long it may take to become ready; then it is ended and counts as failed.
    ready_seconds_variable
        Environment variable that sets `ready_seconds`, named when they were too few.
    restarts
        How often in a row it is started again when it ends by itself, after 1, 2, 4 … 30 s.
    keeps_children
        Whether what it started goes on when it ends: the runs of a code server.
    """

    name: str
    command: Sequence[str]
    port: int | None = None
    port_variable: str = ""
    ready_path: str | None = None
    title: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    ready_seconds: float = 900.0
    ready_seconds_variable: str = ""
    restarts: int = 5
    keeps_children: bool = False

    @property
    def url(self) -> str:
        """Address of the process on this machine."""
        return f"http://127.0.0.1:{self.port}"

    def answers(self) -> bool:
        """Return whether `ready_path` answers without an error."""
        try:
            with urllib.request.urlopen(f"{self.url}{self.ready_path}", timeout=2) as response:
                return int(response.status) < HTTP_ERROR
        except (OSError, urllib.error.URLError, ValueError):
            return False


@dataclass(frozen=True)
class Life:
    """One start of a process."""

    child: "Child"
    popen: "subprocess.Popen[bytes]"
    began: float


@dataclass(frozen=True)
class Ended:
    """A process has ended."""

    life: Life
    code: int


@dataclass(frozen=True)
class Ready:
    """A process answers."""

    life: Life


@dataclass(frozen=True)
class Late:
    """A process has not answered in time."""

    life: Life


class Child:
    """A process over all its lives."""

    def __init__(
        self, process: Process, token: str, output: Output, events: "SimpleQueue[Ended | Ready | Late]"
    ) -> None:
        self.process, self.token, self._output, self._events = process, token, output, events
        self.life: Life | None = None
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.failures = 0
        self.was_ready = process.ready_path is None
        self.given_up = False

    def start(self) -> None:
        """Begin a life, in a session of its own.

        Raises
        ------
        OSError
            When the program cannot be started at all.
        """
        environment = {
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            **self.process.environment,
            RUNNER_MARK: self.token,
            NAME_MARK: self.process.name,
        }
        popen = subprocess.Popen(
            list(self.process.command),
            env=environment,
            cwd=self.process.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        life = self.life = Life(self, popen, time.monotonic())
        self._thread("reads", self._read, life)
        self._thread("awaits", self._await, life)
        if self.process.ready_path is not None:
            self._thread("probes", self._probe, life)

    def pause(self) -> float | None:
        """Count an end that was not asked for; return the seconds before the next start, None when that was the last.

        Examples
        --------
        >>> child = Child(Process("web", ["web"], restarts=3), "", Output([], None), SimpleQueue())
        >>> [child.pause() for _ in range(4)]
        [1.0, 2.0, 4.0, None]
        """
        if self.life is not None and self.was_ready and time.monotonic() - self.life.began >= STABLE_SECONDS:
            self.failures = 0
        self.failures += 1
        if self.failures > self.process.restarts:
            return None
        return float(min(2 ** (self.failures - 1), LONGEST_PAUSE))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and to all in its session's group."""
        if self.life is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.life.popen.pid, number)

    def _thread(self, what: str, target: Callable[[Life], None], life: Life) -> None:
        threading.Thread(target=target, args=(life,), name=f"{what} {self.process.name}", daemon=True).start()

    def _read(self, life: Life) -> None:
        assert life.popen.stdout is not None  # asked for in `start`
        with life.popen.stdout as lines:
            for raw in lines:
                line = raw.decode("utf-8", "replace").rstrip()
                self.tail.append(line)
                self._output.write(self.process.name, line)

    def _await(self, life: Life) -> None:
        code = life.popen.wait()
        if not self.process.keeps_children:
            # Its workers would hold the port that the next life needs.
            table.end_marked({RUNNER_MARK: self.token, NAME_MARK: self.process.name})
        self._events.put(Ended(life, code))

    def _probe(self, life: Life) -> None:
        until = life.began + self.process.ready_seconds
        while life.popen.poll() is None:
            if self.process.answers():
                self._events.put(Ready(life))
                return
            if time.monotonic() > until:
                self._events.put(Late(life))
                return
            time.sleep(0.2)


def describe_end(code: int) -> str:
    """Say how a process ended.

    Examples
    --------
    >>> describe_end(7), describe_end(-9)
    ('with exit code 7', 'by SIGKILL')
    """
    if code >= 0:
        return f"with exit code {code}"
    try:
        return f"by {signal.Signals(-code).name}"
    except ValueError:
        return f"by signal {-code}"


def guard_against_sudden_end(token: str) -> "subprocess.Popen[bytes]":
    """Start a process that ends everything with the token once this process is gone, however it went.

    It waits for the end of its standard input, whose other side nobody but this process holds.
    """
    code = (
        "import sys; sys.stdin.buffer.read(); "
        "from ml_platform.processes import table; "
        f"table.end_marked({{{RUNNER_MARK!r}: {token!r}}})"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        cwd=Path(__file__).resolve().parents[2],
    )
