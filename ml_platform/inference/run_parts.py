"""Runs the parts of a scoring, in this process or on Ray, and keeps the rows that were refused."""

import io
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import polars as pl

from ml_platform.compute import Executor, task_pool
from ml_platform.inference.parts import PART_ROWS, ROW_GROUP, Part, PartResult, ScoringTask
from ml_platform.inference.score_part import score_part
from ml_platform.lake.ingestion.ingest import QUARANTINE, quarantine_of
from ml_platform.lake.storage.tables import Lake

_TRIES = 4  # of a part whose worker dies


def stage(rows: pl.DataFrame, folder: Path) -> list[Part]:
    """Write rows as the files of parts."""
    folder.mkdir(parents=True)
    parts = []
    for number, some in enumerate(rows.iter_slices(PART_ROWS)):
        path = folder / f"rows-{number:05d}.parquet"
        some.write_parquet(path, compression="lz4", row_group_size=ROW_GROUP)
        parts.append(Part(number, str(path), None, number * PART_ROWS, some.height))
    return parts


def run_parts(
    parts: Sequence[Part],
    task: ScoringTask,
    *,
    executor: Executor,
    on_done: Callable[[PartResult], None],
) -> None:
    """Score parts, each once, and give the result of each as it ends.

    On Ray a part whose worker dies is given to another one, some times; what the dead one wrote counts for nothing.

    Raises
    ------
    Exception
        What scoring a part raises.
    """
    if not parts:
        return
    by_number, tries = {part.number: part for part in parts}, Counter[int]()
    waiting = list(reversed(parts))
    with task_pool(score_part, shared=task, executor=executor) as pool:
        running = 0
        while waiting or running:
            while waiting and running < pool.capacity + (executor == "ray"):
                part = waiting.pop()
                pool.submit(part.number, part)
                running += 1
            key, result = pool.wait()
            running -= 1
            number = int(str(key))
            if not isinstance(result, Exception):
                on_done(result)
                continue
            tries[number] += 1
            if executor == "local" or not _has_died(result) or tries[number] >= _TRIES:
                raise result
            waiting.append(by_number[number])


def keep_refused(lake: Lake, table: str, results: Sequence[PartResult], *, where: str) -> str | None:
    """Put refused rows into the quarantine of a table, in place of those that a predicate selects.

    It comes before the commit of the scored rows: a crash in between leaves a row in the quarantine, and the same
    scoring again replaces it. The quarantine's name is returned; None when no row was ever refused.
    """
    name = quarantine_of(table)
    files = [result.refused_rows for result in sorted(results, key=lambda one: one.number) if result.refused_rows]
    if not files and not lake.exists(name):
        return None

    def frames() -> Iterator[pl.DataFrame]:
        yield pl.DataFrame(schema=QUARANTINE)
        yield from (pl.read_parquet(io.BytesIO(rows)) for rows in files)

    lake.replace_in_batches(name, frames, where=where)
    return name


def _has_died(error: Exception) -> bool:
    """Whether a worker died, which says nothing of the part."""
    from ray.exceptions import RayError, RayTaskError

    return isinstance(error, RayError) and not isinstance(error, RayTaskError)
