"""What monitoring last found about a model, in a few lines for a terminal."""

from collections.abc import Iterator

from ml_platform.monitoring.alerts.conditions import conditions
from ml_platform.monitoring.status import StatusUnreadable, read_status
from ml_platform.registry.canary import describe_walk, read_report
from ml_platform.registry.manifest import Endpoint
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings


def status_lines(settings: Settings, model: str) -> Iterator[str]:
    """Yield the newest window of drift and of performance, with its rows and verdict, then what fires.

    Parameters
    ----------
    settings
        `home` holds the release store, with the status documents, and the alerts.
    model
        The model, which need not have been watched yet.
    """
    status, damage = None, ""
    try:
        status = read_status(ReleaseStore(settings.releases_dir), model)
    except StatusUnreadable as error:
        damage = str(error)
    if damage:
        yield damage
    elif status is None or not (status.drift or status.performance):
        yield f"not watched yet: {model}_watch measures drift and performance"
    else:
        for name, windows in (("performance", status.performance), ("drift", status.drift)):
            if not windows:
                yield f"{name}: not measured yet"
                continue
            newest = windows[-1]
            span = f"{newest.since:%Y-%m-%d %H:%M} to {newest.until:%Y-%m-%d %H:%M}, version {newest.version}"
            yield f"{name} ({span}, {newest.rows:,} rows): {newest.verdict}; {newest.reason}"
    yield from firing_lines(settings, model)


def firing_lines(settings: Settings, model: str) -> Iterator[str]:
    """Yield what fires about a model or a composed endpoint."""
    for condition in conditions(settings):
        if condition.model == model and condition.state == "firing":
            known = f", acknowledged by {condition.acknowledged_by}" if condition.acknowledged_by else ""
            yield f"firing since {condition.starts:%Y-%m-%d %H:%M}: {condition.title}{known}"


def canary_lines(store: ReleaseStore, endpoint: Endpoint) -> Iterator[str]:
    """Yield how far the canary walk of a document is, or how it ended, and what its guards found; nothing without."""
    if endpoint.canary is None:
        return
    canary = endpoint.canary
    yield f"{describe_walk(canary)}, since {endpoint.updated_at}; begun by {canary.started_by}: {canary.reason}"
    report = read_report(store, endpoint)
    if report is None:
        if endpoint.walk is not None:
            yield "nobody has looked at it yet: the sensor canary_walks does, or ml-platform canary run"
        return
    yield f"{report.at:%Y-%m-%d %H:%M:%S} UTC: {report.decision}; {report.said}"
    for finding in report.guards:
        yield f"  {'BREACHED ' if finding.breached else ''}{finding.said} (by chance: {finding.chance:.2g})"
