"""Writes frames while they are computed, so that they need not all be held in memory."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import chain
from queue import Full, Queue
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
from deltalake import ColumnProperties, WriterProperties

from ml_platform.lake.errors import SchemaMismatch

if TYPE_CHECKING:
    import pyarrow


T = TypeVar("T")
_PATIENCE = 0.2  # seconds to wait for room in the queue before checking that the writer still runs
_ROW_GROUP = 131_072  # rows that the writer holds, and that readers skip as a unit by their statistics


def write_stream(frames: Iterable[pl.DataFrame], table: str, write: Callable[["pyarrow.RecordBatchReader"], T]) -> T:
    """Pass frames of one schema to a writer as a stream of Arrow batches while they are computed.

    The writer runs in its own thread. Delta's writer reads its stream from inside its runtime, where nothing else that
    uses Delta can run, such as the query over the lake that computes the frames; and it replaces every error by one of
    its own.

    Raises
    ------
    SchemaMismatch
        If a frame has other columns or types than the first.
    Exception
        What the iterable raises, after the writer has stopped; or what the writer raises.

    Examples
    --------
    >>> halves = (pl.DataFrame({"n": [number]}) for number in range(2))
    >>> write_stream(halves, "raw/numbers", lambda rows: rows.read_all().column("n").to_pylist())
    [0, 1]
    """
    import pyarrow as pa

    frames = iter(frames)
    first = next(frames)
    waiting: Queue[pl.DataFrame | BaseException | None] = Queue(maxsize=1)

    def batches() -> Iterator["pyarrow.RecordBatch"]:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield from item.to_arrow().to_batches()

    with ThreadPoolExecutor(1, "stream") as thread:
        writing = thread.submit(write, pa.RecordBatchReader.from_batches(first.clear().to_arrow().schema, batches()))
        try:
            for frame in chain([first], frames):
                _check_alike(first.schema, frame.schema, table)
                if not _put(waiting, frame, writing):
                    break
        except BaseException as error:  # interruptions too, because the writer waits for the next item
            _put(waiting, error, writing)
            wait([writing])
            raise
        _put(waiting, None, writing)
        return writing.result()


def _put(waiting: "Queue[Any]", item: Any, writing: "Future[Any]") -> bool:
    """Put an item into the queue; False if the writer has ended before there was room."""
    while not writing.done():
        with suppress(Full):
            waiting.put(item, timeout=_PATIENCE)
            return True
    return False


def writer_properties(rows: "pyarrow.RecordBatchReader") -> WriterProperties:
    """Choose how a stream is written: in small row groups, and without dictionaries for floating-point columns.

    Their values rarely repeat. Trying a dictionary doubles the writer's CPU time, and the files become no smaller.
    """
    import pyarrow as pa

    plain = [field.name for field in rows.schema if pa.types.is_floating(field.type)]
    return WriterProperties(
        max_row_group_size=_ROW_GROUP,
        compression="SNAPPY",
        column_properties={name: ColumnProperties(dictionary_enabled=False) for name in plain},
    )


def _check_alike(wanted: pl.Schema, found: pl.Schema, table: str) -> None:
    if found != wanted:
        columns = {*wanted.items()} ^ {*found.items()}
        problems = [f"column '{name}' ({dtype}) is in one frame only" for name, dtype in sorted(columns, key=str)]
        raise SchemaMismatch(f"Table '{table}'", problems, "Give every frame the columns and types of the first.")
