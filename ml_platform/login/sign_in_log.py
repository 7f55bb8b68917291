"""The gateway's lines in the audit log: who signed in or failed to, what was changed, what was refused."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ml_platform.governance.audit import AuditLog, Entry

logger = logging.getLogger("login")

# Members of a mutation's variables that say what it is about; others, such as a run's config, may hold anything.
_NAMING: Final = frozenset(
    {
        "runId", "runIds", "parentRunId", "rootRunId", "jobName", "pipelineName", "scheduleName", "sensorName", "name",
        "assetKeys", "assetKey", "path", "backfillId", "partitionNames", "partitionKey", "concurrencyKey", "location",
        "repositoryLocationName", "cursor", "paused", "terminatePolicy",
    }
)  # fmt: skip
_LONGEST = 400


class SignInLog:
    """Writes for the gateway's event loop. When it cannot, changes are refused: none goes unrecorded."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def note(
        self,
        action: str,
        *,
        who: str | None,
        client: str | None,
        detail: str = "",
        method: str | None = None,
        path: str | None = None,
        status: int | None = None,
    ) -> None:
        """Write a line (raises OSError)."""
        entry = Entry(
            time=datetime.now(UTC),
            action=action,
            name=who,
            client=client,
            method=method,
            path=_writable(path[:500]) if path else None,
            status=status,
            detail=_writable(detail[:1000]) or None,
        )
        try:
            self._log.record(entry)
        except OSError as error:
            logger.error("the audit log cannot be written: %s", error)
            raise

    def close(self) -> None:
        """Sync and close the log."""
        self._log.close()


def _writable(text: str) -> str:
    """A text without lone surrogates, which JSON may send and UTF-8 cannot write."""
    return text.encode("utf-8", "backslashreplace").decode()


def named(variables: Any) -> str:
    """What a mutation's variables are about: names and ids alone.

    Examples
    --------
    >>> named({"params": {"selector": {"jobName": "train"}, "runConfigData": {"password": "x"}}})
    'jobName=train'
    """
    found: list[str] = []

    def walk(value: Any, depth: int) -> None:
        if depth > 8 or len(found) > 20:
            return
        if isinstance(value, Mapping):
            for key, member in value.items():
                if key in _NAMING and isinstance(member, str | bool | int):
                    found.append(f"{key}={member}")
                elif key in _NAMING and isinstance(member, list) and all(isinstance(one, str) for one in member):
                    found.append(f"{key}={'/'.join(member)}")
                elif key not in {"runConfigData", "tags"}:
                    walk(member, depth + 1)
        elif isinstance(value, list):
            for member in value:
                walk(member, depth + 1)

    walk(variables, 0)
    return ", ".join(found)[:_LONGEST]
