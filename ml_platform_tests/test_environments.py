"""One file says what differs between environments; variables win over it, and no secret is in it."""

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_platform.environments import (
    EnvironmentUnknown,
    current_environment,
    environment_named,
    environments,
    without_passwords,
)
from ml_platform.monitoring.alerts.alert import AlertSettings
from ml_platform.processes.platform import platform_environment, ports
from ml_platform.serving.settings import ServingSettings
from ml_platform.settings import Settings
from ml_platform.yaml_documents import SpecError

FILE = """
dev:
  schedules: false
staging:
  home: states/staging
  tracking_uri: postgresql://ml:${MLFLOW_PASSWORD}@db/mlflow
  promoters: [ada, ben]
  serving: {rate: 50, allowed_hosts: [models.example.com]}
  alert: {repeat_hours: 12}
  ports: {dagster: 3100}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes the file of a project, which this process works for from then on."""

    def write(text: str) -> Path:
        (tmp_path / "pyproject.toml").write_text('[tool.dg.project]\nroot_module = "shop"\n')
        (tmp_path / "environments.yaml").write_text(textwrap.dedent(text).lstrip())
        monkeypatch.setenv("ML_PLATFORM_PROJECT", str(tmp_path))
        monkeypatch.delenv("ML_PLATFORM_HOME", raising=False)
        return tmp_path.resolve()

    return write


def test_the_first_environment_counts_unless_another_is_named(project, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(FILE)
    assert list(environments()) == ["dev", "staging"]
    assert (Settings().schedules, Settings().home) == (False, root / "data")
    monkeypatch.setenv("ML_PLATFORM_ENVIRONMENT", "staging")
    monkeypatch.setenv("MLFLOW_PASSWORD", "s3cret")
    settings = Settings()
    assert settings.schedules
    assert settings.home == root / "states" / "staging"
    assert settings.lake_uri == str(root / "states" / "staging" / "lake")
    assert settings.tracking_uri == "postgresql://ml:s3cret@db/mlflow"
    assert settings.promoters == ("ada", "ben")
    assert (ServingSettings().rate, ServingSettings().allowed_hosts) == (50, ("models.example.com",))
    assert AlertSettings().repeat_hours == 12
    assert ports() == {"dagster": 3100, "serving": 8000, "mlflow": 5000, "login": 4000}
    assert platform_environment(settings, ports())["ML_PLATFORM_ENVIRONMENT"] == "staging"


def test_what_is_called_with_comes_before_variables_and_these_before_the_file(
    project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project("dev: {lake_retention_days: 7, lake_uri: s3://dev, serving: {rate: 5}, ports: {serving: 8100}}")
    monkeypatch.setenv("ML_PLATFORM_LAKE_RETENTION_DAYS", "8")
    monkeypatch.setenv("ML_PLATFORM_SERVING_RATE", "6")
    monkeypatch.setenv("ML_PLATFORM_SERVING_PORT", "8200")
    assert (Settings().lake_retention_days, ServingSettings().rate, ports()["serving"]) == (8, 6, 8200)
    assert Settings(lake_retention_days=9, home=tmp_path).lake_retention_days == 9
    assert Settings().lake_uri == "s3://dev"


def test_another_environment_is_as_the_file_has_it_whatever_the_variables_say(
    project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project("dev:\nprod: {home: prod}")
    monkeypatch.setenv("ML_PLATFORM_HOME", "/srv/dev")
    monkeypatch.setenv("ML_PLATFORM_LAKE_URI", "s3://dev")
    prod = Settings.of(environment_named("prod"))
    assert (prod.home, prod.lake_uri) == (root / "prod", str(root / "prod" / "lake"))
    assert Settings().lake_uri == "s3://dev"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "dev:\n  lake_url: x",
            r"environments.yaml:2: lake_url: unknown setting 'lake_url'; did you mean 'lake_uri'\?",
        ),
        ("dev:\n  promoters: 3", r"environments.yaml:2: promoters: a list was wanted"),
        ("dev:\n  lake_retention_days: -1", r"environments.yaml:2: .*greater than or equal to 0; found -1"),
        ("dev:\n  online_uri: redis://:s3cret@cache", r"2: online_uri: holds a password.*\$\{NAME\}"),
        ("dev:\n  lake_uri: s3://a?token=abc", "holds a password"),
        ("dev:\n  online_uri: redis://:${NO_SUCH}@cache", "the variable NO_SUCH, which it names, is not set"),
        ("- dev", "wanted one mapping, of environments"),
        ("dev: 3", "wanted the settings of dev, found 3"),
        ("dev:\n  serving: fast", "environments.yaml:2: serving: wanted a mapping of settings, found 'fast'"),
        ("Dev:", "wanted a name as `staging`, found 'Dev'"),
        ("dev:\ndev:", "stands twice"),
    ],
)
def test_a_mistake_is_told_with_its_line(project, text: str, message: str) -> None:
    project(text)
    with pytest.raises(SpecError, match=message):
        Settings()


def test_each_group_refuses_what_it_does_not_know(project) -> None:
    project("dev:\n  serving: {max_activ: 3}\n  alert: {webhook_url: 'https://hooks.example.com/x'}\n  ports: {web: 1}")
    with pytest.raises(SpecError, match=r"yaml:2: serving.max_activ: unknown setting .* did you mean 'max_active'"):
        ServingSettings()
    with pytest.raises(SpecError, match=r"is a secret.*set the variable ML_PLATFORM_ALERT_WEBHOOK_URL instead"):
        AlertSettings()
    with pytest.raises(SpecError, match=r"ports.web: unknown setting"):
        ports()


def test_an_environment_that_the_file_does_not_have_is_refused(project, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project("dev:\nstaging:")
    monkeypatch.setenv("ML_PLATFORM_ENVIRONMENT", "stagin")
    with pytest.raises(
        EnvironmentUnknown, match=r"ML_PLATFORM_ENVIRONMENT: unknown environment 'stagin'.*mean 'staging'"
    ):
        Settings()
    (root / "environments.yaml").unlink()
    with pytest.raises(EnvironmentUnknown, match=r"no environments.yaml that describes it"):
        Settings()


def test_without_a_file_there_is_no_environment(project) -> None:
    root = project("dev:")
    (root / "environments.yaml").unlink()
    assert current_environment() is None
    assert Settings().home == root / "data"


def test_passwords_are_not_shown() -> None:
    assert without_passwords("redis://:s3cret@cache:6379/0") == "redis://:…@cache:6379/0"
    assert without_passwords("s3://lake?token=abc&region=x") == "s3://lake?token=…&region=x"
