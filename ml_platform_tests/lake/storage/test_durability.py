"""What was taken over is on disk before its source is deleted: the order of the system calls, as strace sees them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from ml_platform.inference.log import InferenceLog
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
from ml_platform_tests.inference.test_log import record
from ml_platform_tests.needs import lacking, program

INGEST = """
from ml_platform.inference.ingest_log import ingest_log
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
settings = Settings()
print(ingest_log(Lake(settings.lake_uri), settings)["flight_delay"].deleted)
"""
VACUUM = """
from datetime import timedelta
from ml_platform.lake.storage.maintenance import vacuum
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings
print(vacuum(Lake(Settings().lake_uri), "raw/readings", retention=timedelta(0))[0])
"""
_CALL = re.compile(r"(fsync|unlink|unlinkat)\((?:\d+|AT_FDCWD)?(?:<([^>]*)>)?(?:, )?(?:\"([^\"]*)\")?.*= 0$")


@pytest.fixture
def traced(settings: Settings, tmp_path: Path):
    """Run a script under strace; gives its files that were synced and deleted, in order."""
    strace = program("strace", package="strace")
    output = tmp_path / "calls"

    def run(script: str) -> list[tuple[str, str]]:
        traced = [strace, "-f", "-y", "-qq", "-e", "trace=fsync,unlink,unlinkat", "-o", str(output)]
        done = subprocess.run(
            [*traced, sys.executable, "-c", script],
            env={**os.environ, "ML_PLATFORM_HOME": str(settings.home)},
            capture_output=True,
            text=True,
            check=False,
        )
        if "ptrace" in done.stderr and done.returncode:
            lacking(f"this user may not trace processes: {done.stderr[:200]}")
        assert done.returncode == 0, done.stderr
        assert int(done.stdout) > 0  # something was deleted
        calls = [match for line in output.read_text().splitlines() if (match := _CALL.search(line))]
        return [
            ("sync" if call[1] == "fsync" else "delete", os.path.join(call[2] or "", call[3] or "").rstrip("/"))
            for call in calls
        ]

    return run


def assert_synced_before(calls: list[tuple[str, str]], table: Path, suffix: str) -> None:
    """Every file of the table's newest version, its log and their folders were synced before the first deletion."""
    first = next(number for number, (call, path) in enumerate(calls) if call == "delete" and path.endswith(suffix))
    synced = [path for call, path in calls[:first] if call == "sync"]
    data = [Path(path) for path in Lake(str(table.parents[1])).snapshot("/".join(table.parts[-2:])).file_uris()]
    log = sorted((table / "_delta_log").glob("*.json"))
    folders = {*(file.parent for file in data), table / "_delta_log", table, table.parent, table.parents[1]}
    assert data
    assert log
    for path in (*data, *log, *folders):
        assert str(path) in synced, path
    assert max(synced.index(str(file)) for file in data) < min(synced.index(str(file)) for file in log)
    assert max(synced.index(str(file)) for file in log) < synced.index(str(table))


def test_the_table_is_on_disk_before_a_segment_goes(settings: Settings, traced) -> None:
    log = InferenceLog(settings.inference_log_dir)
    log.append("flight_delay", [record(number) for number in range(3)])
    log.close()
    calls = traced(INGEST)
    assert_synced_before(calls, Path(settings.lake_uri) / "inference_log" / "flight_delay", ".jsonl")


def test_a_segment_whose_rows_a_killed_run_committed_waits_for_the_disk_too(
    settings: Settings, lake: Lake, traced, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_platform.inference.ingest_log import ingest_log

    log = InferenceLog(settings.inference_log_dir)
    log.append("flight_delay", [record(1)])
    ingest_log(lake, settings)  # its writer still lives, so the segment stays
    log.close()
    calls = traced(INGEST)
    assert_synced_before(calls, Path(settings.lake_uri) / "inference_log" / "flight_delay", ".jsonl")


def test_a_compaction_is_on_disk_before_a_vacuum_deletes_what_it_replaced(
    settings: Settings, lake: Lake, traced
) -> None:
    for number in range(3):
        lake.append("raw/readings", pl.DataFrame({"value": [number]}))
    lake.snapshot("raw/readings").optimize.compact()
    calls = traced(VACUUM)
    assert_synced_before(calls, Path(settings.lake_uri) / "raw" / "readings", ".parquet")


def test_syncing_needs_no_table_and_no_disk(tmp_path: Path) -> None:
    Lake(str(tmp_path)).sync("raw/nothing")
    Lake("s3://bucket/lake").sync("raw/nothing")  # nothing is asked


def test_a_disk_that_refuses_keeps_the_segment(settings: Settings, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from ml_platform.inference.ingest_log import ingest_log

    log = InferenceLog(settings.inference_log_dir)
    log.append("flight_delay", [record(1)])
    ingest_log(lake, settings)
    log.close()

    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        ingest_log(lake, settings)
    monkeypatch.undo()
    assert len(list(settings.inference_log_dir.glob("*/*.jsonl"))) == 1
    assert ingest_log(lake, settings)["flight_delay"].deleted == 1
    assert lake.read("inference_log/flight_delay").collect().height == 1
