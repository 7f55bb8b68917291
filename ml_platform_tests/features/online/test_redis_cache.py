"""Rows that a reader remembers are never older than the file, whoever writes it."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.features.online.sqlite_store import SqliteOnlineStore

START = datetime(2013, 1, 1, tzinfo=UTC)
KEYS = [("v", (number,)) for number in range(5)]


def write(path: Path, step: int, *, view_hash: str = "", column: str = "x") -> None:
    with SqliteOnlineStore(path) as writer:
        rows = [{"k": key, "event_time": START + timedelta(seconds=step), column: step} for _, (key,) in KEYS]
        writer.write("v", ("k",), pl.DataFrame(rows), view_hash=view_hash)


def test_every_read_after_a_commit_sees_it(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    write(path, 0)
    with SqliteOnlineStore(path) as reader:
        for step in range(1, 30):
            assert [row and row.values for row in reader.read(KEYS)] == [{"x": step - 1}] * 5
            assert [row and row.values for row in reader.read(KEYS)] == [{"x": step - 1}] * 5  # from memory
            write(path, step)
        assert reader.read([("v", (99,))]) == [None]
        assert reader.read([("v", (99,))]) == [None]


def test_an_entity_that_was_unknown_is_found_once_written(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    with SqliteOnlineStore(path) as reader:
        assert reader.read(KEYS) == [None] * 5
        write(path, 1)
        assert all(row is not None for row in reader.read(KEYS))


def test_a_new_definition_counts_at_once(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    write(path, 1, view_hash="a")
    with SqliteOnlineStore(path) as reader:
        reader.read(KEYS)
        write(path, 1, view_hash="b", column="y")
        assert [row and row.values for row in reader.read(KEYS)] == [{"y": 1}] * 5
        assert reader.view_hash("v") == "b"


def test_keys_that_are_equal_in_python_alone_are_different_entities(tmp_path: Path) -> None:
    with SqliteOnlineStore(tmp_path / "online.db") as store:
        write(tmp_path / "online.db", 1)
        assert store.read([("v", (1,))])[0] is not None
        assert store.read([("v", (True,))]) == store.read([("v", ("1",))]) == [None]


WRITER = """
import sys
from pathlib import Path
from ml_platform_tests.features.online.test_redis_cache import write
step, store = 1, Path(sys.argv[1])
while not store.with_name("enough").exists():
    step += 1
    write(store, step)
print(step)
"""


@pytest.mark.parametrize("count", [1, 3])
def test_beside_a_writing_process_rows_of_one_read_are_of_one_state_and_time_runs_forward(
    tmp_path: Path, count: int
) -> None:
    path = tmp_path / "online.db"
    write(path, 1)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True
    )
    wrong: list[object] = []
    seen: list[set[int]] = []
    store = SqliteOnlineStore(path)

    def read() -> None:
        newest, steps = 0, set[int]()
        while len(steps) <= 20 and writer.poll() is None:
            for keys in (KEYS[:2], KEYS, KEYS[3:]):  # some of a read are remembered, some are not
                values = {row.values["x"] for row in store.read(keys) if row is not None}
                if len(values) != 1 or min(values) < newest:
                    wrong.append((values, newest))
                newest = max(newest, *values)
                steps |= values
        seen.append(steps)

    threads = [threading.Thread(target=read) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    path.with_name("enough").touch()
    last = int(writer.communicate()[0])
    assert wrong == []
    assert all(len(steps) > 20 for steps in seen)
    assert store.read(KEYS[:1])[0].values == {"x": last}  # type: ignore[union-attr]
    store.close()
