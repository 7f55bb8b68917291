"""Numbers for workers that come and go, so that what they counted stays in as many files as ever ran at once.

`prometheus_client` keeps the values of each process in files named by its id, and those of processes that ended for
good: a sum must not fall. Where load starts and ends workers all day, such files would pile up. A number is held by a
lock, which ends with the process; the next worker takes it over and counts on from there.
"""

import fcntl
import itertools
import os
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

_SUFFIX = ".worker"


def take_number(folder: Path) -> int:
    """Take the lowest number that no live process holds below a folder, until this process ends.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> [take_number(folder) for _ in range(3)]
    [0, 1, 2]
    """
    for number in itertools.count():
        lock = os.open(folder / f"{number}{_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _locked(lock):
            return number  # the descriptor stays open: it is what holds the number
        os.close(lock)
    raise AssertionError("unreachable: there is always a next number")


def forget_ended(folder: Path) -> None:
    """Drop the present state (`gauge_live…`) of workers that ended without a goodbye; what they counted stays."""
    for path in folder.glob("gauge_live*_*.db"):
        worker = path.stem.rpartition("_")[2]
        try:
            lock = os.open(folder / f"{worker}{_SUFFIX}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # a worker that took no number goes by its process id
            if not Path(f"/proc/{worker}").exists():
                mark_process_dead(worker, folder)
            continue
        try:
            if _locked(lock):  # until the lock is closed nobody takes the number
                mark_process_dead(worker, folder)
        finally:
            os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
