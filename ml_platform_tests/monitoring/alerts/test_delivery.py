"""Alerts against a real HTTP server on the loopback interface."""

import json
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.monitoring.alerts.alert import Alert, AlertSettings, record_alert, waiting_alerts
from ml_platform.monitoring.alerts.delivery import Delivery, deliver_alerts
from ml_platform.orchestration.alert_sensor import alert_delivery
from ml_platform.orchestration.resources import build_resources
from ml_platform.settings import Settings
from ml_platform_tests.webhook import Receiver

ALERT = Alert(model="flight_delay", kind="drift", severity="warning", title="Drift", body="Two.", facts={"share": 0.4})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def sinks(url: str, timeout: float = 60) -> AlertSettings:
    return AlertSettings(webhook_url=url, timeout_seconds=timeout)


def _record(settings: Settings, url: str, *titles: str) -> list[Path]:
    alerts = [ALERT.model_copy(update={"title": title}) for title in titles]
    recorded = [record_alert(settings, alert, sinks=sinks(url)) for alert in alerts]
    return [one.waiting for one in recorded if one.waiting]


def _reason(delivery: Delivery) -> str:
    (reason,) = delivery.failed.values()
    return reason


def test_webhook_gets_the_alert_with_slack_text_and_its_id(receiver: Receiver, settings: Settings) -> None:
    (waiting,) = _record(settings, receiver.url, "Drift")
    assert deliver_alerts(settings, sinks=sinks(receiver.url)).sent == (waiting,)
    (body,) = receiver.taken
    assert body["text"] == "[warning] flight_delay: Drift\nTwo.\n• share: 0.4"
    assert [body] == [json.loads(line) for line in (settings.alerts_dir / "alerts.jsonl").read_text().splitlines()]
    assert receiver.keys == [body["id"]]
    assert waiting_alerts(settings) == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_alerts_of_an_outage_arrive_later_in_order(receiver: Receiver, settings: Settings, status: int) -> None:
    receiver.statuses = [status]
    _record(settings, receiver.url, "first", "second", "third")
    assert f"HTTP {status}" in _reason(deliver_alerts(settings, sinks=sinks(receiver.url)))
    assert receiver.attempts == 1  # the others do not try a receiver that is down
    assert len(deliver_alerts(settings, sinks=sinks(receiver.url)).sent) == 3
    assert [body["title"] for body in receiver.taken] == ["first", "second", "third"]


def test_a_refused_alert_is_kept_is_loud_and_does_not_hold_up_the_next(
    receiver: Receiver, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [400]
    refused, _ = _record(settings, receiver.url, "refused", "next")
    with caplog.at_level(logging.ERROR, logger="ml_platform.alerts"):
        assert "HTTP 400" in _reason(deliver_alerts(settings, sinks=sinks(receiver.url)))
    assert "HTTP 400" in caplog.text
    assert [body["title"] for body in receiver.taken] == ["next"]
    assert waiting_alerts(settings) == [refused]
    assert deliver_alerts(settings, sinks=sinks(receiver.url)) == Delivery()  # not again at once
    os.utime(refused, (0, 0))  # but when it is due
    assert deliver_alerts(settings, sinks=sinks(receiver.url)).sent == (refused,)


def test_a_redirect_is_no_delivery_and_its_address_is_told_without_secrets(
    receiver: Receiver, settings: Settings
) -> None:
    receiver.statuses = [302]
    receiver.location = "https://elsewhere.example.com/secret?token=1"
    (waiting,) = _record(settings, receiver.url, "Drift")
    reason = _reason(deliver_alerts(settings, sinks=sinks(receiver.url)))
    assert "HTTP 302 Found, a redirect to https://elsewhere.example.com." in reason
    assert f"wanted http://127.0.0.1:{receiver.server_port} to take an alert" in reason
    assert "hook" not in reason
    assert receiver.attempts == 1
    assert waiting_alerts(settings) == [waiting]


def test_a_webhook_that_answers_too_late_gets_the_alert_once(receiver: Receiver, settings: Settings) -> None:
    receiver.hold.clear()
    (waiting,) = _record(settings, receiver.url, "Drift")
    for _ in range(3):  # as the daemon does twice a minute
        deliver_alerts(settings, sinks=sinks(receiver.url, timeout=0.2))
    receiver.hold.set()
    assert receiver.attempts == 1
    assert waiting_alerts(settings) == [waiting]  # nobody knows whether it took it


def test_senders_at_once_deliver_each_alert_once(receiver: Receiver, settings: Settings) -> None:
    titles = [f"number {number}" for number in range(8)]
    _record(settings, receiver.url, *titles)
    with ThreadPoolExecutor(8) as pool:
        deliveries = list(pool.map(lambda _: deliver_alerts(settings, sinks=sinks(receiver.url)), range(8)))
    assert sorted(body["title"] for body in receiver.taken) == titles
    assert sum(len(delivery.sent) for delivery in deliveries) == 8
    assert waiting_alerts(settings) == []


def test_nothing_listening_loses_nothing(settings: Settings) -> None:
    with socket.socket() as held:  # bound, so that nobody else is given the port, and not listening
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/hook"
        (waiting,) = _record(settings, url, "Drift")
        assert "refused" in _reason(deliver_alerts(settings, sinks=sinks(url)))
    assert waiting_alerts(settings) == [waiting]


def test_the_daemon_sends_what_waits_and_says_what_is_left(
    receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_ALERT_WEBHOOK_URL", receiver.url)

    def tick() -> str | None:
        with dg.build_sensor_context(resources={"platform": build_resources(settings)["platform"]}) as context:
            return alert_delivery.evaluate_tick(context).skip_message

    assert tick() == "no alert waits"
    record_alert(settings, ALERT)
    receiver.statuses = [500]
    assert tick() == "0 alerts sent, 1 left"
    assert tick() == "1 alerts sent, 0 left"
    assert len(receiver.taken) == 1
