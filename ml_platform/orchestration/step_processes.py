"""Dagster's executor of steps in processes, which measures them, and has a run retried when one of them was killed.

Dagster counts a step whose process ended without a word as a step that failed, and such runs are not retried here
(`retry_on_asset_or_op_failure: false`), since what failed by itself would fail again. But when memory runs out the
machine kills the largest process, which is a step of training far more often than the run's own process.
"""

from collections.abc import Iterator
from typing import Any

from dagster import DagsterEvent
from dagster._core.execution.context.system import IStepContext, PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.multiprocess import MultiprocessExecutor
from dagster._core.storage.tags import RETRY_ON_ASSET_OR_OP_FAILURE_TAG
from dagster_shared.error import SerializableErrorInfo

from ml_platform.orchestration.run_meter import RunMeter, metered
from ml_platform.orchestration.run_workers import CRASH


class StepProcesses(MultiprocessExecutor):
    """Runs each step in a process forked from one that has imported everything."""

    def __init__(self, max_concurrent: int, preload: list[str]) -> None:
        super().__init__(
            retries=RetryMode.ENABLED,
            max_concurrent=max_concurrent,
            start_method="forkserver",
            explicit_forkserver_preload=preload,
        )
        self._meter: RunMeter | None = None

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Execute the plan (see Dagster's executor), and measure each step with all that it starts."""
        self._meter = RunMeter(plan_context, execution_plan, processes=True)
        return metered(self._meter, super().execute(plan_context, execution_plan))

    def log_failure_or_retry_event_after_error(
        self, step_context: IStepContext, err_info: SerializableErrorInfo, known_state: KnownExecutionState
    ) -> DagsterEvent:
        """Have the run retried, then say what Dagster says of a step whose process is gone.

        One whose process was killed because it was over a limit would be over it again: it says so, and ends the run.
        """
        reason = self._meter.why_stopped(step_context.step.key) if self._meter else None
        if err_info.cls_name == CRASH and reason is not None:
            err_info = SerializableErrorInfo(reason, [], "StepOverLimit")
        elif err_info.cls_name == CRASH:
            instance: Any = step_context.instance
            instance.add_run_tags(step_context.run_id, {RETRY_ON_ASSET_OR_OP_FAILURE_TAG: "true"})
        return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)
