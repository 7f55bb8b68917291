"""Frames that go to a writer one after the other, so that they need not be held together."""

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
_PATIENCE = 0.2  # seconds after which a full queue is looked at again
_ROW_GROUP = 131_072  # rows; what lies open in the writer, and what a reader can skip by the statistics of


def write_stream(frames: Iterable[pl.DataFrame], table: str, write: Callable[["pyarrow.RecordBatchReader"], T]) -> T:
    """Hand frames of one schema to a writer as a stream of Arrow batches while they are computed.

    The writer has a thread of its own. Delta's reads its stream from inside its runtime, where nothing that uses Delta
    can run, such as a query over the lake that gives the frames; and it turns every error into one of its own.

    Raises
    ------
    SchemaMismatch
        If a frame has other columns or types than the first.
    Exception
        What the frames raise, after the writer has given up; what the writer raises.

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
                if not _taken(waiting, frame, writing):
                    break
        except BaseException as error:  # an interruption too: the writer waits for what comes
            _taken(waiting, error, writing)
            wait([writing])
            raise
        _taken(waiting, None, writing)
        return writing.result()


def _taken(waiting: "Queue[Any]", item: Any, writing: "Future[Any]") -> bool:
    """Put an item into the queue; False if the writer has ended before there was room."""
    while not writing.done():
        with suppress(Full):
            waiting.put(item, timeout=_PATIENCE)
            return True
    return False


def writer_properties(rows: "pyarrow.RecordBatchReader") -> WriterProperties:
    """How the batches of a stream are written: small row groups, and no dictionaries of fractions.

    Fractions rarely repeat. Looking whether they do doubles the writer's CPU time, for files of the same size.
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
