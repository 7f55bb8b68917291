"""Lets ledger and MLflow's aliases follow what serves, where it was changed by a process that may not import either.

The serving process changes the release store alone. Each change is a document of the store's history, with who, when
and why, so nothing is lost until it is written down here: within half a minute while the daemon runs.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from ml_platform.orchestration.endpoint_jobs import release_changed
from ml_platform.orchestration.execution import in_process_executor
from ml_platform.orchestration.resources import Platform

JOB, SENSOR = "registry_sync", "registry_behind"


def endpoints_behind(platform: Platform) -> dict[str, int]:
    """Endpoints whose newest revision the ledger or the registry has not followed, with that revision."""
    from ml_platform.registry.followed import followed_revision
    from ml_platform.registry.ledger import recorded_revision

    lake, store = platform.lake, platform.releases
    newest = {name: document.revision for name, document in store.documents().items()}
    return {
        name: revision
        for name, revision in newest.items()
        if followed_revision(store, name) < revision or recorded_revision(lake, name) < revision
    }


def answers_behind(platform: Platform) -> dict[str, int]:
    """Versions, as model and number, of whose approval the ledger lacks something, with how much was said of each."""
    from ml_platform.registry.ledger import recorded_events

    return {
        f"{request.model} version {request.version}": len(request.events)
        for request in platform.releases.approvals.all()
        if recorded_events(platform.lake, request) < len(request.events)
    }


def notes_behind(platform: Platform) -> dict[str, int]:
    """Models and versions of which ledger or MLflow lack what somebody said, with how much was said of each."""
    from ml_platform.promotion.follow_notes import notes_behind as behind

    return {
        f"{notes.model} {'itself' if notes.version is None else f'version {notes.version}'}, notes": len(notes.events)
        for notes in behind(platform.releases)
    }


@dg.op(name="sync_registry", description="Write into ledger and registry what was changed over HTTP.")
def sync_registry_op(context: dg.OpExecutionContext, platform: Platform) -> None:
    """Bring ledger, aliases and release assets along."""
    from ml_platform.promotion.approve import record_approvals
    from ml_platform.promotion.follow_notes import follow_notes
    from ml_platform.promotion.promote import sync_registry

    for name in endpoints_behind(platform):
        release_changed(context, sync_registry(platform.settings, name))
    record_approvals(platform.settings)
    follow_notes(platform.settings)


@dg.job(
    name=JOB,
    executor_def=in_process_executor,
    description="Lets the ledger and MLflow's aliases follow what was changed over HTTP or during an outage.",
)
def registry_sync() -> None:
    """Follow what serves."""
    sync_registry_op()


@dg.sensor(
    name=SENSOR,
    job_name=JOB,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts registry_sync when what serves changed and ledger or aliases lack it; hourly if it fails.",
)
def registry_behind(platform: Platform) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Ask for a run for each change that the ledger lacks."""
    behind = endpoints_behind(platform) | answers_behind(platform) | notes_behind(platform)
    if not behind:
        yield dg.SkipReason("ledger and registry have every change of what serves")
        return
    changed = ",".join(f"{name}@{revision}" for name, revision in behind.items())
    yield dg.RunRequest(run_key=f"{changed}/{datetime.now(UTC):%Y-%m-%dT%H}")


def registry_sync_defs() -> dg.Definitions:
    """Build job and sensor."""
    return dg.Definitions(jobs=[registry_sync], sensors=[registry_behind])
