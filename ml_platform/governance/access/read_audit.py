"""Keeps account of reads: a line of the audit log for every read of the lake, with who, how, which version and columns.

The line is written before the rows are given, by one `write` of some 10 µs, so that a killed process has lost none. Of
a table it has names and numbers, never a value.
"""

import os
import threading
from datetime import UTC, datetime

import msgspec

from ml_platform.governance.access.speaker import asks_for_key, speaker
from ml_platform.governance.audit import AuditLog, Entry
from ml_platform.lake.access import OPEN, Reads, TableRead
from ml_platform.settings import Settings

READ, REFUSED = "read", "read refused"


class ReadDetail(msgspec.Struct, omit_defaults=True):
    """What a line of a read says in its `detail`, as JSON."""

    table: str
    version: int | None = None
    columns: tuple[str, ...] = ()
    path: str = ""  # sql, notebook, training, batch, console, lookup …


class ReadAudit:
    """Writes reads to the audit log, from any thread and over forks. One per process and log.

    Parameters
    ----------
    settings
        Where the log is.
    speaks
        Who reads where the lake knows nobody: an admin, or the local owner.
    """

    def __init__(self, settings: Settings, speaks: str) -> None:
        self._settings, self._speaks = settings, speaks
        self._lock = threading.Lock()
        self._log: AuditLog | None = None
        self._pid = 0

    def __call__(self, read: TableRead) -> None:
        """Write a read down.

        Raises
        ------
        OSError
            When the log cannot be written: a read of which no account can be kept is not given.
        """
        who = self._speaks if read.principal == OPEN else read.principal
        entry = Entry(
            time=datetime.now(UTC),
            action=REFUSED if read.is_refused else READ,
            name=who,
            rows=read.rows,
            detail=msgspec.json.encode(ReadDetail(read.table, read.version, read.columns, read.path)).decode(),
        )
        with self._lock:
            if self._log is None or self._pid != os.getpid():  # a file is of one process: its lines are linked
                self._log, self._pid = AuditLog(self._settings.audit_dir, self._settings.keys_dir), os.getpid()
            self._log.record(entry)


_listeners: dict[tuple[str, str], ReadAudit] = {}
_guard = threading.Lock()


def keeps_account(settings: Settings) -> bool:
    """Whether reads are written down: as `audit_reads` says, else where the platform asks for keys."""
    return asks_for_key(settings) if settings.audit_reads is None else settings.audit_reads


def reads_for(settings: Settings, principal: str | None = None) -> Reads | None:
    """Who is told of every read of the lake by a principal, or by who speaks (raises KeyWanted); None for nobody."""
    if not keeps_account(settings):
        return None
    who = speaker(settings).text if principal is None else principal
    with _guard:
        return _listeners.setdefault((str(settings.audit_dir), who), ReadAudit(settings, who))
