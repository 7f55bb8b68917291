"""What monitoring last found about a model, in a few lines for a terminal."""

from collections.abc import Iterator

from ml_platform.monitoring.alerts.conditions import conditions
from ml_platform.monitoring.status import StatusUnreadable, read_status
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
    for condition in conditions(settings):
        if condition.model == model and condition.state == "firing":
            known = f", acknowledged by {condition.acknowledged_by}" if condition.acknowledged_by else ""
            yield f"firing since {condition.starts:%Y-%m-%d %H:%M}: {condition.title}{known}"
