"""Processes that write one table at the same time; each runs in an interpreter of its own."""

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import polars as pl

from ml_platform.lake.errors import CommitConflict
from ml_platform.lake.storage import maintenance
from ml_platform.lake.storage.merge import merge as merge_rows
from ml_platform.lake.storage.tables import Lake

TABLE = "raw/events"
ROWS = 20  # per batch, generation and round


def rows(part: str, batch: int) -> pl.DataFrame:
    return pl.DataFrame({"part": [part] * ROWS, "row": range(ROWS), "batch": [batch] * ROWS})


def persistently(write: Callable[[], object]) -> None:
    """Write, as often as it takes: who has lost too many races, as on a busy machine, is told so and comes again."""
    while True:
        try:
            write()
        except CommitConflict:
            continue
        return


def append(lake: Lake, part: str, batches: int) -> Iterator[None]:
    """Append every batch that is not there yet, as a stream worker does when it comes back."""
    done = lake.last_app_version(TABLE, part)
    for batch in range(0 if done is None else done + 1, batches):
        new = rows(part, batch)
        persistently(partial(lake.append, TABLE, new, partition_by=["part"], app_transaction=(part, batch)))
        yield


def replace(lake: Lake, part: str, batches: int) -> Iterator[None]:
    for batch in range(batches):
        new = rows(part, batch)
        persistently(partial(lake.replace, TABLE, new, where=f"part = '{part}'", partition_by=["part"]))
        yield


def merge(lake: Lake, part: str, batches: int) -> Iterator[None]:
    for batch in range(batches):
        new = rows(part, batch)
        persistently(partial(merge_rows, lake, TABLE, new, on=["part", "row"], partition_by=["part"]))
        yield


def maintain(lake: Lake, stop: str, pinned: int) -> Iterator[None]:
    while not Path(stop).exists():
        (done,) = maintenance.maintain(lake, retention=timedelta(0), keep={TABLE: [pinned]})
        if done.files_freed:
            yield
        time.sleep(0.05)


def run(work: str, uri: str, progress: str, *arguments: str | int) -> None:
    """Do the work; a file named by the process' number in the folder `progress` tells that some of it is done."""
    for _ in globals()[work](Lake(uri), *arguments):
        Path(progress, str(os.getpid())).touch()
