"""Checks of the folder of all local state: permissions, locks, the disk, the clock, logs that wait."""

import os
import shutil
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ml_platform.doctor.findings import Finding, error, ok, warning
from ml_platform.governance.audit import SECRET, TABLE
from ml_platform.lake.storage.tables import Lake
from ml_platform.private_files import denied_permissions
from ml_platform.processes import table
from ml_platform.segment_log.lag import log_lag
from ml_platform.segment_log.segments import SUFFIX
from ml_platform.settings import Settings

_LEAST, _LITTLE = 512 * 2**20, 2 * 2**30  # free bytes
_AHEAD_SECONDS = 120.0
_WAITING_SECONDS = 86_400.0
_LOCKS = Path("/proc/locks")


def folders(settings: Settings) -> Iterator[Finding]:
    """Check that what must be a folder is none of another kind."""
    places = {settings.home, settings.releases_dir, settings.home / "dagster_home", settings.inference_log_dir}
    if "://" not in str(settings.lake_uri):
        places.add(Path(settings.lake_uri))
    wrong = sorted(path for path in places if path.exists() and not path.is_dir())
    for path in wrong:
        yield error("folders", f"{path} is a file, a folder is wanted", "move it away, and restore the folder")
    if not wrong:
        yield ok("folders", f"{settings.home} and what is in it")


def permissions(settings: Settings) -> Iterator[Finding]:
    """Check that what is in the home is this user's, and nobody else's to read."""
    home, denied = settings.home, denied_permissions()
    if not home.is_dir():
        yield ok("permissions", f"{home} is not made yet")
        return
    open_to_others, of_others = [], []
    for place, folders, files in os.walk(home):
        for path in (Path(place), *(Path(place, name) for name in (*folders, *files))):
            try:
                status = path.lstat()
            except FileNotFoundError:  # a running server replaces its files
                continue
            if stat.S_ISLNK(status.st_mode):
                continue
            if status.st_uid != os.geteuid():
                of_others.append(path)
            elif status.st_mode & denied:
                open_to_others.append(path)
    remedy = f"make dev makes them private at its start; at once: chmod -R go= {home}"
    secret = [
        path
        for path in open_to_others
        if path.is_file() and (settings.keys_dir in path.parents or path.suffix == ".secret")
    ]
    if secret:
        yield error("permissions", f"others can read secrets: {_names(secret, home)}", remedy)
    elif open_to_others:
        yield warning("permissions", f"others can read: {_names(open_to_others, home)}", remedy)
    if of_others:
        yield warning(
            "permissions",
            f"other users own: {_names(of_others, home)}; this one may not be able to change them",
            f"sudo chown -R {os.geteuid()} {home}, and run commands as one user",
        )
    if not open_to_others and not of_others:
        yield ok("permissions", f"{home} is this user's alone")


def locks(settings: Settings) -> Iterator[Finding]:
    """Check who holds locks below the home. A lock ends with its holder, so a file that is left is none."""
    open_locks = {}
    if _LOCKS.exists():
        for line in _LOCKS.read_text().splitlines():
            fields = line.split()  # 1: FLOCK ADVISORY WRITE 4711 08:01:1234 0 EOF
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[3] == "WRITE":
                open_locks[int(fields[5].rpartition(":")[2])] = int(fields[4])
    held_files = []
    for path in settings.home.rglob("*.lock"):
        try:
            inode = path.stat().st_ino
        except FileNotFoundError:
            continue
        if inode in open_locks:
            held_files.append((path, open_locks[inode]))
    for path, pid in held_files:
        holder = table.command(pid)[:80] or "of another container or user"
        yield warning(
            "locks",
            f"{path.relative_to(settings.home)} is held by pid {pid} ({holder})",
            f"nothing, while that works; if it hangs: kill {pid}, which frees the lock",
        )
    if not held_files:
        yield ok("locks", "none is held")


def disk(settings: Settings) -> Iterator[Finding]:
    """Check how much is free on the disk of the home."""
    place = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    text = f"{free / 2**30:.1f} GiB are free at {place}"
    remedy = "free some: ml-platform tables list shows the tables; the asset maintenance/lake removes replaced files"
    if free < _LEAST:
        yield error("disk", text, remedy)
    elif free < _LITTLE:
        yield warning("disk", text, remedy)
    else:
        yield ok("disk", text)


def clock(settings: Settings) -> Iterator[Finding]:
    """Check that nothing in the home was written later than now."""
    newest, ahead = None, time.time() + _AHEAD_SECONDS
    folders = (settings.releases_dir, settings.inference_log_dir, settings.push_log_dir, settings.audit_dir)
    for path in (file for folder in (*folders, Path(settings.lake_uri)) for file in folder.rglob("*.json*")):
        try:
            written = path.stat().st_mtime
        except FileNotFoundError:
            continue
        if written > ahead:
            newest, ahead = path, written
    if newest is None:
        yield ok("clock", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, after all that was written")
    else:
        yield error(
            "clock",
            f"it is {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, and {newest} was written at "
            f"{datetime.fromtimestamp(ahead, UTC):%Y-%m-%d %H:%M:%S} UTC: one of the two clocks is wrong",
            "set the clock (timedatectl set-ntp true): features and time travel go by it",
        )


def logs(settings: Settings) -> Iterator[Finding]:
    """Check that the segments of the logs get into the lake."""
    waiting = 0
    for name, folder in {"inference log": settings.inference_log_dir, "push log": settings.push_log_dir}.items():
        for stream in sorted(path for path in folder.glob("*") if path.is_dir()):
            lag = log_lag(stream)
            ages = [time.time() - path.stat().st_mtime for path in stream.glob(f"*{SUFFIX}")]
            waiting += lag.waiting_bytes
            if lag.waiting_bytes and max(ages, default=0) > _WAITING_SECONDS:
                yield warning(
                    "logs",
                    f"{name} of {stream.name}: {lag.waiting_bytes:,} bytes wait to get into the lake, the oldest for "
                    f"{max(ages) / 86_400:.1f} days",
                    "run make dev with Dagster's daemon, and look for its failed runs; nothing is lost meanwhile",
                )
    secret = settings.keys_dir / SECRET
    if not secret.exists() and (any(settings.audit_dir.glob(f"*{SUFFIX}")) or Lake(settings.lake_uri).exists(TABLE)):
        yield error(
            "logs",
            f"{secret.relative_to(settings.home)} is not there, by which the audit log's lines are linked: what was "
            "written can no longer be proven",
            "put it back from a backup; a new one is made with the next line, and proves only what follows",
        )
    yield ok("logs", f"{waiting:,} bytes wait to get into the lake")


def _names(paths: list[Path], home: Path) -> str:
    shown = [str(path.relative_to(home)) for path in paths[:3]]
    return ", ".join(shown) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
