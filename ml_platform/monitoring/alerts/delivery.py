"""Sends waiting alerts to the webhook: oldest first, each by one process, each until the webhook took it.

A webhook that cannot be reached is asked again on the next occasion, with the same alert first. One that refuses an
alert, or does not answer in time, gets that alert again later and ever less often: it may have taken it, and the other
alerts must not wait for it. Each attempt carries the alert's id as `Idempotency-Key`.
"""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from ml_platform.atomic_files import try_lock
from ml_platform.monitoring.alerts.alert import LOGGER, Alert, AlertSettings, alert_record, waiting_alerts
from ml_platform.settings import Settings
from ml_platform.spec.types import Strict

_AT_ONCE = 20  # bounds how long one occasion takes
_SET_ASIDE_SECONDS = 600.0  # at first; then as long as the alert has waited
_LONGEST_SECONDS = 86_400.0
_RETRY_STATUS = frozenset({408, 425, 429})  # and every 5xx: the receiver may take it on the next occasion


class Delivery(Strict):
    """What the webhook took on one occasion."""

    sent: tuple[Path, ...] = Field((), description="Places in the spool that these alerts had.")
    failed: dict[Path, str] = Field({}, description="Place in the spool → what went wrong; the alert waits there.")


class WebhookError(ConnectionError):
    """The webhook did not take an alert; with `set_aside`, this alert should not be offered again at once."""

    def __init__(self, message: str, *, set_aside: bool, is_down: bool) -> None:
        super().__init__(message)
        self.set_aside = set_aside
        self.is_down = is_down


def deliver_alerts(settings: Settings, *, sinks: AlertSettings | None = None) -> Delivery:
    """Offer waiting alerts to the webhook, up to 20, oldest first, until one cannot be delivered because it is down.

    Several processes may do so at once: each alert is offered by one of them. What fails is logged and waits on.

    Parameters
    ----------
    settings
        `home` holds the spool.
    sinks
        Where to; read from the environment when absent.
    """
    sinks = sinks or AlertSettings()
    sent: list[Path] = []
    failed: dict[Path, str] = {}
    if not sinks.webhook_url:
        return Delivery()
    for waiting in [path for path in waiting_alerts(settings) if _is_due(path)][:_AT_ONCE]:
        with _claimed(waiting) as body:
            if body is None:
                continue
            try:
                _post(sinks, body)
            except WebhookError as error:
                failed[waiting] = str(error)
                LOGGER.error("Alert %s was not delivered: %s", waiting.name, error)
                if error.set_aside:
                    _set_aside(waiting)
                if error.is_down:
                    break
                continue
            waiting.unlink(missing_ok=True)
            sent.append(waiting)
    return Delivery(sent=tuple(sent), failed=failed)


def post_alert(alert: Alert, *, sinks: AlertSettings) -> None:
    """Post an alert to the webhook without writing it anywhere: for when nothing can be written.

    Raises
    ------
    WebhookError
        If the webhook did not take it. Nobody sends it again.
    """
    _post(sinks, json.dumps(alert_record(alert), ensure_ascii=False, allow_nan=False).encode())


def address_of(url: str) -> str:
    """Scheme, host and port of a URL: the rest of a webhook's is a secret.

    Examples
    --------
    >>> address_of("https://ann:pass@hooks.example.com:8443/services/T0/B0/secret?token=x")
    'https://hooks.example.com:8443'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _is_due(waiting: Path) -> bool:
    try:
        return waiting.stat().st_mtime <= time.time()
    except FileNotFoundError:  # another process has sent it
        return False


def _set_aside(waiting: Path) -> None:
    """Offer an alert again after as long as it has waited already: its file is due by its time of modification."""
    now = time.time()
    age = now - int(waiting.name.partition("-")[0]) / 1e9
    due = now + min(max(age, _SET_ASIDE_SECONDS), _LONGEST_SECONDS)
    os.utime(waiting, (due, due))


@contextmanager
def _claimed(waiting: Path) -> Iterator[bytes | None]:
    """Hold a waiting alert against all others; None when another has sent it or is about to."""
    try:
        file = waiting.open("rb")
    except FileNotFoundError:
        yield None
        return
    with file:
        if not try_lock(file.fileno()):
            yield None
            return
        was_sent = os.fstat(file.fileno()).st_nlink == 0  # between opening and locking
        yield None if was_sent else file.read()


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Reports a redirect as the answer: following one would turn the POST into a GET, which delivers nothing."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _post(sinks: AlertSettings, body: bytes) -> None:
    url = sinks.webhook_url.get_secret_value()
    headers = {"Content-Type": "application/json", "Idempotency-Key": str(json.loads(body)["id"])}
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")  # AlertSettings checked the scheme
    try:
        with _OPENER.open(request, timeout=sinks.timeout_seconds):
            return
    except urllib.error.HTTPError as error:
        with error:
            may_take_it = error.code >= 500 or error.code in _RETRY_STATUS
            problem = f"HTTP {error.code} {error.reason}"
            if 300 <= error.code < 400:
                problem += f", a redirect to {address_of(error.headers.get('Location') or 'another address')}"
        set_aside, is_down = not may_take_it, may_take_it
    except TimeoutError:  # while it was to answer: it may have the alert
        problem, set_aside, is_down = f"no answer within {sinks.timeout_seconds:g} s", True, True
    except (OSError, HTTPException) as error:
        problem = str(getattr(error, "reason", error)) or type(error).__name__
        set_aside, is_down = isinstance(error, HTTPException), True
    raise WebhookError(
        f"wanted {address_of(url)} to take an alert, found: {problem}. The alert waits and is sent again; check "
        "ML_PLATFORM_ALERT_WEBHOOK_URL",
        set_aside=set_aside,
        is_down=is_down,
    )
