"""What steps are forked from is there: the fork server only logs a module that it cannot preload, and gets slow."""

import importlib
import os

import dagster as dg
import pytest

from ml_platform.orchestration.execution import PRELOAD, executor


@pytest.mark.parametrize("module", PRELOAD)
def test_a_preloaded_module_exists(module):
    assert importlib.import_module(module).__name__ == module


def test_two_steps_run_in_processes_of_their_own(tmp_path):
    with (
        dg.instance_for_test(temp_dir=str(tmp_path)) as instance,
        dg.execute_job(dg.reconstructable(two_steps), instance=instance) as result,
    ):
        assert result.success
        pids = [result.output_for_node(name) for name in ("first", "second")]
    assert len({*pids, os.getpid()}) == 3


@dg.op
def first() -> int:
    return os.getpid()


@dg.op
def second() -> int:
    return os.getpid()


@dg.job(executor_def=executor())
def two_steps():
    first()
    second()
