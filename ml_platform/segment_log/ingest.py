"""Ingests segments that serving wrote into a table, each record once (see `ml_platform.segment_log.segments`).

Every commit to the table records, as a Delta application transaction, the name of a segment and the byte up to which it
was ingested. Rows and offset become visible together or not at all, so even after a kill the next run knows where to go
on. A segment is deleted when all of it is in the table, the table on disk, and its writer gone.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from ml_platform.atomic_files import locked, try_lock
from ml_platform.lake.storage.tables import Lake
from ml_platform.segment_log.lag import note_ingested
from ml_platform.segment_log.segments import SUFFIX

CHUNK_BYTES = 32 * 2**20  # of a segment in one commit: about 30,000 records


@dataclass(frozen=True)
class Ingested:
    """What one run ingested from one folder of segments."""

    table: str
    version: int | None = None  # of the table, None while it does not exist
    rows: int = 0
    segments: int = 0  # read
    deleted: int = 0  # wholly ingested, writer gone
    torn: int = 0  # lines that a dying worker left unfinished; their requests were never answered
    newest: datetime | None = None  # when the newest ingested row was logged


Read = Callable[[bytes, str], tuple[pl.DataFrame | None, int]]


def ingest_segments(
    lake: Lake,
    table: str,
    folder: Path,
    read: Read,
    *,
    written_at: str,
    partition_by: Sequence[str] = (),
    may_delete: Callable[[Path], bool] = lambda _: True,
) -> Ingested:
    """Ingest what was logged in a folder since the last run into a table, each record exactly once.

    Safe to run while serving writes, to kill at any point and to run twice at the same time.

    Parameters
    ----------
    lake
        Where the table is.
    table
        Table only for these segments; created with the first row.
    folder
        Folder of the segments.
    read
        `read(lines, segment's name)` gives the rows of whole lines (or None) and the number of torn lines.
    written_at
        Column of the rows with the instant at which they were logged.
    partition_by
        Partition columns of a new table.
    may_delete
        Whether a segment may be deleted once all of it is in the table and its writer is gone.
    """
    report = Ingested(table)
    ingested: dict[str, int] = {}
    is_synced = False
    with locked(folder / ".ingest.lock"):  # two runs would read the same bytes and race to commit them
        for segment in sorted(folder.glob(f"*{SUFFIX}")):
            with segment.open("rb") as file:
                # A writer keeps a shared lock on its segment. Before reading: it may append until it is gone.
                finished = try_lock(file.fileno())
                app = f"{table.partition('/')[0]}/{segment.name}"
                offset = lake.last_app_version(table, app) or 0
                for chunk in _whole_lines(file, offset, finished):
                    rows, torn = read(chunk, segment.name)
                    offset += len(chunk)
                    if rows is not None:
                        lake.append(
                            table, rows, partition_by=partition_by, app_transaction=(app, offset), add_columns=True
                        )
                        is_synced = False
                        newest: Any = rows.get_column(written_at).max()
                        newest = max(newest, report.newest or newest)
                        report = replace(report, rows=report.rows + rows.height, newest=newest)
                    report = replace(report, torn=report.torn + torn)
            done = finished and may_delete(segment)
            if done:
                if not is_synced:  # else a power cut could lose both
                    lake.sync(table)
                    is_synced = True
                segment.unlink()
            else:
                ingested[segment.name] = offset
            report = replace(report, segments=report.segments + 1, deleted=report.deleted + done)
        note_ingested(folder, ingested)
    return replace(report, version=lake.version(table) if lake.exists(table) else None)


def _whole_lines(file: BinaryIO, offset: int, finished: bool) -> Iterator[bytes]:
    """Chunks of whole lines from an offset on; when the writer is gone, with the unfinished last line."""
    size = os.fstat(file.fileno()).st_size - offset  # fixed now, so that a busy writer is not followed for ever
    file.seek(offset)
    rest = b""
    while block := file.read(min(CHUNK_BYTES, size)):
        size -= len(block)
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = block[end:]
        else:
            rest += block
    if rest and finished:
        yield rest
