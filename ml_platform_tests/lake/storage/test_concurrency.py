"""Many processes write one table at once and some are killed: every row is there afterwards, once."""

import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import polars as pl
import pytest

from ml_platform.lake.errors import CommitConflict
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.lake.storage.writers import ROWS, TABLE, rows, run

ENDLESS = 1_000_000  # batches


@contextmanager
def _starting(lake: Lake, folder: Path) -> Iterator[Callable[..., BaseProcess]]:
    """Start processes that work on the lake; those that a failure leaves running are killed."""
    spawn = multiprocessing.get_context("spawn")
    started: list[BaseProcess] = []

    def start(work: str, *arguments: str | int) -> BaseProcess:
        process = spawn.Process(target=run, args=(work, lake.uri, str(folder), *arguments))
        process.start()
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()


def _until(condition: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the writers and the maintenance make no progress"
        time.sleep(0.01)


def _at_work(folder: Path, process: BaseProcess) -> bool:
    return (folder / str(process.pid)).exists()


def _kill_at_work(folder: Path, process: BaseProcess) -> None:
    """Kill a process that is writing without a pause, at a moment of chance after it did something."""
    _until(lambda: _at_work(folder, process) or not process.is_alive())
    time.sleep(random.uniform(0, 0.05))
    process.kill()
    process.join()
    assert process.exitcode == -9, "it ended by itself"


def _batches(lake: Lake, part: str) -> pl.DataFrame:
    return lake.read(TABLE).filter(pl.col("part") == part).select("batch", "row").sort("batch", "row").collect()


def _play(lake: Lake, folder: Path, *, batches: int, kills: int) -> None:
    stop = str(folder / "stop")
    pinned = lake.append(TABLE, rows("before", 0), partition_by=["part"])
    with _starting(lake, folder) as start:
        keeper = start("maintain", stop, pinned)
        others = [
            start("append", "steady", batches),
            start("replace", "replaced", batches),
            start("merge", "merged", batches),
        ]
        for _ in range(kills):
            endless = [
                start("append", "killed", ENDLESS),
                start("replace", "torn replacement", ENDLESS),
                start("maintain", stop, pinned),  # killed before the last writer, or it may have nothing to do
                start("merge", "torn merge", ENDLESS),
            ]
            for process in endless:
                _kill_at_work(folder, process)
        last = lake.last_app_version(TABLE, "killed")
        assert last is not None
        resumed = last + 1 + batches
        for process in [start("append", "killed", resumed), *others]:
            process.join()
            assert process.exitcode == 0
        _until(lambda: _at_work(folder, keeper) and "OPTIMIZE" in lake.history(TABLE)["operation"].to_list())
        Path(stop).touch()
        keeper.join()
        assert keeper.exitcode == 0

    for part, count in (("steady", batches), ("killed", resumed)):
        everything = pl.DataFrame({"batch": range(count)}).join(pl.DataFrame({"row": range(ROWS)}), how="cross")
        assert _batches(lake, part).equals(everything.sort("batch", "row")), part
    for part in ("replaced", "merged"):
        assert _batches(lake, part).rows() == [(batches - 1, row) for row in range(ROWS)], part
    for part in ("torn replacement", "torn merge"):
        torn = _batches(lake, part)
        assert torn["batch"].n_unique() == 1, f"{part}: half of a write is there"
        assert torn["row"].to_list() == list(range(ROWS)), part
    assert lake.read(TABLE).select(pl.len()).collect().item() == (batches + resumed + 5) * ROWS
    assert lake.read(TABLE, version=pinned).collect().height == ROWS


def test_no_row_is_lost_or_doubled(lake: Lake, tmp_path: Path) -> None:
    _play(lake, tmp_path, batches=8, kills=1)


@pytest.mark.slow
def test_no_row_is_lost_or_doubled_in_a_long_run(lake: Lake, tmp_path: Path) -> None:
    _play(lake, tmp_path, batches=60, kills=5)


def test_giving_up_names_the_table_the_operation_and_the_rival(lake: Lake) -> None:
    lake.replace(TABLE, rows("a", 0), partition_by=["part"])

    def beaten() -> int:
        stale = lake.snapshot(TABLE)
        lake.replace(TABLE, rows("a", 1), where="part = 'a'")
        merger = stale.merge(rows("a", 2), "kept.part = given.part AND kept.row = given.row", "given", "kept")
        merger.when_matched_update_all().execute()
        return stale.version()

    with pytest.raises(CommitConflict, match=r"Could not merge into 'raw/events': other writers won 2 times") as caught:
        commits.retried(TABLE, "merge into", beaten, newest=lambda: lake.snapshot(TABLE), tries=2)
    newest = lake.history(TABLE).row(0, named=True)
    assert f"version {newest['version']}, WRITE at {newest['timestamp']:%Y-%m-%d %H:%M:%S} UTC" in caught.value.rival
    assert newest["writer"] in caught.value.rival
    assert _batches(lake, "a")["batch"].unique().to_list() == [1]
