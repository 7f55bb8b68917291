"""Alerts to the people who own a model: the log and a file always, a webhook where one is configured.

An alert is written to `<home>/alerts/alerts.jsonl` before anything is sent, and what a webhook did not take is kept in
`<home>/alerts/spool/` and offered again with the next alert: a sink that is down delays an alert and never loses it.

Serving imports this: standard library and pydantic only.
"""

import fcntl
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ml_platform.settings import Settings
from ml_platform.spec_types import Strict

LOGGER = logging.getLogger("ml_platform.alerts")

_RESEND = 20  # older alerts offered again with a new one: bounds how long sending takes
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_RETRY_STATUS = frozenset({408, 425, 429})  # and every 5xx: the receiver may take it later


class AlertSettings(BaseSettings):
    """Where alerts go beside the log and the file, each read from `ML_PLATFORM_ALERT_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="ML_PLATFORM_ALERT_", frozen=True, extra="ignore")

    webhook_url: str = Field(
        "", description="Receives each alert as POST with JSON (Slack reads its `text`); none when empty."
    )
    timeout_seconds: float = Field(5.0, gt=0, description="Bound on one attempt.")
    attempts: int = Field(3, ge=1, le=10, description="Tries per alert, the pause doubling from `pause_seconds`.")
    pause_seconds: float = Field(0.5, ge=0)

    @field_validator("webhook_url")
    @classmethod
    def _http_only(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(f"ML_PLATFORM_ALERT_WEBHOOK_URL wants http://… or https://…, found '{url}'")
        return url


class Alert(Strict):
    """One thing that somebody should know."""

    model: str
    kind: str = Field(description="What happened: `drift`, `performance`, `promotion`, …")
    severity: Literal["info", "warning", "error"]
    title: str
    body: str = ""
    facts: dict[str, Any] = Field(default_factory=dict, description="Numbers and names, JSON-able.")


class RecordedAlert(Strict):
    """An alert that is written down and, where there is a webhook, waits for it."""

    alert_id: str
    file: Path
    waiting: Path | None = Field(description="Its place in the spool; None without a webhook.")


class Delivery(Strict):
    """What the webhook took on one occasion."""

    sent: tuple[Path, ...] = Field((), description="Places in the spool that these alerts had.")
    failed: dict[str, str] = Field({}, description="Sink → what went wrong; the alert waits in the spool.")


class AlertReceipt(Strict):
    """What became of one alert."""

    alert_id: str
    file: Path
    delivered: tuple[str, ...]
    failed: dict[str, str] = Field(description="Sink → what went wrong; the alert waits in the spool.")
    resent: int = Field(0, description="Older alerts that left the spool on this occasion.")


class WebhookError(ConnectionError):
    """The webhook did not take an alert: it is down, or it refused this one (`refused`)."""

    def __init__(self, message: str, *, refused: bool) -> None:
        super().__init__(message)
        self.refused = refused


def send_alert(settings: Settings, alert: Alert, *, sinks: AlertSettings | None = None) -> AlertReceipt:
    """Record an alert in the file and the log, and post it to the webhook if one is configured.

    Parameters
    ----------
    settings
        `home` holds the file and the spool.
    alert
        What to tell.
    sinks
        Where else; read from the environment when absent.

    Returns
    -------
    AlertReceipt
        A webhook that fails is named in `failed`, logged as an error with its reason, and the alert stays in the
        spool; only a file that cannot be written raises. Neither delivered nor failed means that another process is
        sending it.

    Raises
    ------
    OSError
        If the alert cannot be written to `<home>/alerts/alerts.jsonl`.

    Examples
    --------
    >>> import tempfile
    >>> settings = Settings(home=Path(tempfile.mkdtemp()))
    >>> alert = Alert(model="flight_delay", kind="drift", severity="warning", title="3 features drifted")
    >>> send_alert(settings, alert, sinks=AlertSettings(webhook_url="")).delivered
    ('file', 'log')
    """
    sinks = sinks or AlertSettings()
    recorded = record_alert(settings, alert, sinks=sinks)
    delivery = Delivery()
    if recorded.waiting is not None:
        delivery = deliver_alerts(settings, sinks=sinks, newest=recorded.waiting)
    was_sent = recorded.waiting in delivery.sent
    return AlertReceipt(
        alert_id=recorded.alert_id,
        file=recorded.file,
        delivered=("file", "log", "webhook") if was_sent else ("file", "log"),
        failed=delivery.failed,
        resent=len(delivery.sent) - was_sent,
    )


def record_alert(settings: Settings, alert: Alert, *, sinks: AlertSettings) -> RecordedAlert:
    """Write an alert to the file, the log and, where there is a webhook, the spool; nothing goes over the network.

    Raises
    ------
    OSError
        If the alert cannot be written.
    """
    record = {
        "id": uuid4().hex,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "text": _text(alert),
        **alert.model_dump(mode="json"),
    }
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    file = settings.alerts_dir / "alerts.jsonl"
    _append(file, line)
    LOGGER.log(_LEVELS[alert.severity], "%s", "; ".join(record["text"].splitlines()))
    waiting = _put_into_spool(_spool(settings), record["id"], line) if sinks.webhook_url else None
    return RecordedAlert(alert_id=record["id"], file=file, waiting=waiting)


def waiting_alerts(settings: Settings) -> list[Path]:
    """Alerts that the webhook has not taken yet, oldest first."""
    return sorted(_spool(settings).glob("*.json"))


def deliver_alerts(settings: Settings, *, sinks: AlertSettings, newest: Path | None = None) -> Delivery:
    """Offer waiting alerts to the webhook: up to 20, oldest first, and `newest` as the last of them.

    Several processes may do so at once: each alert is offered by one of them. What fails is logged and waits on.
    """
    older = [path for path in waiting_alerts(settings) if path != newest][:_RESEND]
    sent: list[Path] = []
    failed: dict[str, str] = {}
    # Oldest first, so that a receiver back from an outage reads the story in order.
    for waiting in [*older, *([] if newest is None else [newest])]:
        with _claimed(waiting) as body:
            if body is None:
                continue
            try:
                _post(sinks, body)
            except WebhookError as error:
                failed["webhook"] = str(error)
                LOGGER.error("Alert %s was not delivered: %s", waiting, error)
                if error.refused:
                    continue  # one alert that the receiver does not like must not hold up the others
                break
            waiting.unlink(missing_ok=True)
            sent.append(waiting)
    return Delivery(sent=tuple(sent), failed=failed)


def _text(alert: Alert) -> str:
    facts = "\n".join(f"• {name}: {value}" for name, value in alert.facts.items())
    return "\n".join(part for part in (f"[{alert.severity}] {alert.model}: {alert.title}", alert.body, facts) if part)


def _append(file: Path, line: str) -> None:
    """One write to a file opened for appending, then fsync: lines of several processes do not mix."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _spool(settings: Settings) -> Path:
    return settings.alerts_dir / "spool"


def _put_into_spool(folder: Path, alert_id: str, line: str) -> Path:
    """Keep the alert until the webhook took it; names sort by time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.time_ns():020d}-{alert_id}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(line, encoding="utf-8")
    temporary.replace(path)
    return path


@contextmanager
def _claimed(waiting: Path) -> Iterator[bytes | None]:
    """Hold a waiting alert against all others; None when another has sent it or is about to."""
    try:
        file = waiting.open("rb")
    except FileNotFoundError:
        yield None
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        was_sent = os.fstat(file.fileno()).st_nlink == 0  # between opening and locking
        yield None if was_sent else file.read()


def _post(sinks: AlertSettings, body: bytes) -> None:
    request = urllib.request.Request(  # the scheme was checked by AlertSettings
        sinks.webhook_url, data=body, headers={"Content-Type": "application/json"}, method="POST"
    )
    problem, refused = "", False
    for attempt in range(1, sinks.attempts + 1):
        try:
            with urllib.request.urlopen(request, timeout=sinks.timeout_seconds):
                return
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code} {error.reason}"
            error.close()
            refused = error.code < 500 and error.code not in _RETRY_STATUS
            if refused:
                break
        except (urllib.error.URLError, OSError) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        if attempt < sinks.attempts:
            time.sleep(sinks.pause_seconds * 2 ** (attempt - 1))
    raise WebhookError(
        f"wanted {sinks.webhook_url} to take an alert, found: {problem} after {attempt} of {sinks.attempts} attempts. "
        "Check ML_PLATFORM_ALERT_WEBHOOK_URL; the next alert sends the waiting ones again.",
        refused=refused,
    )
