"""Writes a line into the audit log for each request: who asked for what, when, and how it ended.

The lines of all requests that end within `SECONDS` are one write. A worker killed with SIGKILL loses at most the lines
of the last `SECONDS`; one that stops normally loses none.
"""

import asyncio
import logging
from datetime import UTC, datetime

from starlette.types import Scope

from ml_platform.governance.audit import AuditLog, Entry
from ml_platform.serving.http.request_context import RequestContext

SECONDS = 0.01

logger = logging.getLogger("serving")


class Auditing:
    """Notes requests as they end, on the event loop. One per worker."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._ended: list[Entry] = []

    def note(self, scope: Scope) -> None:
        """Note a request that was answered."""
        if not self._ended:
            asyncio.get_running_loop().call_later(SECONDS, self.write)
        self._ended.append(_entry(scope))  # not the scope itself: the garbage collector would have to walk it

    def write(self) -> None:
        """Write the lines that wait; when that fails, they are lost and the server's log says so."""
        ended, self._ended = self._ended, []
        if not ended:
            return
        try:
            self._log.record(*ended)
        except OSError as error:
            logger.error("the audit log cannot be written, %d requests are lost to it: %s", len(ended), error)

    def close(self) -> None:
        """Write the lines that are left, and close the log."""
        self.write()
        self._log.close()


def _entry(scope: Scope) -> Entry:
    """Make the audit log's entry of a request; its body and answer are never part of it."""
    context = RequestContext.of(scope)
    caller = context.key
    return Entry(
        time=datetime.now(UTC),
        request_id=context.request_id,
        key=caller.id if caller else None,
        name=caller.name if caller else None,
        client=context.client,
        method=scope["method"],
        path=scope["path"][:500],
        status=context.status,
        rows=context.rows or None,
    )
