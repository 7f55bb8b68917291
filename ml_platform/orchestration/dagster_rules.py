"""What Dagster wants of schedules and owners, asked of Dagster itself, and told with the line of the YAML."""

from collections.abc import Iterator

import dagster as dg

from ml_platform.spec.model import ModelSpec
from ml_platform.yaml_documents import Document, SpecProblem


def dagster_problems(document: Document, spec: ModelSpec) -> Iterator[SpecProblem]:
    """Schedules that are no cron strings, and an owner that Dagster does not take."""
    schedules = {
        "monitoring": spec.monitoring.schedule,
        "skew": spec.skew.schedule,
        "retraining": spec.retraining.schedule,
    }
    for name, cron in schedules.items():
        if cron is not None and not _is_schedule(cron):
            message = f"'{cron}' is no cron schedule: wanted minute, hour, day, month, weekday, e.g. '15 6 * * 1'"
            yield document.problem(("attributes", name, "schedule"), message)
    if not _is_owner(spec.owner):
        message = f"'{spec.owner}' is no owner: wanted an e-mail address, or team:<name>"
        yield document.problem(("attributes", "owner"), message)


def _is_schedule(cron: str) -> bool:
    try:
        dg.ScheduleDefinition(name="schedule", cron_schedule=cron, job_name="job")
    except dg.DagsterInvalidDefinitionError:
        return False
    return True


def _is_owner(owner: str) -> bool:
    try:
        dg.AssetSpec("asset", owners=[owner])
    except dg.DagsterInvalidDefinitionError:
        return False
    return True
