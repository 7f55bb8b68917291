"""A version of a table as slices of its row groups, which are read one by one and shared out among workers."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Final

import polars as pl

from ml_platform.lake.storage.snapshots import needs_delta_reader
from ml_platform.lake.storage.tables import Lake

if TYPE_CHECKING:
    import pyarrow.parquet as pq

SLICES_PER_WORKER: Final = 8  # at least, so that each worker has rows of the whole span of time
BATCH_ROWS: Final = 65_536  # that are decoded at once


@dataclass(frozen=True)
class Slice:
    """Rows `start` to `stop` (excluded) of one row group of a file of the table."""

    file: str
    group: int
    start: int
    stop: int


def slices_of(lake: Lake, table: str, version: int, *, workers: int) -> tuple[Slice, ...]:
    """Divide a version of a table into slices, in the order of its files and rows.

    A slice is a row group, or a part of one where there are too few of them for each worker to have eight: rows are
    written by time, and the workers' shares must be alike.

    Parameters
    ----------
    lake, table, version
        What to divide.
    workers
        How many are to share it.

    Raises
    ------
    LookupError, TableNotFound
        See `Lake.snapshot`.
    ValueError
        When the table's Parquet files alone do not give its rows.
    """
    snapshot = lake.snapshot(table, version)
    if needs_delta_reader(snapshot):
        raise ValueError(
            f"version {version} of {table} has deletion vectors or mapped column names, so that its files cannot be "
            "shared out; materialise the training set again, which writes it anew"
        )
    groups: list[tuple[str, int, int]] = []
    root = snapshot.table_uri.rstrip("/") + "/"
    for uri in sorted(snapshot.file_uris()):
        file = uri.removeprefix(root).removeprefix(lake.location(table) + "/")
        with _opened(lake, table, file) as parquet:
            sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.metadata.num_row_groups)]
        groups += [(file, group, rows) for group, rows in enumerate(sizes) if rows]
    parts = math.ceil(SLICES_PER_WORKER * workers / max(1, len(groups)))
    return tuple(
        Slice(file, group, rows * part // parts, rows * (part + 1) // parts)
        for file, group, rows in groups
        for part in range(parts)
        if rows * part // parts < rows * (part + 1) // parts
    )


def read_slices(
    lake: Lake, table: str, slices: Sequence[Slice], columns: Sequence[str]
) -> Iterator[tuple[int, pl.DataFrame]]:
    """Read columns of slices, some ten thousand rows at a time, each with the position of its slice among them.

    A row group is decoded once for all of its slices that stand next to each other, in their order.
    """
    wanted = list(dict.fromkeys(columns))
    for (file, group), own in groupby(enumerate(slices), lambda item: (item[1].file, item[1].group)):
        waiting, place = deque(own), 0
        with _opened(lake, table, file) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=wanted):
                frame = pl.DataFrame(batch).select(wanted)
                end = place + frame.height
                while waiting and waiting[0][1].start < end:
                    position, one = waiting[0]
                    start = max(one.start, place)
                    yield position, frame.slice(start - place, min(one.stop, end) - start)
                    if one.stop > end:
                        break  # the rest of it is in the next batch
                    waiting.popleft()
                place = end
                if not waiting:
                    break


def share_out(counts: Sequence[int], workers: int) -> list[list[int]]:
    """Share slices out, by their numbers of rows, so that all workers have about as many, spread over the slices.

    Examples
    --------
    >>> share_out([10, 10, 10, 0, 10, 5], 2)
    [[0, 2, 5], [1, 4]]
    """
    shares: list[list[int]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for position, rows in enumerate(counts):
        if rows:
            worker = loads.index(min(loads))
            shares[worker].append(position)
            loads[worker] += rows
    return shares


def _opened(lake: Lake, table: str, file: str) -> "pq.ParquetFile":
    import pyarrow.parquet as pq

    return pq.ParquetFile(lake.store(table).open_input_file(file), pre_buffer=False)
