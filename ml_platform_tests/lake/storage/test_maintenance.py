"""Maintenance frees what nobody needs, says how much, and keeps what is pinned."""

import os
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from ml_platform.lake.errors import VersionGone
from ml_platform.lake.storage.maintenance import _claimed, compact, maintain, vacuum
from ml_platform.lake.storage.tables import Lake

NOW = timedelta(0)


def _days(value: int) -> pl.DataFrame:
    return pl.DataFrame({"day": [date(2013, 1, 1), date(2013, 1, 2)], "place": ["a b", "ü/%"], "value": [value] * 2})


def _size(lake: Lake) -> int:
    return sum(file.stat().st_size for file in Path(lake.uri).rglob("*.parquet"))


def test_small_files_become_large_ones_and_what_is_freed_is_counted(lake: Lake) -> None:
    for value in range(4):
        lake.append("raw/days", _days(value), partition_by=["day", "place"])
    before, rows = _size(lake), lake.read("raw/days").sort("value", "day").collect()
    (done,) = maintain(lake, retention=NOW)
    assert (done.table, done.files_merged, done.files_written, done.files_freed) == ("raw/days", 8, 2, 8)
    assert lake.read("raw/days").sort("value", "day").collect().equals(rows)
    merged = sum(Path(file).stat().st_size for file in lake.snapshot("raw/days").file_uris())
    assert done.bytes_freed == before
    assert _size(lake) == merged


def test_with_nothing_to_do_nothing_is_committed(lake: Lake) -> None:
    lake.append("raw/days", _days(0))
    (done,) = maintain(lake, retention=NOW)
    assert (done.files_freed, done.bytes_freed, done.version) == (0, 0, 0)


def test_two_compactions_at_once_do_not_double_the_rows(lake: Lake) -> None:
    for value in range(3):
        lake.append("raw/days", _days(value), partition_by=["day"])
    first, second = _claimed(lake, "raw/days"), _claimed(lake, "raw/days")
    second.optimize.compact()
    with pytest.raises(CommitFailedError):
        first.optimize.compact()
    assert lake.read("raw/days").collect()["value"].sort().to_list() == [0, 0, 1, 1, 2, 2]
    assert compact(lake, "raw/days") == (0, 0)


@pytest.mark.parametrize("in_batches", [True, False])
def test_a_compaction_does_not_bring_back_rows_that_are_replaced_meanwhile(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, in_batches: bool
) -> None:
    for value in range(3):
        lake.append("raw/days", _days(value))
    tries = 0

    def compacted_meanwhile() -> Iterator[pl.DataFrame]:
        nonlocal tries
        tries += 1
        compact(lake, "raw/days")
        yield _days(9)

    if in_batches:
        lake.replace_in_batches("raw/days", compacted_meanwhile)
    else:
        opened = lake._open

        def opened_before_a_compaction(table: str) -> DeltaTable | None:
            snapshot = opened(table)
            next(compacted_meanwhile())
            return snapshot

        monkeypatch.setattr(lake, "_open", opened_before_a_compaction)
        lake.replace("raw/days", _days(9))
    assert tries == 2
    assert lake.read("raw/days").collect()["value"].to_list() == [9, 9]


def test_the_retention_keeps_young_versions_and_a_pin_keeps_old_ones(lake: Lake) -> None:
    for value in range(4):
        lake.replace("training_sets/m", _days(value))
    for minutes in (1, 59, 60):  # a part of an hour is not rounded down to none
        assert vacuum(lake, "training_sets/m", retention=timedelta(minutes=minutes)) == (0, 0)
    files, _ = vacuum(lake, "training_sets/m", retention=NOW, keep=[1])
    assert files == 2
    assert lake.read("training_sets/m", version=1).collect()["value"].to_list() == [1, 1]
    assert lake.read("training_sets/m").collect()["value"].to_list() == [3, 3]
    with pytest.raises(VersionGone, match=r"'training_sets/m' at version 2 cannot be read.*LAKE_RETENTION_DAYS"):
        lake.read("training_sets/m", version=2)


def test_a_table_that_is_replaced_again_and_again_is_freed_all_the_same(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in range(3):
        lake.replace("raw/days", _days(value))
    opened = lake.snapshot

    def opened_before_a_replacement(table: str) -> DeltaTable:
        snapshot = opened(table)
        monkeypatch.setattr(lake, "snapshot", opened)  # once
        lake.replace(table, _days(9))
        return snapshot

    monkeypatch.setattr(lake, "snapshot", opened_before_a_replacement)
    files, _ = vacuum(lake, "raw/days", retention=NOW)
    assert files == 2
    monkeypatch.undo()
    assert lake.version("raw/days") == 3
    assert lake.read("raw/days").collect()["value"].to_list() == [9, 9]


def test_a_pin_that_is_lost_already_is_told_and_does_not_stop_the_rest(lake: Lake) -> None:
    for value in range(3):
        lake.replace("training_sets/m", _days(value))
    vacuum(lake, "training_sets/m", retention=NOW)
    (done,) = maintain(lake, retention=NOW, keep={"training_sets/m": [0, 2, 99]})
    assert (done.versions_kept, done.versions_lost) == ((2,), (0, 99))


def test_leftovers_of_a_crashed_writer_go_only_when_no_writer_can_still_commit_them(lake: Lake) -> None:
    lake.append("raw/days", _days(0))
    folder = Path(lake.location("raw/days"))
    old, young = folder / "part-old.parquet", folder / "part-young.parquet"
    for file in (old, young):
        file.write_bytes(b"x" * 100)
    os.utime(old, (time.time() - 3 * 86400,) * 2)
    assert vacuum(lake, "raw/days", retention=NOW) == (0, 0)
    assert vacuum(lake, "raw/days", retention=timedelta(days=2)) == (1, 100)
    assert not old.exists()
    assert young.exists()


def test_old_versions_outlive_checkpoints_however_long_ago_they_were_written(lake: Lake) -> None:
    lake.replace("training_sets/m", _days(0))
    lake.replace("training_sets/m", _days(1))
    log = Path(lake.location("training_sets/m")) / "_delta_log"
    for commit in log.glob("*.json"):
        os.utime(commit, (time.time() - 90 * 86400,) * 2)
    for value in range(100):
        lake.append("training_sets/m", _days(value))
    compact(lake, "training_sets/m")
    assert list(log.glob("*.checkpoint.parquet"))
    assert lake.read("training_sets/m", version=0).collect()["value"].to_list() == [0, 0]
