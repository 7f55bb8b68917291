"""What `make dev` starts: Dagster's settings of old and new homes, the code server's socket, no secret in a command."""

import resource
import tempfile

import pytest
import yaml

from ml_platform.processes.platform import (
    DAGSTER_YAML,
    EARLIER,
    code_socket,
    dagster_home,
    missing_settings,
    platform_processes,
)
from ml_platform.processes.runner import CannotStart
from ml_platform.settings import Settings

PORTS = {"dagster": 3000, "serving": 8000, "mlflow": 5000}


def test_a_new_home_is_monitored_and_retries_what_was_killed(settings: Settings):
    folder = dagster_home(settings)
    assert missing_settings(folder) is None
    config = yaml.safe_load((folder / "dagster.yaml").read_text())
    assert config["run_monitoring"]["enabled"]
    assert config["run_retries"] == {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}


@pytest.mark.parametrize("earlier", EARLIER)
def test_a_file_that_was_never_touched_gets_the_new_settings(settings: Settings, earlier):
    config = settings.home / "dagster_home" / "dagster.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(earlier)
    dagster_home(settings)
    assert config.read_text() == DAGSTER_YAML


def test_no_half_file_is_left_where_it_cannot_be_written(settings: Settings):
    """It would count as the user's own, and monitoring and retries would be off for good."""
    size, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as on a full disk: a file can be made and not filled
    try:
        with pytest.raises(OSError, match="File too large"):
            dagster_home(settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    assert list((settings.home / "dagster_home").iterdir()) == []
    assert missing_settings(dagster_home(settings)) is None


def test_a_file_of_the_users_own_is_left_and_what_it_lacks_is_told(settings: Settings):
    config = settings.home / "dagster_home" / "dagster.yaml"
    config.parent.mkdir(parents=True)
    own = "concurrency:\n  runs:\n    max_concurrent_runs: 8\ntelemetry: {enabled: false}\nnux: {enabled: true}\n"
    config.write_text(own)
    message = missing_settings(dagster_home(settings))
    assert config.read_text() == own
    assert message is not None
    assert "It lacks run_launcher, concurrency.pools, run_monitoring, run_retries" in message


def test_an_empty_file_lacks_everything(settings: Settings):
    config = settings.home / "dagster_home" / "dagster.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("")
    message = missing_settings(dagster_home(settings))
    assert message is not None
    assert "run_monitoring" in message


def test_dagster_is_three_processes_that_end_one_by_one(settings: Settings):
    names = [process.name for process in platform_processes(settings, PORTS)]
    assert names == ["dagster-code", "dagster-daemon", "dagster", "serving", "mlflow"]
    (serving,) = platform_processes(settings, PORTS, ["serving"])
    assert serving.name == "serving"


def test_how_long_a_start_may_take_is_a_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("ML_PLATFORM_START_TIMEOUT_SECONDS", "7200")
    processes = platform_processes(Settings(home=tmp_path), PORTS)
    assert {process.ready_seconds for process in processes} == {7200}
    (variable,) = {process.ready_seconds_variable for process in processes}
    monkeypatch.setenv(variable, "0")
    with pytest.raises(ValueError, match="start_timeout_seconds"):
        Settings(home=tmp_path)


def test_no_password_is_among_the_arguments(tmp_path):
    """They can be read by every user of the machine, unlike the environment."""
    secret = Settings(home=tmp_path, tracking_uri="postgresql://u:hunter2@db/m", online_uri="redis://:hunter2@r/0")
    commands = [part for process in platform_processes(secret, PORTS) for part in process.command]
    assert not [part for part in commands if "hunter2" in part]


def test_the_socket_stands_in_a_folder_that_nobody_else_can_enter(settings: Settings, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    socket = code_socket(settings)
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    assert code_socket(Settings(home=tmp_path / "another")) != socket
    socket.parent.chmod(0o755)
    with pytest.raises(CannotStart, match="nobody else can enter"):
        code_socket(settings)
