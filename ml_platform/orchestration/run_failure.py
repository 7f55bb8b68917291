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
    failed = next((event for event in events if event.is_step_failure), None)
    ended = next((event for event in events if event.is_job_failure), None)
    step = names.get(str(failed.step_key), str(failed.step_key)) if failed else "a step"
    error = failed.step_failure_data.error if failed else ended.job_failure_data.error if ended else None
    if was_interrupted(error):
        kept = "finished trials are kept: " if step in after_trials else ""
        return f"interrupted {f'in {step}' if failed else 'between two steps'}; {kept}ml-platform run {model} goes on"
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


def was_interrupted(error: SerializableErrorInfo | None) -> bool:
    """Tell whether an error is an interruption (Ctrl-C, SIGTERM), or was raised while one was under way.

    A library that is interrupted while it cleans up may raise an error of its own, such as Optuna's of its lock. It
    then has the interruption as its cause or context.
    """
    return error is not None and (
        error.cls_name in _INTERRUPTIONS or was_interrupted(error.cause) or was_interrupted(error.context)
    )
