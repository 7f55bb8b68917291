"""Names a process so that another one, later, can tell whether it still runs.

A process id alone is given again to somebody else, and says nothing on another machine or after a restart.
"""

import os
import pwd
import socket
from pathlib import Path

_PROC = Path("/proc")


def this_process() -> str:
    """Return the identity of the calling process: host, boot, process id and start, separated by slashes."""
    return _identity(os.getpid())


def this_user() -> str:
    """Return the name of this process's user, or its number where the machine has no name for it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"user {os.getuid()}"


def is_gone(identity: str) -> bool:
    """Tell whether a process certainly ended: one that cannot be judged from here, on another machine, is not gone.

    Parameters
    ----------
    identity
        What `this_process` returned in that process.

    Examples
    --------
    >>> is_gone(this_process())
    False
    >>> is_gone("elsewhere/boot/1/1")
    False
    """
    parts = identity.split("/")
    if len(parts) != len(_identity(0).split("/")) or not parts[2].isdigit() or parts[0] != _host():
        return False
    return parts[1] != _boot() or not _runs(int(parts[2])) or _identity(int(parts[2])) != identity


def _identity(process: int) -> str:
    return f"{_host()}/{_boot()}/{process}/{_started(process)}"


def _host() -> str:
    return socket.gethostname().replace("/", "-")


def _boot() -> str:
    """Id of this start of the machine; empty where the system has none to read."""
    file = _PROC / "sys/kernel/random/boot_id"
    return file.read_text().strip() if file.is_file() else ""


def _started(process: int) -> str:
    """When a process started, in ticks since the machine did; empty where the system does not say, or it has ended."""
    try:
        stat = (_PROC / str(process) / "stat").read_text()
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # fields 3 and on of proc(5); the name before them may hold blanks
    return "" if state in "ZX" else fields[18]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
