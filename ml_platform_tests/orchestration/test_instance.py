"""Processes that open a new Dagster home at once all open it, as its databases are made before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ml_platform.processes.platform import dagster_home, make_databases
from ml_platform.processes.runner import CannotStart
from ml_platform.settings import Settings

# Each tells that it is ready, and opens the instance when all are, as Dagster's own code server does.
OPENS = """
import sys
import dagster
print("ready", flush=True)
sys.stdin.readline()
with dagster.DagsterInstance.get() as instance:
    print(instance.get_runs_count(), flush=True)
"""


@pytest.mark.slow
def test_processes_that_start_together_on_a_new_home_all_open_it(settings: Settings):
    make_databases(settings)
    environment = {**os.environ, "DAGSTER_HOME": str(dagster_home(settings))}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPENS],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, output) == (0, "0\n"), errors


def test_it_is_done_once_and_again_when_the_databases_are_gone(settings: Settings):
    make_databases(settings)
    databases = Path(dagster_home(settings), "history", "runs.db")
    written = databases.stat().st_mtime_ns
    make_databases(settings)
    assert databases.stat().st_mtime_ns == written
    shutil.rmtree(databases.parent)
    make_databases(settings)
    assert databases.exists()


def test_databases_that_cannot_be_opened_are_told(settings: Settings):
    folder = dagster_home(settings) / "history"
    folder.mkdir()
    (folder / "runs.db").write_text("not a database")
    with pytest.raises(CannotStart, match=r"databases in .*dagster_home cannot be made or opened: .*not a database"):
        make_databases(settings)
