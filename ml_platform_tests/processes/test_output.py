"""What cannot be written, on a full disk, ends neither the runner nor what it runs: /dev/full is such a disk."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ml_platform.processes import table
from ml_platform.processes.output import Output
from ml_platform.processes.runner import Process, run
from ml_platform_tests.ports import free_port

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
MISSING = "(lines are missing here, which could not be written: [Errno 28] No space left on device)"


def test_a_log_file_goes_on_when_there_is_room_again(tmp_path):
    log = tmp_path / "web.log"
    log.symlink_to(FULL)
    output = Output(["web"], tmp_path)
    output.write("web", "one")
    output.write("web", "two")
    log.unlink()
    output.write("web", "three")
    output.write("web", "four")
    missing, *lines = log.read_text().splitlines()
    assert missing == MISSING
    assert [line.split()[1] for line in lines] == ["three", "four"]


def test_a_process_whose_lines_are_lost_works_on(tmp_path):
    """It would be stopped at its next line if nobody read it any more."""
    log, told = tmp_path / "talker.log", tmp_path / "told"
    log.symlink_to(FULL)
    code = textwrap.dedent(f"""
        import pathlib, time
        print("first", flush=True)
        for _ in range(20_000):
            print("more than a pipe holds", flush=True)
        pathlib.Path({str(told)!r}).touch()
        time.sleep(300)
    """)
    talker = Process("talker", [sys.executable, "-c", code], restarts=0)

    def stop_when_told() -> None:
        while not told.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    assert run([talker], on_ready=stop_when_told, logs=tmp_path) == 0


def test_a_runner_that_cannot_print_keeps_the_others_up(tmp_path):
    """Nor can the alert be written there."""
    port, tried = free_port(), tmp_path / "tried"
    script = textwrap.dedent(f"""
        import pathlib, sys
        from ml_platform.processes.runner import Process, run

        def alert(process, reason):
            pathlib.Path({str(tried)!r}).touch()
            raise OSError(28, "No space left on device")

        command = [sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1"]
        web = Process("web", command, port={port}, ready_path="/")
        dying = Process("dying", [sys.executable, "-c", "print('no room'); raise SystemExit(7)"], restarts=1)
        run([web, dying], on_given_up=alert)
    """)
    environment = {**os.environ, "TEST_SESSION": str(tmp_path)}
    with FULL.open("w") as full:
        runner = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=full)
    web = Process("web", [], port=port, ready_path="/")
    while not (tried.exists() and web.answers()):
        assert runner.poll() is None
        time.sleep(0.05)
    runner.terminate()
    runner.wait(timeout=120)
    assert table.marked({"TEST_SESSION": str(tmp_path)}) == []
