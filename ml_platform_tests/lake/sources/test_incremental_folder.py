"""A folder that grows: each file comes into the table once, also after a crash between any two commits."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.sources import incremental_folder
from ml_platform.lake.sources.file_readers import read_source_file
from ml_platform.lake.sources.incremental_folder import list_files, load_new_files
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.lake.ingestion.test_quarantine import Crash, _crashing_after


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "daily").mkdir()
    return tmp_path / "daily"


def _spec(folder: Path, /, **changes: Any) -> SourceSpec:
    return SourceSpec.model_validate(
        {
            "name": "raw/sales",
            "description": "Sales.",
            "owner": "team:shop",
            "folder": {"path": str(folder), "pattern": "**/*.csv", "quiet_seconds": 5},
            "columns": {"sale": {"type": "string", "key": True}, "amount": {"type": "number", "minimum": 0}},
            **changes,
        }
    )


def _put(folder: Path, name: str, *rows: str, header: str = "sale,amount", seconds_old: float = 60) -> None:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n".join([header, *rows]) + "\n")
    os.utime(file, (time.time() - seconds_old,) * 2)


def _sales(lake: Lake) -> list[str]:
    return sorted(lake.read("raw/sales").collect()["sale"])


def test_each_file_is_read_once(lake: Lake, folder: Path) -> None:
    told: list[str] = []
    _put(folder, "1.csv", "a,1", "b,2")
    _put(folder, "2013/2.csv", "c,3")
    report = load_new_files(lake, _spec(folder), progress=told.append)
    assert (report.rows_read, report.rows_written) == (3, 3)
    assert told == ["2 of 2 files, 3 rows: 2013/2.csv"]
    assert load_new_files(lake, _spec(folder)).rows_read == 0
    _put(folder, "3.csv", "d,4")
    assert load_new_files(lake, _spec(folder)).rows_written == 1
    assert _sales(lake) == ["a", "b", "c", "d"]


def test_an_empty_folder_and_files_without_rows_make_an_empty_table(lake: Lake, folder: Path) -> None:
    load_new_files(lake, _spec(folder))
    _put(folder, "1.csv")
    (folder / "2.csv").write_text("")
    os.utime(folder / "2.csv", (0, 0))
    load_new_files(lake, _spec(folder))
    assert list_files(lake, _spec(folder)).read == ("1.csv", "2.csv")
    assert lake.schema("raw/sales") == pl.Schema({"sale": pl.String, "amount": pl.Float64})


@pytest.mark.parametrize(("files_a_commit", "commits_made"), [*((1, n) for n in range(7)), *((2, n) for n in range(4))])
def test_a_crash_between_any_two_commits_loses_and_doubles_nothing(
    lake: Lake, folder: Path, monkeypatch: pytest.MonkeyPatch, files_a_commit: int, commits_made: int
) -> None:
    monkeypatch.setattr(incremental_folder, "_FILES", files_a_commit)
    all_commits = {1: 5, 2: 3}[files_a_commit]  # the quarantine's and the table's of each group, then the constraints
    _put(folder, "1.csv", "a,1", "b,-1")
    _put(folder, "2.csv", "c,3", "d,much")
    with monkeypatch.context() as patched:
        patched.setattr(commits, "retried", _crashing_after(commits_made))
        try:
            load_new_files(lake, _spec(folder))
            assert commits_made >= all_commits
        except Crash:
            assert commits_made < all_commits
    load_new_files(lake, _spec(folder))
    assert _sales(lake) == ["a", "c"]
    assert sorted(lake.read("quarantine/raw/sales").select(pl.col("reasons").list.first()).collect()["reasons"]) == [
        "amount: below 0",
        "amount: not a number",
    ]


def test_small_files_are_committed_together_and_large_ones_by_themselves(
    lake: Lake, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incremental_folder, "_FILES", 3)
    monkeypatch.setattr(incremental_folder, "_ROWS", 100)
    for number in range(5):
        _put(folder, f"{number}.csv", f"{number},1")
    _put(folder, "5.csv", *(f"large {row},1" for row in range(100)))
    told: list[str] = []
    load_new_files(lake, _spec(folder), progress=told.append)
    assert told == ["3 of 6 files, 3 rows: 2.csv", "6 of 6 files, 105 rows: 5.csv"]
    assert len(_sales(lake)) == 105
    assert len(list_files(lake, _spec(folder)).read) == 6


def test_files_of_one_commit_may_repeat_a_key_and_differ_in_columns(lake: Lake, folder: Path) -> None:
    _put(folder, "1.csv", "a,1", "b,much")
    _put(folder, "2.csv", "a,2", "b,2")
    _put(folder, "3.csv", "c,3,x", header="sale,amount,note")
    report = load_new_files(lake, _spec(folder, evolution="add_columns"))
    assert (report.rows_read, report.rows_written, report.rows_quarantined) == (5, 3, 2)
    assert lake.read("raw/sales").sort("sale").collect().rows() == [("a", 1.0, None), ("b", 2.0, None), ("c", 3.0, "x")]
    rejected = lake.read("quarantine/raw/sales").sort("source").select("source", "source_row", "reasons").collect()
    assert rejected.rows() == [
        ("1.csv", 1, ["amount: not a number"]),
        ("2.csv", 0, ["the table has a row with this sale already"]),
    ]


def test_two_runs_at_once_take_each_file_once(lake: Lake, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _put(folder, "1.csv", "a,1", "b,-1")
    _put(folder, "2.csv", "c,1")
    seen_by_both = list_files(lake, _spec(folder))
    (folder / "2.csv").rename(folder / "2.csv.away")
    load_new_files(lake, _spec(folder))
    (folder / "2.csv.away").rename(folder / "2.csv")
    with monkeypatch.context() as patched:
        patched.setattr(incremental_folder, "list_files", lambda *_: seen_by_both)
        load_new_files(
            lake, _spec(folder, columns={"sale": {"type": "string"}, "amount": {"type": "number", "minimum": 0}})
        )
    assert _sales(lake) == ["a", "c"]
    assert lake.read("quarantine/raw/sales").collect().height == 1


def test_a_restored_table_reads_the_files_again_that_it_lost(lake: Lake, folder: Path) -> None:
    _put(folder, "1.csv", "a,1")
    load_new_files(lake, _spec(folder))
    before = lake.version("raw/sales")
    _put(folder, "2.csv", "b,22", "c,-3")
    _put(folder, "3.csv", "d,4", "e,-5")
    load_new_files(lake, _spec(folder))
    lake.restore("raw/sales", before)
    assert list_files(lake, _spec(folder)).new == ("2.csv", "3.csv")
    _put(folder, "2.csv", "b,2", "c,-4", seconds_old=30)  # what was wrong is corrected
    load_new_files(lake, _spec(folder))
    assert lake.read("raw/sales").sort("sale").collect().rows() == [("a", 1.0), ("b", 2.0), ("d", 4.0)]
    rejected = lake.read("quarantine/raw/sales").sort("row").collect()["row"].to_list()
    assert [row.split('"')[7] for row in rejected] == ["-3", "-4", "-5"], "each state of a file once"


def test_a_restore_beside_a_load_loses_and_doubles_nothing(
    lake: Lake, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incremental_folder, "_FILES", 1)
    _put(folder, "00.csv", "00,1")
    load_new_files(lake, _spec(folder))
    first = lake.version("raw/sales")
    names = [f"{number:02}" for number in range(15)]
    for name in names[1:]:
        _put(folder, f"{name}.csv", f"{name},1")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load_new_files, lake, _spec(folder))
        while not loading.done():
            lake.restore("raw/sales", first)
            time.sleep(0.05)  # or the load might lose every race
        loading.result()
    load_new_files(lake, _spec(folder))
    assert _sales(lake) == names
    assert not lake.exists("quarantine/raw/sales")


def test_a_file_that_may_still_be_written_waits(lake: Lake, folder: Path) -> None:
    _put(folder, "1.csv", "a,1", seconds_old=0)
    spec = _spec(folder, folder={"path": str(folder), "pattern": "**/*.csv", "quiet_seconds": 600})
    assert list_files(lake, spec).unsettled == ("1.csv",)
    assert load_new_files(lake, spec).rows_read == 0


def test_a_file_that_changed_is_told_and_not_read_again(lake: Lake, folder: Path) -> None:
    _put(folder, "1.csv", "a,1")
    load_new_files(lake, _spec(folder))
    _put(folder, "1.csv", "a,1", "b,2")
    assert list_files(lake, _spec(folder)).changed == ("1.csv",)
    assert load_new_files(lake, _spec(folder)).rows_read == 0
    assert _sales(lake) == ["a"]


def test_a_correction_of_the_same_size_is_told_too(lake: Lake, folder: Path) -> None:
    _put(folder, "1.csv", "a,1")
    load_new_files(lake, _spec(folder))
    _put(folder, "1.csv", "a,2", seconds_old=30)
    assert list_files(lake, _spec(folder)).changed == ("1.csv",)


def test_a_file_that_is_changed_while_it_is_read_waits_and_is_then_read_whole(
    lake: Lake, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(folder, "1.csv", "a,1")
    _put(folder, "2.csv", "c,3")

    def while_written(spec: SourceSpec, path: Path) -> pl.DataFrame:
        rows = read_source_file(spec, path)
        if path.name == "1.csv" and rows.height == 1:
            _put(folder, "1.csv", "a,1", "b,2", seconds_old=30)
        return rows

    told: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(incremental_folder, "read_source_file", while_written)
        load_new_files(lake, _spec(folder), progress=told.append)
    assert "1.csv was changed meanwhile, it is left for the next run" in told[0]
    assert _sales(lake) == ["c"]
    load_new_files(lake, _spec(folder))
    assert _sales(lake) == ["a", "b", "c"]
    assert list_files(lake, _spec(folder)).changed == ()


def test_a_file_that_goes_before_it_is_read_does_not_stop_the_others(
    lake: Lake, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(folder, "1.csv", "a,1")
    _put(folder, "2.csv", "b,2")
    listed = list_files(lake, _spec(folder))
    (folder / "1.csv").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(incremental_folder, "list_files", lambda *_: listed)
        with pytest.raises(
            SchemaMismatch, match=r"1 of 2 files for 'raw/sales': 1\.csv: No file .*The others were read"
        ):
            load_new_files(lake, _spec(folder))
    assert _sales(lake) == ["b"]


def test_a_key_that_an_older_file_had_is_quarantined(lake: Lake, folder: Path) -> None:
    _put(folder, "1.csv", "a,1")
    load_new_files(lake, _spec(folder))
    _put(folder, "2.csv", "a,2", "b,3")
    assert load_new_files(lake, _spec(folder)).reasons == {"the table has a row with this sale already": 1}
    assert _sales(lake) == ["a", "b"]


def test_a_file_of_other_columns_is_named_and_does_not_stop_the_others(lake: Lake, folder: Path) -> None:
    _put(folder, "1.csv", "a,1", header="sale,amuont")
    _put(folder, "2.csv", "b,2")
    with pytest.raises(SchemaMismatch, match=r"1 of 2 files for 'raw/sales': 1\.csv: .*is it 'amuont'\?"):
        load_new_files(lake, _spec(folder))
    assert _sales(lake) == ["b"]
    _put(folder, "1.csv", "a,1")
    load_new_files(lake, _spec(folder))
    assert _sales(lake) == ["a", "b"]


def test_new_columns_come_in_where_they_may(lake: Lake, folder: Path) -> None:
    _put(folder, "1.csv", "a,1")
    _put(folder, "2.csv", "b,2,web", header="sale,amount,channel")
    load_new_files(lake, _spec(folder, evolution="add_columns"))
    rows = lake.read("raw/sales").sort("sale").collect()
    assert rows["channel"].to_list() == [None, "web"]


def test_formats_can_be_mixed(lake: Lake, folder: Path) -> None:
    frame = pl.DataFrame({"sale": ["p"], "amount": [1.5]})
    frame.write_parquet(folder / "1.parquet")
    frame.with_columns(sale=pl.lit("j")).write_ndjson(folder / "2.jsonl")
    frame.with_columns(sale=pl.lit("c")).write_csv(folder / "3.csv")
    load_new_files(lake, _spec(folder, folder={"path": str(folder), "quiet_seconds": 0}))
    assert _sales(lake) == ["c", "j", "p"]


def test_a_missing_folder_is_named(lake: Lake, folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No folder .*/nowhere.*folder\.path of 'raw/sales'"):
        load_new_files(lake, _spec(folder / "nowhere"))
