"""Commits to tables with several writers: a commit that loses a race is tried again, a bounded number of times."""

import getpass
import os
import random
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from ml_platform.lake.errors import CommitConflict

T = TypeVar("T")
TRIES = 30
KEEPS_ROWS = {  # operations of Delta that change no row
    *("OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "ADD CONSTRAINT", "DROP CONSTRAINT"),
    *("ADD FEATURE", "UPDATE FIELD METADATA", "UPDATE TABLE METADATA"),
}
_FIRST_PAUSE = 0.02  # seconds, doubled per try up to _LONGEST_PAUSE and jittered
_LONGEST_PAUSE = 1.0

# By default Delta deletes the log of expired versions when it writes a checkpoint. But a version on which a model was
# trained must stay readable as long as the model exists, so only `storage.maintenance` deletes anything.
HOOKS = PostCommitHookProperties(cleanup_expired_logs=False)


def properties(*app_transactions: tuple[str, int], rebased: bool = True) -> CommitProperties:
    """Describe a commit: who makes it and, for exactly-once delivery, the applications' numbers.

    With `rebased=False` the commit fails if there is a newer version than the one it read. Delta would otherwise commit
    after the other writer without checking what that one did: it may have created the table, or compacted it, and then
    the compacted files would stay in a table whose rows were all replaced.
    """
    return CommitProperties(
        custom_metadata={"userName": _writer()},
        max_commit_retries=None if rebased else 0,
        app_transactions=[Transaction(*one) for one in app_transactions] or None,
    )


def retried(
    table: str,
    operation: str,
    attempt: Callable[[], T],
    *,
    newest: Callable[[], DeltaTable | None],
    tries: int = TRIES,
) -> T:
    """Repeat a commit that lost a race; other errors are raised.

    Parameters
    ----------
    table, operation
        What is written and how, for the error message.
    attempt
        Opens the table again and writes it.
    newest
        Opens the table as the other writers left it; None if it does not exist.
    tries
        Attempts before giving up.

    Raises
    ------
    CommitConflict
        If every attempt lost; the message names table, operation, and the commit that won.
    """
    pause = _FIRST_PAUSE
    for number in range(1, tries + 1):
        try:
            return attempt()
        except DeltaError as error:
            if not is_conflict(error):
                raise
            last = error
        if number < tries:
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, _LONGEST_PAUSE)
    raise CommitConflict(table, operation, tries, rival_of(newest()), str(last))


def is_conflict(error: Exception) -> bool:
    """Whether a commit failed only because another one was made at the same time."""
    text = str(error).lower()
    creation = "already exists" in text or "version 0" in text  # two processes created the table at once
    vacuumed = ".parquet" in text and "not found" in text  # a file of the opened version was deleted
    return (
        isinstance(error, CommitFailedError)
        or creation
        or vacuumed
        or "conflict" in text
        or "transaction failed" in text
    )


def is_violation(error: Exception) -> bool:
    """Whether a write failed because of its rows: they do not match the predicate, or break a constraint."""
    return "failed validation check" in str(error)


def listed(table: DeltaTable, limit: int | None = None) -> pl.DataFrame:
    """Commits of an opened table, newest first: version, timestamp (UTC), operation, parameters, writer."""
    made = table.history(limit)
    return pl.DataFrame(
        {
            "version": [commit["version"] for commit in made],
            "timestamp": [commit["timestamp"] for commit in made],
            "operation": [commit["operation"] for commit in made],
            "parameters": [str(commit.get("operationParameters", {})) for commit in made],
            "writer": [commit.get("userName") for commit in made],
        },
        schema_overrides={"timestamp": pl.Int64, "writer": pl.String},
    ).with_columns(pl.from_epoch("timestamp", "ms").dt.cast_time_unit("us").dt.replace_time_zone("UTC"))


def origin(newest: DeltaTable, version: int) -> int:
    """Version whose commit wrote the rows of a version: not the one that restored or compacted them.

    Parameters
    ----------
    newest
        The newest snapshot of the table.
    version
        A version of the table.
    """
    limit = newest.version() - version + 1  # usually its own commit tells
    while True:
        made = {int(commit["version"]): commit for commit in newest.history(limit)}
        while version in made:
            operation, restored = (
                made[version]["operation"],
                made[version].get("operationParameters", {}).get("version"),
            )
            if operation == "RESTORE" and restored is not None:
                version = int(restored)
            elif operation in KEEPS_ROWS and version > 0:
                version -= 1
            else:
                return version
        if len(made) < limit:  # its commit is no longer in the log
            return version
        limit = newest.version() - version + 1


def rival_of(newest: DeltaTable | None) -> str:
    """Describe the newest commit of a table: version, operation, time, writer."""
    if newest is None:
        return "unknown: the table does not exist"
    commit = newest.history(1)[0]
    at = datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)
    return (
        f"version {commit['version']}, {commit['operation']} at {at:%Y-%m-%d %H:%M:%S} UTC "
        f"by {commit.get('userName', 'an unnamed writer')}"
    )


def _writer() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"
