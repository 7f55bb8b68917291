"""Reads the numbers that applications committed with a table's rows, which say what was delivered to it.

Delta itself returns the number of one application at a time, which is too slow for thousands of files. And it keeps all
numbers when a table is restored, so that rows that the restored version lacks would never be delivered again.
"""

import io
import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import pyarrow.fs

LOG_FOLDER = "_delta_log"
_READERS = 16  # threads: commits are small, and reading them from a bucket is mostly waiting
NEVER = -(2**63)  # number of an application whose rows a restore removed
_COMMIT = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.parquet")


def deliveries(store: "pyarrow.fs.FileSystem", version: int) -> dict[str, int]:
    """Read from a table's log the last number of each application, as of a version.

    Parameters
    ----------
    store
        File system rooted at the table.

    Raises
    ------
    LookupError
        If commits before the version were deleted from the log, and no checkpoint has their content.
    """
    import pyarrow.fs

    names = [info.base_name for info in store.get_file_info(pyarrow.fs.FileSelector(LOG_FOLDER))]
    commits = {int(match[1]): name for name in names if (match := _COMMIT.fullmatch(name))}
    checkpoints = {int(match[1]): name for name in names if (match := _CHECKPOINT.fullmatch(name))}
    start = max((number for number in checkpoints if number <= version), default=-1)
    numbers = {}
    if start >= 0:
        made = pl.read_parquet(io.BytesIO(_content(store, checkpoints[start])), columns=["txn"])["txn"].drop_nulls()
        numbers = dict(zip(made.struct.field("appId"), made.struct.field("version"), strict=True))
    wanted = range(start + 1, version + 1)
    if missing := [number for number in wanted if number not in commits]:
        raise LookupError(f"The log has no commit {missing[0]}, and no checkpoint between it and version {version}.")
    with ThreadPoolExecutor(_READERS) as pool:
        for content in pool.map(lambda number: _content(store, commits[number]), wanted):
            for line in content.splitlines():
                if b'"txn"' in line and (made := json.loads(line).get("txn")):
                    numbers[made["appId"]] = made["version"]
    return {application: number for application, number in numbers.items() if number != NEVER}


def restored_numbers(then: Mapping[str, int], now: Mapping[str, int]) -> list[tuple[str, int]]:
    """Numbers to commit with a restore, so that the numbers are again those of `then`."""
    return [(name, then.get(name, NEVER)) for name, number in now.items() if then.get(name) != number]


def _content(store: "pyarrow.fs.FileSystem", name: str) -> bytes:
    with store.open_input_file(f"{LOG_FOLDER}/{name}") as opened:
        return bytes(opened.read())
