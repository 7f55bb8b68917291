"""Commits to a table that others write too: tried again when they lose a race, a bounded number of times."""

import getpass
import os
import random
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from ml_platform.lake.errors import CommitConflict

T = TypeVar("T")
TRIES = 30
_FIRST_PAUSE = 0.02  # seconds, doubled per try up to _LONGEST_PAUSE and jittered
_LONGEST_PAUSE = 1.0

# Delta deletes the log of expired versions by itself when it writes a checkpoint. A version that a model was trained on
# must stay readable as long as the model does, so nothing is deleted but by `ml_platform.lake.maintenance`.
HOOKS = PostCommitHookProperties(cleanup_expired_logs=False)


def properties(*app_transactions: tuple[str, int], rebased: bool = True) -> CommitProperties:
    """Describe a commit: who makes it and, for exactly-once delivery, the applications' numbers.

    One that is not `rebased` fails if there is a newer version than the one that it read. Delta would commit it after
    the rival's, without a look at what that did: creation by another, or a compaction, whose files would stay beside
    those of a table that is written anew.
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
    """Repeat a commit that lost a race; every other error goes through.

    Parameters
    ----------
    table, operation
        What is written and how, for the error's sake.
    attempt
        Opens the table anew and writes it.
    newest
        Opens the table as the rivals left it; None if it does not exist.
    tries
        Attempts before giving up.

    Raises
    ------
    CommitConflict
        If every attempt lost, naming table, operation, and the commit that was made instead.
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
    vacuumed = ".parquet" in text and "not found" in text  # a file of the version that the attempt had opened
    return (
        isinstance(error, CommitFailedError)
        or creation
        or vacuumed
        or "conflict" in text
        or "transaction failed" in text
    )


def is_violation(error: Exception) -> bool:
    """Whether a write failed for what its rows hold: they break the predicate they were given with, or a constraint."""
    return "failed validation check" in str(error)


def rival_of(newest: DeltaTable | None) -> str:
    """Say which commit is the newest of a table: version, operation, time, writer."""
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
