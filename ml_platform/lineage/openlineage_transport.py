"""Where OpenLineage events go: to an HTTP receiver such as Marquez, a file, or a topic of Kafka."""

import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from ml_platform.environments import EnvironmentSettings

_SCHEMES = ("http", "https", "file", "kafka")
_PERMANENT = range(400, 500)
_BUSY = {408, 425, 429}


class NotDelivered(Exception):
    """An event that could not be handed over.

    Attributes
    ----------
    is_refused
        Whether the receiver refused this event, so that another try is in vain.
    """

    def __init__(self, reason: str, *, is_refused: bool = False) -> None:
        super().__init__(reason)
        self.is_refused = is_refused


class OpenLineageSettings(EnvironmentSettings):
    """Where lineage events go: `ML_PLATFORM_OPENLINEAGE_<NAME>`, else `openlineage:` in `environments.yaml`."""

    model_config = SettingsConfigDict(
        env_prefix="ML_PLATFORM_OPENLINEAGE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    url: str = Field(
        "",
        description="Receives an event at start, end and failure of each materialisation: the whole URL of an HTTP "
        "receiver (`http://marquez:5000/api/v1/lineage`), `file:///var/lib/events.jsonl`, or "
        "`kafka://broker:9092/topic`; none when empty.",
    )
    api_key: SecretStr = Field(SecretStr(""), description="Sent to an HTTP receiver as `Authorization: Bearer …`.")
    namespace: str = Field("ml_platform", min_length=1, description="Namespace of datasets and jobs in the events.")
    timeout_seconds: float = Field(5.0, gt=0, le=60, description="How long a receiver may take to answer.")
    max_waiting: int = Field(
        10_000,
        ge=1,
        description="Events that may wait for a receiver that is away; older ones are dropped, and counted.",
    )

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in _SCHEMES or not (parts.netloc if parts.scheme != "file" else parts.path)):
            raise ValueError(
                "ML_PLATFORM_OPENLINEAGE_URL wants http(s)://host/path, file:///path or kafka://host:port/topic"
            )
        if parts.scheme == "kafka" and not parts.path.strip("/"):
            raise ValueError("ML_PLATFORM_OPENLINEAGE_URL: kafka://host:port/topic wants a topic")
        return url


def deliver(settings: OpenLineageSettings, event: dict[str, Any]) -> None:
    """Hand one event over, and return when it is received (raises NotDelivered)."""
    parts = urlsplit(settings.url)
    body = json.dumps(event, separators=(",", ":")).encode()
    if parts.scheme == "file":
        _append(Path(unquote(parts.path)), body)
    elif parts.scheme == "kafka":
        _produce(settings, parts.netloc, parts.path.strip("/"), event["run"]["runId"], body)
    else:
        _post(settings, body)


def _append(path: Path, body: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, body + b"\n")  # one write: lines of several writers do not mix
        finally:
            os.close(descriptor)
    except OSError as error:
        raise NotDelivered(f"{path} cannot be written: {error}") from error


def _post(settings: OpenLineageSettings, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    if key := settings.api_key.get_secret_value():
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(settings.url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=settings.timeout_seconds) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        said = error.read(300).decode(errors="replace")
        refused = error.code in _PERMANENT and error.code not in _BUSY
        raise NotDelivered(f"the receiver answered {error.code}: {said}", is_refused=refused) from error
    except (OSError, ValueError) as error:
        raise NotDelivered(f"the receiver does not answer: {error}") from error


def _produce(settings: OpenLineageSettings, servers: str, topic: str, key: str, body: bytes) -> None:
    from ml_platform.distribution import extra

    with extra("streaming"):
        from confluent_kafka import KafkaException, Producer

    problems: list[str] = []
    producer = Producer(
        {"bootstrap.servers": servers, "message.timeout.ms": int(settings.timeout_seconds * 1000), "log_level": 0}
    )
    try:
        producer.produce(
            topic, body, key=key, on_delivery=lambda error, _: problems.append(str(error)) if error else None
        )
    except (KafkaException, BufferError) as error:
        raise NotDelivered(f"Kafka at {servers}: {error}") from error
    if producer.flush(settings.timeout_seconds) or problems:
        raise NotDelivered(f"Kafka at {servers}: {problems[0] if problems else 'no answer'}")
