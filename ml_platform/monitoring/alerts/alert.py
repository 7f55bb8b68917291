"""Alerts to the people who own a model: the log and a file always, a webhook where one is configured.

An alert is written to `<home>/alerts/alerts.jsonl`, and into `<home>/alerts/spool/` where a webhook waits for it.
Nothing goes over the network here: `alerts.delivery` sends what is in the spool, from the Dagster
daemon or the server, so that no step waits for a webhook and a sink that is down delays an alert and never loses it.

What goes on for a while, such as drift that every hourly run sees, is told by `alerts.conditions`.

Serving imports this: standard library and pydantic only.
"""

import json
import logging
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from ml_platform.atomic_files import append_line, replace_file
from ml_platform.environments import EnvironmentSettings
from ml_platform.settings import Settings
from ml_platform.spec.types import Strict

LOGGER = logging.getLogger("ml_platform.alerts")

Severity = Literal["info", "warning", "error"]
_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class AlertSettings(EnvironmentSettings):
    """Where alerts go beside the log and the file: `ML_PLATFORM_ALERT_<NAME>`, else `alert:` in `environments.yaml`."""

    model_config = SettingsConfigDict(
        env_prefix="ML_PLATFORM_ALERT_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    webhook_url: SecretStr = Field(
        SecretStr(""),
        description="Receives each alert as POST with JSON (Slack reads its `text`); none when empty. Never shown: "
        "whoever knows it can write there.",
    )
    timeout_seconds: float = Field(20.0, gt=0, description="How long the webhook may take to answer.")
    repeat_hours: float = Field(
        24.0, gt=0, le=87_600, description="After which an alert that nobody acknowledged is told again."
    )

    @field_validator("webhook_url")
    @classmethod
    def _http_only(cls, url: SecretStr) -> SecretStr:
        address = url.get_secret_value()
        if address and not address.startswith(("http://", "https://")):
            raise ValueError("ML_PLATFORM_ALERT_WEBHOOK_URL wants http://… or https://…")
        return url


class Alert(Strict):
    """One thing that somebody should know."""

    model: str = Field(description="Name of the model, or `platform`.")
    kind: str = Field(description="What happened: `drift`, `performance`, `promotion`, …")
    severity: Severity = Field(description="info, warning or error.")
    title: str = Field(description="What happened, in one line.")
    body: str = Field("", description="What was found, and what to do; may be empty.")
    facts: dict[str, Any] = Field(default_factory=dict, description="Numbers and names, JSON-able.")


class RecordedAlert(Strict):
    """An alert that is written down and, where there is a webhook, waits for it."""

    alert_id: str = Field(description="Id of the alert, sent as Idempotency-Key.")
    file: Path = Field(description="File in the spool, as long as it waits for the webhook.")
    waiting: Path | None = Field(description="Its place in the spool; None without a webhook.")


def record_alert(settings: Settings, alert: Alert, *, sinks: AlertSettings | None = None) -> RecordedAlert:
    """Write an alert to the file, the log and, where there is a webhook, the spool.

    Parameters
    ----------
    settings
        `home` holds the file and the spool.
    alert
        What to tell.
    sinks
        Where else; read from the environment when absent.

    Raises
    ------
    OSError
        If the alert cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> settings = Settings(home=Path(tempfile.mkdtemp()))
    >>> alert = Alert(model="flight_delay", kind="drift", severity="warning", title="3 features drifted")
    >>> record_alert(settings, alert, sinks=AlertSettings(webhook_url="")).file.name
    'alerts.jsonl'
    """
    sinks = sinks or AlertSettings()
    record = alert_record(alert)
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    file = settings.alerts_dir / "alerts.jsonl"
    append_line(file, line)
    LOGGER.log(_LEVELS[alert.severity], "%s", "; ".join(record["text"].splitlines()))
    waiting = _put_into_spool(settings, record["id"], line) if sinks.webhook_url else None
    return RecordedAlert(alert_id=record["id"], file=file, waiting=waiting)


def waiting_alerts(settings: Settings) -> list[Path]:
    """Alerts that the webhook has not taken yet, oldest first."""
    return sorted(_spool(settings).glob("*.json"))


def alert_record(alert: Alert) -> dict[str, Any]:
    """What is written and posted of an alert, with an id of its own."""
    return {
        "id": uuid4().hex,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "text": _text(alert),
        **alert.model_dump(mode="json"),
    }


def _text(alert: Alert) -> str:
    facts = "\n".join(f"• {name}: {value}" for name, value in alert.facts.items())
    return "\n".join(part for part in (f"[{alert.severity}] {alert.model}: {alert.title}", alert.body, facts) if part)


def _spool(settings: Settings) -> Path:
    return settings.alerts_dir / "spool"


def _put_into_spool(settings: Settings, alert_id: str, line: str) -> Path:
    """Keep the alert until the webhook took it; names sort by time."""
    path = _spool(settings) / f"{time.time_ns():020d}-{alert_id}.json"
    replace_file(path, line.encode())
    return path
