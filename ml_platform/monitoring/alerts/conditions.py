"""What goes on for a while is told when it begins, when it ends, and in between only as often as people want.

A check that fails in every hourly run is one condition, not an alert an hour. Its state is a small file below
`<home>/alerts/conditions/`, changed under a lock. An alert is recorded before its condition: a kill between the two
repeats an alert instead of losing it.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from ml_platform.atomic_files import locked, replace_file
from ml_platform.monitoring.alerts.alert import Alert, AlertSettings, Severity, record_alert
from ml_platform.settings import Settings
from ml_platform.spec.types import Strict

_RANK: dict[Severity, int] = {"info": 0, "warning": 1, "error": 2}


class Condition(Strict):
    """Something about a model that lasts."""

    model: str = Field(description="Name of the model.")
    kind: str = Field(description="What goes on, such as no_drift.")
    subject: str = Field("", description="What of the model it is about, where several can go on at once.")
    state: Literal["firing", "resolved"] = Field(description="Whether it still goes on.")
    severity: Severity = Field(description="warning or error, as last seen.")
    title: str = Field(description="What goes on, in one line, as last seen.")
    body: str = Field("", description="What was found, and what to do, as last seen.")
    starts: datetime = Field(description="When it was first seen (UTC).")
    ends: datetime | None = Field(None, description="When it was first seen to be over (UTC); null while it goes on.")
    last_seen: datetime = Field(description="When it was last seen (UTC).")
    occurrences: int = Field(1, description="How often it was seen since it started.")
    notified_at: datetime = Field(description="When an alert on it was recorded last.")
    notifications: int = Field(1, description="Alerts recorded since it started.")
    acknowledged_by: str | None = Field(None, description="Who knows of it: it is not told again until it ends.")
    silenced_until: datetime | None = Field(None, description="Not told before, not even that it ended or began again.")

    @property
    def name(self) -> str:
        """Model, kind and subject in one line."""
        return " ".join(part for part in (self.model, self.kind, self.subject) if part)

    def seen(self, alert: Alert, now: datetime, *, is_notified: bool) -> Self:
        """Return the condition as it is after it was seen once more."""
        changes = {"severity": alert.severity, "title": alert.title, "body": alert.body, "last_seen": now}
        notification = {"notified_at": now, "notifications": self.notifications + 1} if is_notified else {}
        return self.model_copy(update={**changes, **notification, "occurrences": self.occurrences + 1})


def update_condition(
    settings: Settings,
    alert: Alert,
    *,
    firing: bool | None,
    subject: str = "",
    sinks: AlertSettings | None = None,
    now: datetime | None = None,
) -> Condition | None:
    """Note whether a condition holds, and record an alert when that is news.

    News is that it begins, that it gets more severe, that it still holds after `repeat_hours` without having been
    acknowledged, and that it ended.

    Parameters
    ----------
    settings
        `home` holds the conditions.
    alert
        What to tell while it holds. Model, kind and `subject` together name the condition.
    firing
        Whether it holds; None where that cannot be said, which changes nothing.
    subject
        What of the model it is about.
    sinks
        Where alerts go and how often they are repeated; read from the environment when absent.
    now
        When it was seen (UTC); the present when None.

    Returns
    -------
    Condition | None
        Its state; None for one that never held.

    Raises
    ------
    OSError
        If an alert or the state cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> settings = Settings(home=Path(tempfile.mkdtemp()))
    >>> alert = Alert(model="flight_delay", kind="drift", severity="error", title="3 features drifted")
    >>> for firing in (True, True, False):
    ...     state = update_condition(settings, alert, firing=firing, sinks=AlertSettings(webhook_url=""))
    >>> state.state, state.occurrences, (settings.alerts_dir / "alerts.jsonl").read_text().count("\\n")
    ('resolved', 2, 2)
    """
    sinks, now = sinks or AlertSettings(), now or datetime.now(UTC)
    file = _file(settings, alert.model, alert.kind, subject)
    with locked(file.parent / ".lock"):
        known = _read(file)
        before = known if known and known.state == "firing" else None
        silenced_until = known.silenced_until if known else None
        is_silent = silenced_until is not None and now < silenced_until
        if firing is None or (before is None and not firing):
            return known
        if before is None:
            state = Condition(
                **alert.model_dump(exclude={"facts"}),
                subject=subject,
                state="firing",
                starts=now,
                last_seen=now,
                notified_at=now,
                notifications=int(not is_silent),
                silenced_until=silenced_until,
            )
            news: Alert | None = alert
        elif firing:
            is_worse = _RANK[alert.severity] > _RANK[before.severity]
            is_due = not before.notifications or now - before.notified_at >= timedelta(hours=sinks.repeat_hours)
            is_news = not is_silent and (is_worse or (is_due and before.acknowledged_by is None))
            state, news = before.seen(alert, now, is_notified=is_news), _repeated(before, alert) if is_news else None
        else:
            state = before.model_copy(update={"state": "resolved", "ends": now, "acknowledged_by": None})
            news = _ended(before, now) if before.notifications else None
        if news is not None and not is_silent:
            record_alert(settings, news, sinks=sinks)
        _write(file, state)
    return state


def conditions(settings: Settings) -> list[Condition]:
    """Every condition that ever held, the newest last."""
    files = (settings.alerts_dir / "conditions").glob("*.json")
    known = [state for file in files if (state := _read(file)) is not None]
    return sorted(known, key=lambda condition: (condition.last_seen, condition.name))


def acknowledge(settings: Settings, model: str, kind: str, subject: str = "", *, by: str) -> Condition:
    """Say that somebody knows of a firing condition: it is not told again until it ends.

    Raises
    ------
    LookupError
        When it does not fire; names those that do.
    """
    return _changed(settings, model, kind, subject, {"acknowledged_by": by})


def silence(settings: Settings, model: str, kind: str, subject: str = "", *, until: datetime) -> Condition:
    """Tell nothing of a firing condition before `until` (UTC).

    Raises
    ------
    LookupError
        When it does not fire; names those that do.
    """
    return _changed(settings, model, kind, subject, {"silenced_until": until})


def _changed(settings: Settings, model: str, kind: str, subject: str, change: dict[str, object]) -> Condition:
    file = _file(settings, model, kind, subject)
    with locked(file.parent / ".lock"):
        known = _read(file)
        if known is None or known.state != "firing":
            firing = "; ".join(state.name for state in conditions(settings) if state.state == "firing")
            wanted = " ".join(part for part in (model, kind, subject) if part)
            raise LookupError(f"'{wanted}' does not fire; what fires: {firing or 'nothing'}")
        state = known.model_copy(update=change)
        _write(file, state)
    return state


def _repeated(before: Condition, alert: Alert) -> Alert:
    since = {"since": f"{before.starts:%Y-%m-%d %H:%M} UTC", "seen": before.occurrences + 1}
    return alert.model_copy(update={"facts": {**alert.facts, **since}})


def _ended(before: Condition, now: datetime) -> Alert:
    return Alert(
        model=before.model,
        kind=before.kind,
        severity="info",
        title=f"resolved: {before.title}",
        facts={
            "from": f"{before.starts:%Y-%m-%d %H:%M} UTC",
            "until": f"{now:%Y-%m-%d %H:%M} UTC",
            "seen": before.occurrences,
        },
    )


def _file(settings: Settings, model: str, kind: str, subject: str) -> Path:
    digest = hashlib.sha256(repr((model, kind, subject)).encode()).hexdigest()[:32]
    return settings.alerts_dir / "conditions" / f"{digest}.json"


def _read(file: Path) -> Condition | None:
    try:
        return Condition.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None


def _write(file: Path, state: Condition) -> None:
    replace_file(file, state.model_dump_json().encode())
