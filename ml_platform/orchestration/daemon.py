"""Starts Dagster's daemon, after the runs that a kill left behind: `python -m ml_platform.orchestration.daemon`."""

import argparse
import os
import sys
from collections.abc import Sequence

import dagster as dg

from ml_platform.orchestration.code_server import await_code_servers
from ml_platform.orchestration.run_workers import reap_orphans
from ml_platform.private_files import private_umask


def argument_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m ml_platform.orchestration.daemon", description=__doc__)
    parser.add_argument("-w", "--workspace", default="workspace.yaml", help="workspace file (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """End orphaned runs, then become the daemon: schedules, sensors, the queue, monitoring and retries."""
    options = argument_parser().parse_args(arguments)
    private_umask()
    with dg.DagsterInstance.get() as instance:
        for run, reason in reap_orphans(instance):
            print(f"run {run.run_id} of {run.job_name} was left by a kill and is ended: {reason}", flush=True)
    if silent := await_code_servers(options.workspace):
        print(f"code server without an answer: {', '.join(silent)}; the daemon asks again by itself", flush=True)
    command = ["-m", "dagster._daemon", "run", "-w", options.workspace, "--log-level", "info"]
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
