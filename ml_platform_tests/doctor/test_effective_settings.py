"""Every setting is shown with its value and its origin, and no secret is."""

import json

import pytest
from typer.testing import CliRunner

from docs.generator.settings_page import documented_variables
from ml_platform.cli import app
from ml_platform.doctor.effective_settings import effective_settings, overridden
from ml_platform.environments import environment_named

FILE = """
dev:
staging:
  home: staging
  online_uri: redis://:${CACHE_PASSWORD}@cache
  serving: {rate: 50}
  ports: {mlflow: 5100}
"""


def test_each_value_comes_from_a_variable_the_file_or_its_default(project, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(FILE)
    for name, value in {
        "ML_PLATFORM_ENVIRONMENT": "staging",
        "CACHE_PASSWORD": "s3cret",
        "ML_PLATFORM_SERVING_RATE": "60",
        "ML_PLATFORM_ALERT_WEBHOOK_URL": "https://hooks.example.com/s3cret",
    }.items():
        monkeypatch.setenv(name, value)
    shown = {one.variable: (one.value, one.origin) for one in effective_settings()}
    assert shown["ML_PLATFORM_ENVIRONMENT"] == ("staging", "variable")
    assert shown["ML_PLATFORM_HOME"] == (str(root / "staging"), "environments.yaml:3")
    assert shown["ML_PLATFORM_LAKE_URI"] == (str(root / "staging" / "lake"), "default")
    assert shown["ML_PLATFORM_ONLINE_URI"] == ("redis://:…@cache", "environments.yaml:4")
    assert shown["ML_PLATFORM_SERVING_RATE"] == ("60.0", "variable")
    assert shown["ML_PLATFORM_MLFLOW_PORT"] == ("5100", "environments.yaml:6")
    assert shown["ML_PLATFORM_ALERT_WEBHOOK_URL"] == ("…", "variable")
    assert shown.keys() >= documented_variables() - {"ML_PLATFORM_DAGSTER_ALLOWED_HOSTS", "ML_PLATFORM_UMASK"}
    assert overridden(environment_named("staging")) == {"ML_PLATFORM_SERVING_RATE": 5}
    printed = CliRunner().invoke(app, ["settings"])
    assert printed.exit_code == 0
    assert "s3cret" not in printed.output
    assert "ML_PLATFORM_SERVING_RATE                  60.0  [variable]" in printed.output
    [rate] = [
        one
        for one in json.loads(CliRunner().invoke(app, ["settings", "--json"]).output)
        if one["variable"] == "ML_PLATFORM_SERVING_RATE"
    ]
    assert rate == {"variable": "ML_PLATFORM_SERVING_RATE", "value": "60.0", "origin": "variable"}


def test_a_file_that_cannot_be_used_is_told_in_one_line(project) -> None:
    project("dev: {lake_url: x}")
    failed = CliRunner().invoke(app, ["settings"])
    assert failed.exit_code == 1
    assert "environments.yaml:1: lake_url: unknown setting" in failed.output
