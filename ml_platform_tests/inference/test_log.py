import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from ml_platform.inference.log import InferenceLog, Record
from ml_platform.segment_log.segments import LogUnavailable

NOW = datetime(2013, 7, 1, 12, tzinfo=UTC)


def record(number: int, **changes: object) -> Record:
    fields: dict[str, object] = {
        "request_id": f"r{number}",
        "row": 0,
        "id": str(number),
        "model": "flight_delay",
        "version": 1,
        "digest": "d",
        "time": NOW,
        "as_of": NOW,
        "caller": None,
        "inputs": {"carrier": "UA\nnewline"},
        "features": {"carrier": "UA\nnewline"},
        "score": number / 1000,
        "prediction": False,
    }
    return Record(**{**fields, **changes})  # type: ignore[arg-type]


def lines(folder: Path) -> list[dict]:
    """Whole lines; the last may be unfinished where its writer was killed, and was not reported then."""
    found = []
    for path in sorted(folder.glob("*/*.jsonl")):
        *whole, _ = path.read_bytes().split(b"\n")
        found += [msgspec.json.decode(line) for line in whole if line]
    return found


def test_a_record_is_one_line_in_the_file_when_append_returns(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path)
    log.append("flight_delay", [record(1), record(2, row=1)])
    assert [(line["request_id"], line["row"]) for line in lines(tmp_path)] == [("r1", 0), ("r2", 1)]
    assert lines(tmp_path)[0]["inputs"] == {"carrier": "UA\nnewline"}
    log.close()


def test_threads_write_whole_lines_each_once(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path, segment_bytes=20_000)

    def write(first: int) -> None:
        for number in range(first, first + 200):
            log.append("flight_delay", [record(number)])

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 200, 400, 600)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert sorted(int(line["id"]) for line in lines(tmp_path)) == list(range(800))
    assert len(list(tmp_path.glob("flight_delay/*.jsonl"))) > 3  # segments were rotated under way


def test_a_live_segment_is_locked_and_a_closed_one_is_not(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path)
    log.append("flight_delay", [record(1)])
    [path] = tmp_path.glob("flight_delay/*.jsonl")
    with path.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    log.close()
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "flight_delay").write_text("a file where the folder should be")
    log = InferenceLog(tmp_path)
    with pytest.raises(LogUnavailable, match="cannot be written"):
        log.append("flight_delay", [record(1)])
    log.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told_and_the_next_write_starts_a_line_of_its_own(tmp_path: Path) -> None:
    log = InferenceLog(tmp_path, sync_seconds=60)
    log.append("flight_delay", [record(1)])
    segment = log._segments["flight_delay"]
    while segment.dirty:  # else the background sync could meet the full device before the write does
        time.sleep(0.001)
    intact = os.dup(segment.file)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, segment.file)
    with pytest.raises(LogUnavailable, match="No space left"):
        log.append("flight_delay", [record(2)])
    os.dup2(intact, segment.file)
    log.append("flight_delay", [record(3)])
    log.close()
    os.close(intact)
    os.close(full)
    assert [line["id"] for line in lines(tmp_path)] == ["1", "3"]


WRITER = """
import sys
from pathlib import Path
from ml_platform.inference.log import InferenceLog
from ml_platform_tests.inference.test_log import record
log = InferenceLog(Path(sys.argv[1]))
number = 0
while True:
    log.append("flight_delay", [record(number)])
    print(number, flush=True)
    number += 1
"""


def test_a_writer_killed_with_9_loses_nothing_that_it_reported(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    reported = [int(writer.stdout.readline()) for _ in range(300)]
    time.sleep(0.05)
    os.kill(writer.pid, signal.SIGKILL)
    reported += [int(line) for line in writer.stdout if line.endswith("\n")]
    writer.stdout.close()
    writer.wait()
    written = {int(line["id"]) for line in lines(tmp_path)}
    assert set(reported) <= written
    assert len(reported) >= 300
