"""What steps are forked from is there: the fork server only logs a module that it cannot preload, and gets slow."""

import importlib
import os
import signal

import dagster as dg
import pytest

from ml_platform.orchestration.execution import PRELOAD, executor
from ml_platform.orchestration.run_workers import killed_because


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


@pytest.mark.parametrize(("name", "retried"), [("killed", "true"), ("failed", "false")])
def test_a_run_is_retried_when_a_step_was_killed_and_not_when_it_failed(tmp_path, name, retried):
    retries = {"run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=retries) as instance:
        config = {"ops": {"ending": {"config": {"killed": name == "killed"}}}}
        with dg.execute_job(dg.reconstructable(one_ending), instance=instance, run_config=config) as result:
            assert not result.success
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.tags["dagster/will_retry"] == retried
        assert (killed_because(instance, result.run_id) is not None) == (name == "killed")


@dg.op(config_schema={"killed": bool})
def ending(context: dg.OpExecutionContext) -> None:
    if context.op_config["killed"]:
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("by itself")


@dg.job(executor_def=executor())
def one_ending():
    ending()


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
