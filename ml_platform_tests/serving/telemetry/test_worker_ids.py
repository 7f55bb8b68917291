"""Workers that come and go count together, in as many files as ever ran at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.serving.ray_app import share
from ml_platform.serving.telemetry.worker_ids import forget_ended, take_number
from ml_platform_tests.paths import PROJECT_ROOT

WORKER = """
import sys
from pathlib import Path
from ml_platform.serving.ray_app import share
share(Path(sys.argv[1]))
from ml_platform.serving.telemetry.metrics import Metrics
metrics = Metrics()
metrics.requests.labels("model", "200").inc(int(sys.argv[2]))
metrics.active.set(int(sys.argv[2]))
for _ in sys.stdin:
    samples = {sample.name: sample.value for family in metrics.collect() for sample in family.samples}
    print(samples["ml_platform_requests_total"], samples["ml_platform_active_requests"], flush=True)
"""


class Worker:
    """A process that has counted some requests, has as many under way, and tells the sums over all workers."""

    def __init__(self, folder: Path, requests: int) -> None:
        command = [sys.executable, "-c", WORKER, str(folder), str(requests)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
        )

    def sums(self) -> list[float]:
        """Requests counted and requests under way."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        return [float(value) for value in self._process.stdout.readline().split()]

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def test_counts_outlive_workers_their_state_does_not_and_files_are_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    first, second = Worker(folder, 100), Worker(folder, 20)
    try:
        first.sums(), second.sums()  # both have counted
        assert first.sums() == second.sums() == [120, 120]
        second.kill()
        assert first.sums() == [120, 100]
        for _ in range(3):
            second = Worker(folder, 1)
            second.sums()
            second.kill()
        second = Worker(folder, 5)
        assert second.sums() == first.sums() == [128, 105]
        assert len(list(folder.glob("counter_*.db"))) == 2
    finally:
        first.kill()
        second.kill()


def test_a_worker_that_has_made_its_files_and_not_filled_them_keeps_nobody_from_counting(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    first = Worker(folder, 100)
    try:
        assert first.sums() == [100, 100]
        for kind in ("counter", "gauge_livesum"):
            (folder / f"{kind}_1.db").touch()
        assert first.sums() == [100, 100]
    finally:
        first.kill()


def test_state_of_workers_that_go_by_their_process_ids_is_dropped_as_well(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for process in (ended.pid, os.getpid()):
        (tmp_path / f"gauge_livesum_{process}.db").write_bytes(b"")
        (tmp_path / f"counter_{process}.db").write_bytes(b"")
    forget_ended(tmp_path)
    assert {path.name for path in tmp_path.glob("gauge*")} == {f"gauge_livesum_{os.getpid()}.db"}
    assert len(list(tmp_path.glob("counter*"))) == 2


def test_a_number_is_held_until_its_process_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ml_platform.serving.telemetry.worker_ids import take_number as t; "
    )
    code += "print(t(Path(sys.argv[1])), flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT)
    assert other.stdout is not None
    assert other.stdout.readline() == "0\n"
    assert take_number(tmp_path) == 1
    other.kill()
    other.communicate()
    assert take_number(tmp_path) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_shared(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(PermissionError, match="to be this user's own, found another's"):
        share(tmp_path)
