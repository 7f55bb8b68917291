"""Alerts to the people who own a model: the log and a file always, a webhook where one is configured.

An alert is written to `<home>/alerts.jsonl` before anything is sent, and what a webhook did not take is kept in
`<home>/alerts_spool/` and offered again with the next alert: a sink that is down delays an alert and never loses it.
"""

import json
import logging
import os
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ml_platform.settings import Settings
from ml_platform.spec import Strict

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
        spool; only a file that cannot be written raises.

    Raises
    ------
    OSError
        If the alert cannot be written to `<home>/alerts.jsonl`.

    Examples
    --------
    >>> import tempfile
    >>> settings = Settings(home=Path(tempfile.mkdtemp()))
    >>> alert = Alert(model="flight_delay", kind="drift", severity="warning", title="3 features drifted")
    >>> send_alert(settings, alert, sinks=AlertSettings(webhook_url="")).delivered
    ('file', 'log')
    """
    sinks = sinks or AlertSettings()
    record = {
        "id": uuid4().hex,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "text": _text(alert),
        **alert.model_dump(mode="json"),
    }
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    file = settings.home / "alerts.jsonl"
    _append(file, line)
    LOGGER.log(_LEVELS[alert.severity], "%s", line)
    if not sinks.webhook_url:
        return AlertReceipt(alert_id=record["id"], file=file, delivered=("file", "log"), failed={})

    spool = settings.home / "alerts_spool"
    mine = _spool(spool, record["id"], line)
    resent = 0
    failed: dict[str, str] = {}
    # Oldest first, so that a receiver back from an outage reads the story in order; this alert is the last of them.
    for waiting in [*sorted(path for path in spool.glob("*.json") if path != mine)[:_RESEND], mine]:
        try:
            _post(sinks, waiting.read_bytes())
        except FileNotFoundError:
            continue  # another process delivered it meanwhile
        except WebhookError as error:
            failed["webhook"] = str(error)
            LOGGER.error("Alert %s was not delivered: %s", waiting, error)
            if error.refused:
                continue  # one alert that the receiver does not like must not hold up the others
            break
        waiting.unlink(missing_ok=True)
        resent += waiting != mine
    delivered = ("file", "log") if failed else ("file", "log", "webhook")
    return AlertReceipt(alert_id=record["id"], file=file, delivered=delivered, failed=failed, resent=resent)


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


def _spool(folder: Path, alert_id: str, line: str) -> Path:
    """Keep the alert until the webhook took it; names sort by time."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{time.time_ns():020d}-{alert_id}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(line, encoding="utf-8")
    temporary.replace(path)
    return path


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
