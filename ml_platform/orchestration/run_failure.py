"""What is said of a run that did not come to its end: interrupted, or failed, where and why, and what to do."""

from collections.abc import Collection, Mapping, Sequence

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

_INTERRUPTIONS = {"DagsterExecutionInterruptedError", "KeyboardInterrupt"}


def failure_message(
    events: Sequence[dg.DagsterEvent],
    *,
    model: str,
    names: Mapping[str, str],
    after_trials: Collection[str],
    checks: Sequence[str] = (),
    run_url: str,
) -> str:
    """Say in which step a run ended before its time, and how to go on.

    Parameters
    ----------
    events
        Of the run.
    model
        That was run.
    names
        Key of a step → name to show.
    after_trials
        Names of the steps from the search on: where trials are kept.
    checks
        In words, those that stopped the run.
    run_url
        Where the run is shown.
    """
    failed, error = _failed_step(events), run_error(events)
    step = names.get(str(failed.step_key), str(failed.step_key)) if failed else "a step"
    if was_interrupted(error):
        trials = "finished trials are kept: " if step in after_trials else ""
        return f"interrupted {f'in {step}' if failed else 'between two steps'}; {trials}ml-platform run {model} goes on"
    while error is not None and error.cause is not None:
        error = error.cause
    reason = error.message.strip() if error else "the run ended without an error of a step"
    return "\n".join(
        [
            f"{step} failed: {' '.join(reason.split())}",
            *(f"  {check}" for check in checks),
            f"What the run did is in the Dagster UI (`make dev`): {run_url}",
            f"When that is mended: ml-platform run {model}",
        ]
    )


def run_error(events: Sequence[dg.DagsterEvent]) -> SerializableErrorInfo | None:
    """Error that ended a run: the failed step's, or the job's own where none failed; None where it says none."""
    if (failed := _failed_step(events)) is not None:
        return failed.step_failure_data.error
    ended = next((event for event in events if event.is_job_failure), None)
    return ended.job_failure_data.error if ended else None


def _failed_step(events: Sequence[dg.DagsterEvent]) -> dg.DagsterEvent | None:
    return next((event for event in events if event.is_step_failure), None)


def was_interrupted(error: SerializableErrorInfo | None) -> bool:
    """Tell whether an error is an interruption (Ctrl-C, SIGTERM), or was raised while one was under way.

    A library that is interrupted while it cleans up may raise an error of its own, such as Optuna's of its lock. It
    then has the interruption as its cause or context.
    """
    return error is not None and (
        error.cls_name in _INTERRUPTIONS or was_interrupted(error.cause) or was_interrupted(error.context)
    )
