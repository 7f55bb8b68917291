"""Keeps the platform's state to the user who runs it: what is made is private, and what is there is made so."""

import os
import stat
from pathlib import Path

UMASK_VARIABLE = "ML_PLATFORM_UMASK"
PRIVATE = 0o077


def denied_permissions() -> int:
    """Return the permissions that files are made without: of `ML_PLATFORM_UMASK`, else all of others.

    The variable (octal, such as 007) lets a group in where several users share one volume.

    Raises
    ------
    ValueError
        When the variable holds no umask.
    """
    text = os.environ.get(UMASK_VARIABLE) or f"{PRIVATE:03o}"
    if not text.isascii() or not text.isdigit() or not set(text) <= set("01234567") or int(text, 8) > 0o777:
        raise ValueError(f"{UMASK_VARIABLE}: an octal umask such as 077 or 007 is wanted, found {text!r}")
    return int(text, 8)


def private_umask() -> int:
    """Let this process and all it starts create files that nobody else can read; return the umask.

    Raises
    ------
    ValueError
        See `denied_permissions`.
    """
    denied = denied_permissions()
    os.umask(denied)
    return denied


def make_private(folder: Path) -> int:
    """Make a folder, and take from it and all in it what the umask does not grant; return how many modes changed.

    Links are left alone, and so is what belongs to another user, who alone could change it.
    """
    denied = private_umask()
    folder.mkdir(parents=True, exist_ok=True)
    changed = 0
    for place, folders, files in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in (*folders, *files))):
            changed += _deny(path, denied)
    return changed


def _deny(path: str, denied: int) -> bool:
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode) or not status.st_mode & denied or status.st_uid != os.geteuid():
            return False
        os.chmod(path, stat.S_IMODE(status.st_mode) & ~denied)
    except FileNotFoundError:  # gone since it was listed: a running server replaces its files
        return False
    return True
