"""Alerts against a real HTTP server on the loopback interface."""

import json
import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml_platform.monitoring.alerts import Alert, AlertSettings, deliver_alerts, record_alert, send_alert, waiting_alerts
from ml_platform.settings import Settings
from ml_platform_tests.webhook import Receiver

ALERT = Alert(model="flight_delay", kind="drift", severity="warning", title="Drift", body="Two.", facts={"share": 0.4})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def sinks(url: str, attempts: int = 3) -> AlertSettings:
    return AlertSettings(webhook_url=url, timeout_seconds=60, attempts=attempts, pause_seconds=0.01)


def lines(settings: Settings) -> list[dict]:
    return [json.loads(line) for line in (settings.alerts_dir / "alerts.jsonl").read_text().splitlines()]


def waiting(settings: Settings) -> list[Path]:
    return waiting_alerts(settings)


def test_webhook_gets_the_alert_with_slack_text(receiver: Receiver, settings: Settings) -> None:
    receipt = send_alert(settings, ALERT, sinks=sinks(receiver.url))
    assert receipt.delivered == ("file", "log", "webhook")
    (body,) = receiver.taken
    assert body["text"] == "[warning] flight_delay: Drift\nTwo.\n• share: 0.4"
    assert (body["id"], body["facts"]) == (receipt.alert_id, {"share": 0.4})
    assert lines(settings) == [body]
    assert waiting(settings) == []


def test_server_errors_are_retried(receiver: Receiver, settings: Settings) -> None:
    receiver.statuses = [503, 429]
    assert send_alert(settings, ALERT, sinks=sinks(receiver.url)).failed == {}
    assert (receiver.attempts, len(receiver.taken)) == (3, 1)


def test_refusal_is_not_retried_but_kept_and_loud(
    receiver: Receiver, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.statuses = [404]
    with caplog.at_level(logging.ERROR, logger="ml_platform.alerts"):
        receipt = send_alert(settings, ALERT, sinks=sinks(receiver.url))
    assert receiver.attempts == 1
    assert "HTTP 404" in receipt.failed["webhook"]
    assert "HTTP 404" in caplog.text
    assert len(waiting(settings)) == 1


def test_alerts_of_an_outage_arrive_later_in_order(receiver: Receiver, settings: Settings) -> None:
    receiver.statuses = [500, 500]
    for title in ("first", "second"):
        send_alert(settings, ALERT.model_copy(update={"title": title}), sinks=sinks(receiver.url, attempts=1))
    assert receiver.taken == []
    receipt = send_alert(settings, ALERT.model_copy(update={"title": "third"}), sinks=sinks(receiver.url))
    assert [body["title"] for body in receiver.taken] == ["first", "second", "third"]
    assert receipt.resent == 2
    assert waiting(settings) == []


def test_a_refused_alert_does_not_hold_up_the_next(receiver: Receiver, settings: Settings) -> None:
    receiver.statuses = [400, 400]
    send_alert(settings, ALERT, sinks=sinks(receiver.url))
    receipt = send_alert(settings, ALERT.model_copy(update={"title": "next"}), sinks=sinks(receiver.url))
    assert [body["title"] for body in receiver.taken] == ["next"]
    assert "webhook" in receipt.failed  # of the older one, which keeps waiting
    assert len(waiting(settings)) == 1


def test_senders_at_once_deliver_each_alert_once(receiver: Receiver, settings: Settings) -> None:
    for number in range(8):
        alert = ALERT.model_copy(update={"title": f"number {number}"})
        record_alert(settings, alert, sinks=sinks(receiver.url))
    with ThreadPoolExecutor(8) as pool:
        deliveries = list(pool.map(lambda _: deliver_alerts(settings, sinks=sinks(receiver.url)), range(8)))
    assert sorted(body["title"] for body in receiver.taken) == [f"number {number}" for number in range(8)]
    assert sum(len(delivery.sent) for delivery in deliveries) == 8
    assert waiting(settings) == []


def test_nothing_listening_loses_nothing(settings: Settings) -> None:
    with socket.socket() as held:  # bound, so that nobody else is given the port, and not listening
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/hook"
        receipt = send_alert(settings, ALERT, sinks=sinks(url, attempts=2))
    assert "after 2 of 2 attempts" in receipt.failed["webhook"]
    assert [line["title"] for line in lines(settings)] == ["Drift"]
    assert len(waiting(settings)) == 1


def test_environment_names_the_webhook(receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_ALERT_WEBHOOK_URL", receiver.url)
    monkeypatch.setenv("ML_PLATFORM_ALERT_TIMEOUT_SECONDS", "60")
    assert send_alert(settings, ALERT).failed == {}
    assert len(receiver.taken) == 1


def test_only_http_addresses_are_accepted() -> None:
    with pytest.raises(ValueError, match=r"wants http://… or https://…, found 'file:///etc/passwd'"):
        AlertSettings(webhook_url="file:///etc/passwd")


def test_without_webhook_the_file_and_the_log_have_it(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ml_platform.alerts"):
        receipt = send_alert(settings, ALERT, sinks=AlertSettings(webhook_url=""))
    assert receipt.delivered == ("file", "log")
    assert caplog.messages == ["[warning] flight_delay: Drift; Two.; • share: 0.4"]
