"""Several processes that open an empty Dagster home at once all open it, and so do those that come later."""

import os
import subprocess
import sys
from pathlib import Path

# Each tells that it is ready, and opens the instance when all are.
OPENS = """
import sys
from ml_platform.orchestration.instance import open_instance
print("ready", flush=True)
sys.stdin.readline()
with open_instance() as instance:
    print(instance.get_runs_count(), flush=True)
"""


def test_processes_that_start_together_on_an_empty_home_all_open_it(tmp_path: Path):
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    command = [sys.executable, "-c", OPENS]
    processes = [
        subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert (process.returncode, output) == (0, "0\n"), errors
