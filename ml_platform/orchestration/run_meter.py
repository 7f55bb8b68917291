"""Measures runs: which step used what, in the log of costs and as an observation beside each materialisation."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import forkserver
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.storage.tags import MAX_RETRIES_TAG

from ml_platform.orchestration.cost_tags import LIMITS_TAG, MODEL_TAG
from ml_platform.processes import table
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from ml_platform.cost.limits import StepLimit
    from ml_platform.cost.meter import Account, Meter

STEP_ENDS = {DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_UP_FOR_RETRY}
# What a process is called by that does nothing but one run: the code server's, and Dagster's own commands.
RUN_PROCESSES = ("--multiprocessing-fork", "execute_run", "execute_step")
METADATA = "cost"
COST_JOB = "cost"


@dataclass(frozen=True)
class StepLabels:
    """What the use of a step is accounted to, and what it may use."""

    labels: dict[str, str]
    assets: tuple[dg.AssetKey, ...]
    limits: "tuple[StepLimit, ...]"


class RunMeter:
    """Measures one run from the events of its steps.

    Parameters
    ----------
    plan_context, execution_plan
        Of the run.
    processes
        Whether each step has a process of its own.
    """

    def __init__(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan, *, processes: bool
    ) -> None:
        self._context, self._plan, self._processes = plan_context, execution_plan, processes
        self._materialised: dict[str, list[dg.AssetKey]] = {}
        self._meter: Meter | None = None
        self._is_alone = False

    def start(self) -> None:
        """Begin, unless another process accounts for this one; refuse a run whose budget is used up (BudgetUsedUp)."""
        self._refuse()
        from ml_platform.cost.meter import Meter
        from ml_platform.cost.records import RUN, is_metered

        if is_metered():
            return
        command = table.command(os.getpid())
        self._is_alone = any(word in command for word in RUN_PROCESSES)
        run = self._context.dagster_run
        labels = {"run": run.run_id, "job": run.job_name, **self._common_labels}
        self._meter = Meter(Settings().cost_dir, RUN, labels, whole_process=self._is_alone)
        self._meter.start()
        if self._is_alone:  # what it does after the run counts too
            Finalize(None, self._end_process, exitpriority=0)

    def close(self) -> None:
        """End the measurement, where this process goes on with something else."""
        if self._meter is not None and not self._is_alone:
            self._meter.close()

    def _end_process(self) -> None:
        """Wait for the process that steps were forked from, so that the kernel adds what it used to this one's."""
        server: Any = forkserver._forkserver
        if server._forkserver_pid is not None:
            server._stop()
        assert self._meter is not None  # since it was begun here
        self._meter.close()

    def observe(self, event: DagsterEvent) -> Iterator[DagsterEvent]:
        """Take notice of an event; yield what follows it: for each materialised asset what its step used."""
        key, kind = event.step_key, event.event_type
        if self._meter is None or key is None:
            return
        if self._processes and kind == DagsterEventType.STEP_WORKER_STARTED:
            pid = event.engine_event_data.metadata.get("pid")
            if pid is not None:
                self._begin(key, int(str(pid.value)))
        elif kind == DagsterEventType.STEP_START and not self._processes:
            self._begin(key, None)
        elif kind == DagsterEventType.ASSET_MATERIALIZATION and event.asset_key is not None:
            self._materialised.setdefault(key, []).append(event.asset_key)
        elif kind in STEP_ENDS:
            account = self._meter.end(key)
            if account is not None:
                yield from self._observations(key, account)

    def why_stopped(self, step: str) -> str | None:
        """Return why a step was stopped; None when it was not."""
        return self._meter.why_stopped(step) if self._meter else None

    def _refuse(self) -> None:
        from ml_platform.cost.refusal import BudgetUsedUp, check_budgets

        steps = [self._labels(key).labels for key in self._plan.step_keys_to_execute]
        owners = {(labels["model"], labels["team"]) for labels in steps}
        run = self._context.dagster_run
        if run.job_name == COST_JOB:  # what says how the budgets stand is no part of them
            return
        try:
            check_budgets(Settings(), run.job_name, owners)
        except BudgetUsedUp:
            self._context.instance.add_run_tags(run.run_id, {MAX_RETRIES_TAG: "0"})  # it would be refused again
            raise

    def _begin(self, key: str, pid: int | None) -> None:
        assert self._meter is not None  # `observe` has seen to it
        step = self._labels(key)
        self._meter.begin(key, step.labels, pid=pid, limits=step.limits)

    def _observations(self, key: str, account: "Account") -> Iterator[DagsterEvent]:
        step: Any = self._plan.get_step_by_key(key)
        context = self._context.for_step(step)
        metadata = cost_metadata(account)
        for asset in self._materialised.pop(key, []):
            yield DagsterEvent.asset_observation(
                context, dg.AssetObservation(asset, description="What its step used.", metadata=metadata)
            )

    @cached_property
    def _common_labels(self) -> dict[str, str]:
        """Model and team that all steps of the run have in common: what the run itself uses is theirs."""
        steps = [self._labels(key).labels for key in self._plan.step_keys_to_execute]
        common = {name: {labels[name] for labels in steps} for name in ("model", "team")}
        return {name: values.pop() if len(values) == 1 else "" for name, values in common.items()}

    def _labels(self, key: str) -> StepLabels:
        step: Any = self._plan.get_step_by_key(key)
        layer = self._context.job.get_definition().asset_layer
        definition = layer.get_assets_def_for_node(step.node_handle)
        specs = list(definition.specs) if definition is not None else []
        labels = {
            "asset": ",".join(sorted(spec.key.to_user_string() for spec in specs)),
            "model": step.tags.get(MODEL_TAG, ""),
            "team": ",".join(sorted({owner for spec in specs for owner in spec.owners})),
        }
        return StepLabels(labels, tuple(spec.key for spec in specs), _limits(step.tags))


def _limits(tags: Mapping[str, str]) -> "tuple[StepLimit, ...]":
    """The limits of a step: the project's, and its model's, each with its place."""
    from ml_platform.cost.config import cost_config, place_of
    from ml_platform.cost.limits import step_limits
    from ml_platform.spec.budget import StepLimits

    project = cost_config().step_limits
    own = StepLimits.model_validate_json(tags[LIMITS_TAG]) if LIMITS_TAG in tags else StepLimits()
    where = f"`budget.step` in the defs.yaml of {tags.get(MODEL_TAG)}, key step"
    limits = [*step_limits(own, where)]
    if project != StepLimits():
        limits += step_limits(project, place_of(("step_limits",)))
    return tuple(limits)


def cost_metadata(account: "Account") -> dict[str, Any]:
    """Return what a step used as Dagster shows it.

    Examples
    --------
    >>> from ml_platform.cost.meter import Account
    >>> from ml_platform.cost.records import Use, now
    >>> sorted(cost_metadata(Account(Use(time=now(), meter="", kind="run"))))[:2]
    ['cost/CPU seconds', 'cost/bytes read']
    """
    from ml_platform.cost.config import cost_config
    from ml_platform.cost.prices import price

    config = cost_config()
    worth = price(
        config.current_rates,
        cpu_seconds=account.used.cpu_seconds,
        byte_seconds=account.byte_seconds,
        bytes_read=account.used.bytes_read,
        bytes_written=account.used.bytes_written,
    )
    return {
        f"{METADATA}/CPU seconds": round(account.used.cpu_seconds, 2),
        f"{METADATA}/peak memory (MiB)": round(account.peak_bytes / 2**20, 1),
        f"{METADATA}/bytes read": account.used.bytes_read,
        f"{METADATA}/bytes written": account.used.bytes_written,
        f"{METADATA}/seconds": round(account.seconds, 2),
        f"{METADATA}/price ({config.currency})": round(worth, 6),
    }


def metered(meter: RunMeter, events: Iterator[DagsterEvent]) -> Iterator[DagsterEvent]:
    """Measure a run while its events come."""
    meter.start()
    try:
        for event in events:
            yield event
            yield from meter.observe(event)
    finally:
        meter.close()


class MeteredInProcessExecutor(InProcessExecutor):
    """Runs all steps in the run's own process, and measures each."""

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Execute the plan (see Dagster's executor)."""
        meter = RunMeter(plan_context, execution_plan, processes=False)
        return metered(meter, super().execute(plan_context, execution_plan))
