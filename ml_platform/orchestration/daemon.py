"""Starts Dagster's daemon: `python -m ml_platform.orchestration.daemon`.

Before, it ends the runs that a kill left behind, Dagster's and MLflow's.
"""

import argparse
import os
import sqlite3
import sys
from collections.abc import Sequence

import dagster as dg

from ml_platform.orchestration.code_server import await_code_servers
from ml_platform.orchestration.run_workers import reap_orphans
from ml_platform.private_files import private_umask
from ml_platform.registry.dead_runs import close_dead_runs_at_start
from ml_platform.settings import Settings


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
    try:
        for left in close_dead_runs_at_start(Settings()):
            print(
                f"MLflow run {left.name} of {left.model} was left open by a kill and is ended: {left.run_id}",
                flush=True,
            )
    except sqlite3.Error as error:  # the daemon does not need MLflow
        print(f"MLflow's runs cannot be looked at: {error}; ml-platform doctor says more", flush=True)
    if silent := await_code_servers(options.workspace):
        print(f"code server without an answer: {', '.join(silent)}; the daemon asks again by itself", flush=True)
    command = ["-m", "dagster._daemon", "run", "-w", options.workspace, "--log-level", "info"]
    os.execv(sys.executable, [sys.executable, *command])


if __name__ == "__main__":
    main()
