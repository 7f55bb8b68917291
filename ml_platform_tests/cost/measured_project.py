"""Assets that use known amounts, run as the code server runs them: a process for the run, one for each step."""

import ctypes
import json
import multiprocessing
import os
import subprocess
import sys
import time
from multiprocessing import resource_tracker
from typing import Any

import dagster as dg

BURN = "import time\nend = time.process_time() + {seconds}\nwhile time.process_time() < end: pass\n"
PR_SET_CHILD_SUBREAPER = 36


def burn(seconds: float) -> None:
    """Use CPU."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@dg.asset(owners=["team:hot"], op_tags={"ml_platform/model": "toy"})
def in_the_step() -> None:
    burn(3.0)


@dg.asset(owners=["team:hot"], op_tags={"ml_platform/model": "toy"})
def in_children() -> None:
    subprocess.run([sys.executable, "-c", BURN.format(seconds=2.0)], check=True)


@dg.asset
def longer() -> None:
    """So long that the end of the run's process, which no account of its own can hold, is no more than a small part."""
    burn(12.0)


@dg.asset(deps=["in_children", "in_the_step"])
def killed() -> None:
    burn(2.0)
    os.kill(os.getpid(), 9)


@dg.asset(op_tags={"ml_platform/model": "toy", "ml_platform/step_limits": '{"cpu": "PT1S"}'})
def over_its_limit() -> None:
    burn(120.0)


@dg.asset(op_tags={"ml_platform/model": "toy", "ml_platform/step_limits": '{"memory_gib": 0.2}'})
def over_its_memory() -> None:
    held = bytearray(os.urandom(2**20)) * 400
    time.sleep(120)
    assert held


@dg.executor(name="multiprocess", requirements=[])
def step_processes(_: dg.InitExecutorContext) -> dg.Executor:
    from ml_platform.orchestration.step_processes import StepProcesses

    return StepProcesses(max_concurrent=2, preload=["ml_platform.orchestration.step_signals"])


ASSETS = [in_the_step, in_children, longer, killed, over_its_limit, over_its_memory]


def job() -> dg.JobDefinition:
    return dg.Definitions(
        assets=ASSETS, jobs=[dg.define_asset_job("measured", selection="*")], executor=step_processes
    ).resolve_job_def("measured")


def run(selection: str) -> None:
    """The process of a run."""
    with dg.DagsterInstance.get() as instance:
        keys = [dg.AssetKey(name) for name in selection.split(",")]
        dg.execute_job(dg.reconstructable(job), instance=instance, asset_selection=keys, raise_on_error=False)


def main(selection: str) -> None:
    """Run, then print the CPU seconds of all that the run started, as the kernel has counted them."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # whoever loses its parent becomes ours
    process = multiprocessing.get_context("spawn").Process(target=run, args=(selection,))  # as the code server does
    process.start()
    used = [os.wait4(process.pid or 0, 0)[2]]
    tracker: Any = resource_tracker._resource_tracker
    tracker._stop()  # a child of ours, and none of the run's
    while True:
        try:
            used.append(os.wait4(-1, 0)[2])
        except ChildProcessError:
            break
    print(json.dumps({"cpu_seconds": sum(one.ru_utime + one.ru_stime for one in used)}))


if __name__ == "__main__":
    main(sys.argv[1])
