"""Numbers for workers that come and go, so that their metrics need only as many files as workers run at once.

`prometheus_client` keeps the values of each process in files named by its id, and never drops those of ended processes:
a sum must not fall. Where load starts and ends workers all day, such files would pile up. So files are named by a
number instead. A worker holds its number by a lock, which ends with the process; the next worker takes the number and
counts on in the same files.
"""

import itertools
import os
from contextlib import suppress
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from ml_platform.atomic_files import try_lock

_SUFFIX = ".worker"


def take_number(folder: Path) -> int:
    """Take the lowest number that no live process holds in a folder, until this process ends.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> [take_number(folder) for _ in range(3)]
    [0, 1, 2]
    """
    for number in itertools.count():
        lock = os.open(folder / f"{number}{_SUFFIX}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if try_lock(lock):
            return number  # the descriptor stays open, which keeps the lock
        os.close(lock)
    raise AssertionError("unreachable: there is always a next number")


def forget_ended(folder: Path) -> None:
    """Drop the gauges (`gauge_live…`) of workers that were killed; their counters stay."""
    for path in folder.glob("gauge_live*_*.db"):
        worker = path.stem.rpartition("_")[2]
        try:
            lock = os.open(folder / f"{worker}{_SUFFIX}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # the files of a worker without a number are named by its process id
            if not Path(f"/proc/{worker}").exists():
                with suppress(FileNotFoundError):  # another worker drops them as well
                    mark_process_dead(worker, folder)
            continue
        try:
            if try_lock(lock):  # nobody takes the number until the lock is closed
                mark_process_dead(worker, folder)
        finally:
            os.close(lock)
