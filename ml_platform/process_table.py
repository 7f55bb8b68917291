"""What Linux's /proc says about processes: who listens on a port, and which processes have a mark in their environment.

On systems without /proc both answer with nothing.
"""

import os
import signal
import time
from collections.abc import Iterable
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
    found = set()
    try:
        for link in list((PROC / str(pid) / "fd").iterdir()):
            if link.is_symlink():
                found.add(os.readlink(link))
    except OSError:  # another user's, or closed while looking: what was found until then counts
        return found
    return found


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
            command = _read(pid, "cmdline").replace(b"\0", b" ").decode("utf-8", "replace").strip()
            return f"pid {pid} ({command[:80]})"
    return None


def marked(variable: str, value: str) -> list[int]:
    """Return the processes, other than this one, whose environment holds `variable=value`; zombies do not count."""
    entry = f"{variable}={value}".encode()
    return [pid for pid in _pids() if pid != os.getpid() and entry in _read(pid, "environ").split(b"\0")]


def send(number: signal.Signals, variable: str, value: str, outside_sessions: Iterable[int] = ()) -> list[int]:
    """Send a signal to the processes that carry the mark, but not to those in the given sessions; return those."""
    sessions = set(outside_sessions)
    met = []
    for pid in marked(variable, value):
        try:
            if os.getsid(pid) not in sessions:
                os.kill(pid, number)
                met.append(pid)
        except ProcessLookupError:
            continue
    return met


def end_marked(variable: str, value: str) -> None:
    """End every process that carries the mark, by SIGTERM and after `ASK_SECONDS` by SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not send(number, variable, value):
            return
        until = time.monotonic() + ASK_SECONDS
        while marked(variable, value) and time.monotonic() < until:
            time.sleep(0.05)
