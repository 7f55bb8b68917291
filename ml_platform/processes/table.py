"""What Linux's /proc says about processes: who listens on a port, who carries a mark in its environment, who is alive.

On systems without /proc all of them answer with nothing.
"""

import os
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"
ASK_SECONDS = 5.0


def _pids() -> list[int]:
    return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()] if PROC.is_dir() else []


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return b""


def _open_files(pid: int) -> set[str]:
    links = set()
    try:
        for link in list((PROC / str(pid) / "fd").iterdir()):
            if link.is_symlink():
                links.add(os.readlink(link))
    except OSError:  # another user's, or closed while looking: what was found until then counts
        return links
    return links


def listener(port: int) -> str | None:
    """Return who listens on a TCP port of this machine, as "pid 12 (python -m http.server)", or None if unknown."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        path = PROC / "net" / table
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        for fields in map(str.split, lines):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for pid in _pids():
        if inodes & _open_files(pid):
            return f"pid {pid} ({command(pid)[:80]})"
    return None


def marked(variables: Mapping[str, str]) -> list[int]:
    """Return the processes, other than this one, whose environment has all these values; zombies do not count."""
    entries = {f"{name}={value}".encode() for name, value in variables.items()}
    return [pid for pid in _pids() if pid != os.getpid() and entries <= set(_read(pid, "environ").split(b"\0"))]


def variable(pid: int, name: str) -> str | None:
    """Return a variable of a process's environment, as it was when the process began; None when it has none."""
    prefix = f"{name}=".encode()
    values = [entry[len(prefix) :] for entry in _read(pid, "environ").split(b"\0") if entry.startswith(prefix)]
    return values[0].decode("utf-8", "replace") if values else None


def command(pid: int) -> str:
    """Return a process's program and arguments; empty when it is gone."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat after the name, which may hold anything: the state is the first."""
    return _read(pid, "stat").rpartition(b")")[2].decode().split()


def started(pid: int) -> int | None:
    """Return when a process began, in clock ticks since the machine's start; None when there is no such process.

    With the pid it identifies a process: a pid is used again, a pid of the same begin is not.
    """
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in {"Z", "X"} else None


def started_at(pid: int) -> float | None:
    """Return when a process began, in seconds since the epoch (to about a second); None when it is not there."""
    ticks = started(pid)
    boot = [line.split()[1] for line in _read_text(PROC / "stat").splitlines() if line.startswith("btime ")]
    return None if ticks is None or not boot else int(boot[0]) + ticks / os.sysconf("SC_CLK_TCK")


def parent(pid: int) -> int | None:
    """Return a process's parent; None when the process is not there."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def send(number: signal.Signals, variables: Mapping[str, str], outside_sessions: Iterable[int] = ()) -> list[int]:
    """Send a signal to the processes that carry the marks, but not to those in the given sessions; return those."""
    sessions = set(outside_sessions)
    matching = []
    for pid in marked(variables):
        try:
            if os.getsid(pid) not in sessions:
                os.kill(pid, number)
                matching.append(pid)
        except ProcessLookupError:
            continue
    return matching


def end_marked(variables: Mapping[str, str]) -> None:
    """End every process that carries the marks, by SIGTERM and after `ASK_SECONDS` by SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not send(number, variables):
            return
        until = time.monotonic() + ASK_SECONDS
        while marked(variables) and time.monotonic() < until:
            time.sleep(0.05)


def end(pids: Iterable[int]) -> None:
    """End these processes, by SIGTERM and after `ASK_SECONDS` by SIGKILL."""
    alive = {pid: began for pid in pids if (began := started(pid)) is not None}
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + ASK_SECONDS
        while alive and time.monotonic() < until:
            alive = {pid: began for pid, began in alive.items() if started(pid) == began}
            time.sleep(0.05)
        if not alive:
            return
