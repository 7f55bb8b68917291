"""Stops a step that is over a limit: an exception is raised in it, so that it ends as one that failed by itself.

The process that measures writes the reason into a file and sends SIGXCPU; the handler in the step's process, in its
main thread, raises what the file says. Nothing is half-written then: tables are committed whole or not at all, and
`with` and `finally` do what they do for any error.
"""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml_platform.atomic_files import replace_file

SIGNAL = getattr(signal, "SIGXCPU", None)


class StepOverLimit(RuntimeError):
    """A step used more than it may: which limit, what was used, where the limit is changed."""


def install(folder: Path) -> Callable[[], None]:
    """Let this process raise `StepOverLimit` when it is told to; return what undoes that. For the main thread.

    Processes that are forked from this one inherit it.
    """
    if SIGNAL is None or threading.current_thread() is not threading.main_thread():
        return lambda: None

    def raise_reason(*_: Any) -> None:
        path = _file(folder, os.getpid())
        try:
            reason = path.read_text(encoding="utf-8")
            path.unlink()
        except FileNotFoundError:  # raised already
            return
        raise StepOverLimit(reason)

    before = signal.signal(SIGNAL, raise_reason)
    return lambda: None if SIGNAL is None else void(signal.signal(SIGNAL, before))


def void(_: Any) -> None:
    """Drop a value."""


def request_stop(folder: Path, pid: int, reason: str) -> None:
    """Have a process raise `StepOverLimit`; one that is gone is left alone."""
    if SIGNAL is None:
        return
    path = _file(folder, pid)
    replace_file(path, reason.encode())
    try:
        os.kill(pid, SIGNAL)
    except ProcessLookupError:
        path.unlink(missing_ok=True)


def forget(folder: Path, pid: int) -> None:
    """Remove a request of which nobody took notice."""
    _file(folder, pid).unlink(missing_ok=True)


def _file(folder: Path, pid: int) -> Path:
    return folder / "stops" / str(pid)
