"""What lasts is told when it begins, when it ends, and in between as often as people want."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.monitoring.alerts.alert import Alert, AlertSettings
from ml_platform.monitoring.alerts.conditions import Condition, acknowledge, conditions, silence, update_condition
from ml_platform.settings import Settings

START = datetime(2024, 5, 1, tzinfo=UTC)
ALERT = Alert(model="flight_delay", kind="no_drift", severity="warning", title="drift", facts={"share": 0.4})
SINKS = AlertSettings(webhook_url="")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


def _see(settings: Settings, hour: float, firing: bool | None = True, alert: Alert = ALERT) -> Condition | None:
    return update_condition(settings, alert, firing=firing, sinks=SINKS, now=START + timedelta(hours=hour))


def _told(settings: Settings) -> list[str]:
    file = settings.alerts_dir / "alerts.jsonl"
    return [json.loads(line)["title"] for line in file.read_text().splitlines()] if file.exists() else []


def test_a_week_of_failing_hourly_checks_is_one_alert_six_repeats_and_one_end(settings: Settings) -> None:
    for hour in range(168):
        _see(settings, hour)
    state = _see(settings, 168, firing=False)
    assert _told(settings) == ["drift"] * 7 + ["resolved: drift"]
    assert state is not None
    assert (state.state, state.occurrences, state.notifications) == ("resolved", 168, 7)
    assert (state.starts, state.ends) == (START, START + timedelta(hours=168))
    repeated = json.loads((settings.alerts_dir / "alerts.jsonl").read_text().splitlines()[1])
    assert repeated["facts"] == {"share": 0.4, "since": "2024-05-01 00:00 UTC", "seen": 25}


def test_what_cannot_be_judged_neither_begins_nor_ends_anything(settings: Settings) -> None:
    assert _see(settings, 0, firing=None) is None
    assert _see(settings, 1, firing=False) is None
    _see(settings, 2)
    state = _see(settings, 3, firing=None)
    assert state is not None
    assert (state.state, _told(settings)) == ("firing", ["drift"])


def test_it_is_told_anew_after_it_ended(settings: Settings) -> None:
    for hour, firing in enumerate([True, False, True]):
        _see(settings, hour, firing)
    assert _told(settings) == ["drift", "resolved: drift", "drift"]


def test_getting_worse_is_news(settings: Settings) -> None:
    worse = ALERT.model_copy(update={"severity": "error", "title": "much drift"})
    for hour, alert in enumerate([ALERT, worse, worse, ALERT]):
        _see(settings, hour, alert=alert)
    assert _told(settings) == ["drift", "much drift"]


def test_who_acknowledged_it_hears_of_its_end_only(settings: Settings) -> None:
    _see(settings, 0)
    assert acknowledge(settings, "flight_delay", "no_drift", by="ann").acknowledged_by == "ann"
    for hour in (30, 60):
        _see(settings, hour)
    _see(settings, 61, firing=False)
    _see(settings, 62)
    assert _told(settings) == ["drift", "resolved: drift", "drift"]
    assert conditions(settings)[0].acknowledged_by is None


def test_a_silenced_one_is_told_once_the_silence_is_over(settings: Settings) -> None:
    _see(settings, 0)
    silence(settings, "flight_delay", "no_drift", until=START + timedelta(hours=48))
    for hour, firing in [(30, True), (31, False), (32, True)]:
        _see(settings, hour, firing)
    assert _told(settings) == ["drift"]
    _see(settings, 49)
    assert _told(settings) == ["drift", "drift"]


def test_models_kinds_and_subjects_are_conditions_of_their_own(settings: Settings) -> None:
    for subject in ("a", "b"):
        update_condition(settings, ALERT, firing=True, subject=subject, sinks=SINKS, now=START)
    _see(settings, 0)
    assert [state.name for state in conditions(settings)] == [
        "flight_delay no_drift",
        "flight_delay no_drift a",
        "flight_delay no_drift b",
    ]
    with pytest.raises(LookupError, match="what fires: flight_delay no_drift; flight_delay no_drift a"):
        acknowledge(settings, "flight_delay", "no_skew", by="ann")


def test_runs_that_see_it_at_once_tell_it_once(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: _see(settings, 0), range(16)))
    assert _told(settings) == ["drift"]
    assert conditions(settings)[0].occurrences == 16
