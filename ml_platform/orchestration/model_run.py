"""Runs a model from its sources to the gate's verdict in this process, into the instance that the Dagster UI shows."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from ml_platform.cost.refusal import BudgetUsedUp, check_budgets
from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.component import project_views
from ml_platform.orchestration.loaded_definitions import load_definitions
from ml_platform.orchestration.model_asset import CHAIN, key
from ml_platform.orchestration.retraining_history import retrain_job, training_under_way
from ml_platform.orchestration.run_failure import failure_message, run_error, was_interrupted
from ml_platform.orchestration.search_progress import shown_in_terminal
from ml_platform.project import Project
from ml_platform.settings import Settings
from ml_platform.spec.model import ModelSpec
from ml_platform.spec_yaml import check_project
from ml_platform.training.documents import Evaluation, ReleaseDecision
from ml_platform.yaml_documents import unknown

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # every event is in the UI
_AFTER_TRIALS = CHAIN[CHAIN.index("candidates") :]
Tell = Callable[[str], None]


class RunFailed(RuntimeError):
    """A step failed: which, why, and what to do."""


class RunInterrupted(RunFailed):
    """The run was interrupted, by Ctrl-C or SIGTERM: where, and what goes on from there."""


@dataclass(frozen=True)
class ModelRun:
    """What a run came to.

    Attributes
    ----------
    spec
        The model.
    decision
        What the gate's verdict did.
    evaluation
        What the gate found.
    warnings
        Checks that failed without stopping the run, in words.
    """

    spec: ModelSpec
    decision: ReleaseDecision
    evaluation: Evaluation
    warnings: tuple[str, ...]


def run_model(project: Project, name: str, instance: dg.DagsterInstance, *, tell: Tell, dagster_url: str) -> ModelRun:
    """Materialise all that a model needs, in order: sources, views, online values, then training set to release.

    Parameters
    ----------
    project
        The project.
    name
        Of the model.
    instance
        Keeps the runs.
    tell
        Called with a line of text after each step.
    dagster_url
        Where the UI is or will be, for messages.

    Raises
    ------
    LookupError
        When no model is called so.
    RunFailed
        When a step failed or cannot be started, with the step, the reason and what to do; `RunInterrupted` when the run
        was interrupted.
    """
    views = project_views(project.defs)
    specs = {
        spec.name: spec
        for spec in check_project(project.defs, {n: v.columns.keys() for n, v in views.items()}).values()
    }
    if name not in specs:
        raise LookupError(unknown(name, specs, what="model"))
    spec, definitions = specs[name], load_definitions(project)
    if (busy := training_under_way(instance, spec)) is not None:
        raise RunFailed(f"{name} is being trained: {busy}. Wait for it, or end it in the Dagster UI ({dagster_url}).")
    try:
        check_budgets(Settings(), retrain_job(spec), {(spec.name, spec.owner)})
    except BudgetUsedUp as error:
        raise RunFailed(f"{name} was {error}") from error
    graph = definitions.resolve_asset_graph()
    needed = list(_needed(graph, spec, views))
    _check_partitioned(graph, needed, instance)
    run_keys = [one for one in needed if graph.get(one).partitions_def is None]
    progress = Progress(tell, [*run_keys, *(key(spec, asset) for asset in CHAIN)], dagster_url, name)
    warnings: list[str] = []
    if run_keys:
        job = definitions.resolve_implicit_global_asset_job_def()
        warnings += progress.execute(job, instance, run_keys).warnings
    job = definitions.resolve_job_def(retrain_job(spec))
    done = progress.execute(job, instance, None)
    decision: ReleaseDecision = done.result.output_for_node(key(spec, "release").to_python_identifier())
    evaluation: Evaluation = done.result.output_for_node(key(spec, "evaluation").to_python_identifier())
    return ModelRun(spec, decision, evaluation, (*warnings, *done.warnings))


def run_in_home(project: Project, name: str, *, tell: Tell, dagster_url: str) -> ModelRun:
    """Run a model as `run_model` does, in the instance of `DAGSTER_HOME`."""
    with dg.DagsterInstance.get() as instance:
        return run_model(project, name, instance, tell=tell, dagster_url=dagster_url)


def _needed(graph: Any, spec: ModelSpec, views: Mapping[str, FeatureView]) -> Iterator[dg.AssetKey]:
    """What must be there before the training set, and what the server looks up, in an order in which it can be made."""
    seen: set[dg.AssetKey] = set()

    def ancestors(asset: dg.AssetKey) -> Iterator[dg.AssetKey]:
        if asset in seen or not graph.has(asset):
            return
        seen.add(asset)
        for parent in sorted(graph.get(asset).parent_keys):
            yield from ancestors(parent)
        if graph.get(asset).is_materializable:
            yield asset

    for parent in sorted(graph.get(key(spec, "training_set")).parent_keys):
        yield from ancestors(parent)
    for lookup in spec.lookups:
        yield from ancestors(dg.AssetKey(["online", views[lookup.view].name]))


def _check_partitioned(graph: Any, keys: Sequence[dg.AssetKey], instance: dg.DagsterInstance) -> None:
    """Refuse to go on without tables that are loaded by days, since nobody has said which days."""
    daily = [one for one in keys if graph.get(one).partitions_def is not None]
    missing = [one.to_user_string() for one in daily if instance.get_latest_materialization_event(one) is None]
    if missing:
        raise RunFailed(
            f"{', '.join(missing)}: loaded day by day, and no day was loaded yet. Load the days that you want: "
            f"dg launch --assets {','.join(missing)} --partition-range <first>...<last>"
        )


@dataclass(frozen=True)
class _Executed:
    result: dg.ExecuteInProcessResult
    warnings: tuple[str, ...]


class Progress:
    """Executes jobs, and tells of each step that is done."""

    def __init__(self, tell: Tell, steps: Sequence[dg.AssetKey], dagster_url: str, model: str) -> None:
        self._tell, self._dagster_url, self._model = tell, dagster_url, model
        self._names = {step.to_python_identifier(): step.to_user_string() for step in steps}
        self._done = 0
        self._started = time.monotonic()

    def execute(
        self, job: dg.JobDefinition, instance: dg.DagsterInstance, selection: Sequence[dg.AssetKey] | None
    ) -> _Executed:
        """Execute a job, or some assets of it (raises RunFailed)."""

        @dg.success_hook(name="terminal_progress")
        def tell_of_success(context: dg.HookContext) -> None:
            self._tell_of(context.op.name)

        with shown_in_terminal(self._tell, sys.stderr):
            result = job.with_hooks({tell_of_success}).execute_in_process(
                instance=instance, asset_selection=selection, run_config=_QUIET, raise_on_error=False
            )
        failed = [one for one in result.get_asset_check_evaluations() if not one.passed]
        if not result.success:
            stopping = [one for one in failed if one.severity == dg.AssetCheckSeverity.ERROR]
            interrupted = was_interrupted(run_error(result.all_events))
            raise (RunInterrupted if interrupted else RunFailed)(
                failure_message(
                    result.all_events,
                    model=self._model,
                    names=self._names,
                    after_trials={f"{self._model}/{asset}" for asset in _AFTER_TRIALS},
                    checks=[_said(one) for one in stopping],
                    run_url=f"{self._dagster_url}/runs/{result.run_id}",
                )
            )
        return _Executed(result, tuple(_said(one) for one in failed))

    def _tell_of(self, step: str) -> None:
        self._done += 1
        seconds = time.monotonic() - self._started
        self._tell(f"[{seconds:6.1f} s] {self._done:>2} of {len(self._names)}  {self._names.get(step, step)}")


def _said(check: dg.AssetCheckEvaluation) -> str:
    described = f": {' '.join(check.description.split())}" if check.description else ""
    return f"{check.asset_key.to_user_string()}, check {check.check_name}{described}"
