"""Ingests in processes of their own, which are killed at work."""

import subprocess
import sys

from ml_platform.settings import Settings

# Waits before each commit to be told to go on.
STEPWISE = """
import sys
from pathlib import Path
from typing import Any

from ml_platform.lake.storage.tables import Lake
from ml_platform.segment_log import ingest
from ml_platform.settings import Settings

class Stepwise(Lake):
    def append(self, *args: Any, **options: Any) -> int:
        print("commit", flush=True)
        sys.stdin.readline()
        return super().append(*args, **options)

ingest.CHUNK_BYTES = 2_000
settings = Settings(home=Path(sys.argv[1]))
lake = Stepwise(settings.lake_uri)
"""
STAY = """
sys.stdin.readline()
"""


def kill_an_ingest(settings: Settings, call: str, commits: int) -> None:
    """Let it commit so often, and end it with -9 at a moment of chance in or after the commit that follows.

    Parameters
    ----------
    settings
        Of the home whose segments are ingested.
    call
        Python statements that start the ingest, with `settings` and a `lake` whose commits are counted.
    commits
        How many commits are surely made; at least one more has to be left.
    """
    command = [sys.executable, "-c", STEPWISE + call + STAY, str(settings.home)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as ingest:
        assert ingest.stdin is not None
        assert ingest.stdout is not None
        for _ in range(commits + 1):
            assert ingest.stdout.readline() == "commit\n"
            ingest.stdin.write("\n")
            ingest.stdin.flush()
        ingest.kill()
    assert ingest.returncode == -9
