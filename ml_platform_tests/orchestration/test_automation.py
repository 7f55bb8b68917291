"""An environment may leave schedules and sensors off; those that keep the platform itself in order run everywhere."""

import dagster as dg
import pytest

from ml_platform.orchestration.alert_sensor import alert_delivery
from ml_platform.orchestration.execution import refresh_sensor
from ml_platform.orchestration.maintenance import maintenance_defs
from ml_platform.orchestration.registry_sync import registry_behind
from ml_platform.orchestration.resources import build_resources
from ml_platform_tests.paths import PROJECT_ROOT


@pytest.mark.parametrize("runs", [True, False])
def test_schedules_and_sensors_are_as_the_environment_says(runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_SCHEDULES", str(runs))
    monkeypatch.setenv("ML_PLATFORM_SENSORS", str(runs))
    definitions = dg.Definitions.merge(maintenance_defs(), dg.Definitions(resources=build_resources()))
    schedule = definitions.resolve_schedule_def("lake_maintenance_schedule")
    expected = "RUNNING" if runs else "STOPPED"
    assert (schedule.default_status.name, refresh_sensor().default_status.name) == (expected, expected)
    for sensor in (alert_delivery, registry_behind):
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING


def test_no_schedule_runs_without_asking_the_environment() -> None:
    files = (PROJECT_ROOT / "ml_platform" / "orchestration").glob("*.py")
    assert [path.name for path in files if "DefaultScheduleStatus.RUNNING" in path.read_text()] == ["automation.py"]
