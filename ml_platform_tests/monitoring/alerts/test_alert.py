"""What is written down of an alert, before anything is sent."""

import json
import logging
import resource
from pathlib import Path

import pytest
from pydantic import ValidationError

from ml_platform.atomic_files import append_line
from ml_platform.monitoring.alerts.alert import Alert, AlertSettings, record_alert, waiting_alerts
from ml_platform.settings import Settings

ALERT = Alert(model="flight_delay", kind="drift", severity="warning", title="Drift", body="Two.", facts={"share": 0.4})
SECRET = "https://hooks.example.com/services/T0/B0/secret"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def test_the_file_and_the_log_have_it_and_the_spool_where_there_is_a_webhook(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="ml_platform.alerts"):
        recorded = record_alert(settings, ALERT, sinks=AlertSettings(webhook_url=""))
    assert caplog.messages == ["[warning] flight_delay: Drift; Two.; • share: 0.4"]
    (line,) = recorded.file.read_text().splitlines()
    assert (json.loads(line)["id"], json.loads(line)["facts"]) == (recorded.alert_id, {"share": 0.4})
    assert (recorded.waiting, waiting_alerts(settings)) == (None, [])
    spooled = record_alert(settings, ALERT, sinks=AlertSettings(webhook_url=SECRET))
    assert [spooled.waiting] == waiting_alerts(settings)


def test_a_webhook_that_is_no_web_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ValidationError, match=r"wants http://… or https://…") as refused:
        AlertSettings(webhook_url="file:///etc/secret")
    assert "secret" not in str(refused.value)


def test_the_webhooks_address_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_ALERT_WEBHOOK_URL", SECRET)
    settings = AlertSettings()
    assert settings.webhook_url.get_secret_value() == SECRET
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "secret" not in shown


def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    append_line(file, "first")
    file.write_bytes(file.read_bytes() + b"to")  # a kill in the middle of a write
    append_line(file, "second")
    assert file.read_text().splitlines() == ["first", "to", "second"]


def test_what_a_full_disk_let_through_of_a_line_is_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    append_line(file, "first")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # the file may have four bytes more: a short write
    try:
        with pytest.raises(OSError, match="too large"):
            append_line(file, "second and longer")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    append_line(file, "third")
    assert file.read_text().splitlines() == ["first", "third"]
