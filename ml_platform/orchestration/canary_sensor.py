"""Drives canary walks from Dagster: a sensor looks at them, a job takes the steps that are due."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from ml_platform.orchestration.endpoint_jobs import release_changed
from ml_platform.orchestration.execution import in_process_executor
from ml_platform.orchestration.resources import Platform

JOB, SENSOR = "canary_step", "canary_walks"


@dg.op(name="advance_canaries", description="Take each canary walk's step that is due, or roll the walk back.")
def advance_canaries(context: dg.OpExecutionContext, platform: Platform) -> None:
    """Judge every walk again and act on it; the release assets show what serves from then on."""
    from ml_platform.monitoring.canary.advance import advance, walking

    for name in walking(platform.releases):
        progress = advance(platform.settings, name)
        if progress.report is not None:
            context.log.info(f"{name}: {progress.report.decision}; {progress.report.said}")
        if progress.changed:
            release_changed(context, progress.endpoint)


@dg.job(
    name=JOB,
    executor_def=in_process_executor,
    description="Gives canaries their next share of the traffic, or rolls them back where a guard is breached.",
)
def canary_step() -> None:
    """Take the steps that are due."""
    advance_canaries()


@dg.sensor(
    name=SENSOR,
    job_name=JOB,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Judges canary walks, and starts canary_step when one is to go on or back; anew if that fails.",
)
def canary_walks(platform: Platform) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Ask for a run when a step is due."""
    from ml_platform.monitoring.canary.advance import judge_all

    reports = judge_all(platform.settings)
    steps = {name: report for name, report in reports.items() if report.decision != "wait"}
    if steps:
        revisions = ",".join(f"{name}@{report.revision}" for name, report in steps.items())
        yield dg.RunRequest(run_key=f"{revisions}/{datetime.now(UTC):%Y-%m-%dT%H:%M}"[:-1])
        return
    said = "; ".join(f"{name}: {report.said}" for name, report in reports.items())
    yield dg.SkipReason(said or "no canary walk is under way")
