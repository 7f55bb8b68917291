"""Erases entities from logs whose lines are in the lake already, while their writer still holds the file open.

A segment is deleted when its writer has closed it. Until then lines that were ingested are read by nobody, so those
that name an entity are overwritten by spaces where they stand; what the writer appends meanwhile comes after them.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from ml_platform.atomic_files import locked
from ml_platform.governance.erasure.subjects import Subjects
from ml_platform.lake.storage.tables import Lake
from ml_platform.segment_log.segments import SUFFIX


def blank_segments(lake: Lake, table: str, folder: Path, texts: Collection[str]) -> int:
    """Overwrite ingested lines of a folder's segments that have one of the texts; return how many."""
    blanked = 0
    if not folder.is_dir() or not lake.exists(table):
        return 0
    needles = [text.encode() for text in texts]
    with locked(folder / ".ingest.lock"):
        lake.sync(table)
        for segment in sorted(folder.glob(f"*{SUFFIX}")):
            ingested = lake.last_app_version(table, f"{table.partition('/')[0]}/{segment.name}") or 0
            with segment.open("r+b") as file:
                for start, line in _lines(file.read(ingested)):
                    if any(needle in line for needle in needles):
                        os.pwrite(file.fileno(), b" " * len(line), start)
                        blanked += 1
                os.fsync(file.fileno())
    return blanked


def lines_with(folder: Path, everyone: Sequence[Subjects]) -> int:
    """How many lines of a folder's segments name one of the entities: in a field, or by a text that is long enough."""
    return sum(
        any(one.stands_in(line) or one.is_said_in(line) for one in everyone)
        for segment in sorted(folder.glob(f"*{SUFFIX}"))
        for _, line in _lines(segment.read_bytes())
    )


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    for line in content.split(b"\n"):
        if line.strip():
            yield start, line
        start += len(line) + 1
