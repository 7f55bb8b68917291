"""The command line tells what serves and why, goes back, and says what to do when it cannot."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from ml_platform.atomic_files import replace_file
from ml_platform.cli import app
from ml_platform.monitoring.alerts.alert import Alert
from ml_platform.monitoring.alerts.conditions import update_condition
from ml_platform.monitoring.status import ModelStatus, PerformanceWindow
from ml_platform.promotion.promote import promote
from ml_platform.promotion.versions import register
from ml_platform.registry.ledger import read_releases
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.ports import free_port
from ml_platform_tests.toy_world import Shops


@pytest.fixture
def run(shops: Shops, monkeypatch: pytest.MonkeyPatch):
    """Run a command on the shops' stores."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(shops.settings.home))

    def _run(*arguments: str, **options: Any) -> Result:
        return CliRunner().invoke(app, arguments, **options)

    return _run


@pytest.fixture
def released(shops: Shops, trained_shops: tuple[Shops, TrainedModel]) -> Shops:
    """The shops with version 1 released and version 2, the same bundle, registered."""
    trained = trained_shops[1]
    evaluation = shops.evaluate(trained)
    version = register(shops.spec, trained, evaluation, tracker=shops.tracker)
    promote(shops.settings, shops.spec, version, evaluation, tracker=shops.tracker, by="ann")
    client = shops.tracker.client
    client.create_model_version(version.model, version.model_uri, tags={"bundle_digest": version.digest})
    return shops


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of a group, by the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield *path, name


ROOT = typer.main.get_group(app)
COMMANDS = list(commands(ROOT))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_describes_the_command_and_everything_it_takes(words: tuple[str, ...], run):
    said = run(*words, "--help", env={"COLUMNS": "400"})
    assert said.exit_code == 0
    command: click.Command = ROOT
    for word in words:
        assert isinstance(command, click.Group)
        command = command.commands[word]
    described = " ".join(said.output.split())
    assert command.help is not None
    assert command.help.split("\n")[0] in described
    for parameter in command.params:
        meaning = getattr(parameter, "help", None)
        assert meaning, f"{parameter.name} is not described"
        assert meaning in described


def test_before_a_release_it_says_what_to_do(run):
    assert "Nothing is released yet: materialise" in run("status").output
    failed = run("rollback", "order_late")
    assert failed.exit_code == 1
    assert "order_late was not rolled back" in failed.output
    failed = run("history", "order_late")
    assert failed.exit_code == 1
    assert "'order_late' was never registered or released" in failed.output


def test_status_names_a_version_that_waits_for_its_release(
    shops: Shops, trained_shops: tuple[Shops, TrainedModel], run
):
    trained = trained_shops[1]
    register(shops.spec, trained, shops.evaluate(trained), tracker=shops.tracker)
    said = run("status").output
    assert "order_late: version 1 is registered, and none is released." in said
    assert "ml-platform promote order_late 1" in said
    assert run("status", "order_late").output == said
    assert run("promote", "order_late", "1", "--reason", "for a test").exit_code == 0
    assert "order_late: version 1 (live 100%)" in run("status").output
    assert "none is released" not in run("status").output


def test_status_of_one_damaged_endpoint_tells_of_the_others(released, run):
    released.store.endpoint_path("damaged").write_bytes(b"{")
    for command in (["status"], ["canary", "status"]):
        told = run(*command).output
        assert "damaged: " in told
        assert "not an endpoint document" in told
    everything, one = run("status"), run("status", "order_late")
    assert "order_late: version 1" in everything.output
    assert (everything.exit_code, one.exit_code) == (1, 0)
    assert "damaged" not in one.output
    assert "no canary walk is under way" in run("canary", "status", "order_late").output


def test_status_tells_version_revision_and_reason(released, run):
    said = run("status").output
    assert "order_late: version 1 (live 100%); revision 1" in said
    assert "by ann" in said
    assert "roc_auc" in said
    assert run("status", "order_late").output == said
    unknown = run("status", "orders_late")
    assert (unknown.exit_code, "Released are: order_late" in unknown.output) == (1, True)


def test_status_tells_what_monitoring_found_and_what_fires(released, run):
    assert "not watched yet" in run("status").output
    since, until = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 8, tzinfo=UTC)
    window = PerformanceWindow(
        since=since,
        until=until,
        version=1,
        scored_rows=900,
        rows=800,
        verdict="below",
        metric="roc_auc",
        value=0.6,
        interval=(0.55, 0.65),
        holdout=0.8,
        minimum=0.7,
        reason="roc_auc 0.6000 is worse than wanted",
    )
    file = released.store.status_path("order_late")
    replace_file(file, msgspec.json.encode(ModelStatus(model="order_late", written_at=until, performance=(window,))))
    alert = Alert(model="order_late", kind="no_drift", severity="error", title="no_drift failed")
    update_condition(released.settings, alert, firing=True, now=until)
    said = run("status").output
    assert "performance (2024-05-01 00:00 to 2024-05-08 00:00, version 1, 800 rows): below; roc_auc 0.6000" in said
    assert "drift: not measured yet" in said
    assert "firing since 2024-05-08 00:00: no_drift failed" in said
    file.write_text("{")
    assert "not a status document" in run("status").output


def test_a_person_promotes_and_goes_back_and_the_ledger_knows(released, run):
    done = run("promote", "order_late", "2", "--reason", "the gate was too strict")
    assert done.exit_code == 0, done.output
    assert "order_late now serves version 2 (revision 2)" in done.output
    done = run("rollback", "order_late", "--reason", "complaints")
    assert done.exit_code == 0, done.output
    assert "order_late now serves version 1 (live 100%) (revision 3)" in done.output
    revisions = [line.split()[0] for line in run("history", "order_late").output.splitlines() if "(live" in line[:70]]
    assert revisions == ["3", "2", "1"]
    ledger = read_releases(released.lake, "order_late").sort("revision")
    assert ledger["action"].to_list() == ["promotion", "promotion", "rollback"]
    assert ledger["reason"].to_list()[1:] == ["the gate was too strict", "complaints"]


def test_history_tells_what_served_at_an_instant_and_what_made_it(released, run):
    before = datetime.now(UTC)
    assert run("promote", "order_late", "2", "--reason", "the gate was too strict").exit_code == 0
    said = run("history", "order_late", "--at", before.isoformat()).output
    assert "version 1 (live 100%); revision 1" in said
    assert "promotion by ann" in said
    assert "rows of training_sets/order_late version 0" in said
    assert "raw/orders 0" in said
    assert "and still in force" in run("history", "order_late", "--at", datetime.now(UTC).isoformat()).output
    shutil.rmtree(released.store.bundle_path(released.store.versions("order_late")[1]))
    assert run("history", "order_late", "--at", before.isoformat()).output == said  # from the ledger
    for instant, reason in (
        ("2001-01-01", "served nothing at 2001-01-01"),
        ("2999-01-01", "has not come yet"),
        ("yesterday", "read are 2013-07-01T12:00Z"),
    ):
        failed = run("history", "order_late", "--at", instant)
        assert (failed.exit_code, reason in failed.output) == (1, True), failed.output
    assert "registration: version 1" in run("history", "order_late").output


def test_a_version_that_does_not_exist_is_refused_with_those_that_do(released, run):
    failed = run("promote", "order_late", "7", "--reason", "why not")
    assert failed.exit_code == 1
    assert "no version 7 is registered; there are [1, 2]" in failed.output


def test_a_registry_that_is_away_is_told_in_a_line(shops: Shops):
    away = {
        "ML_PLATFORM_HOME": str(shops.settings.home),
        "ML_PLATFORM_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    command = [sys.executable, "-m", "ml_platform", "promote", "order_late", "7", "--reason", "why not"]
    failed = subprocess.run(command, env={**os.environ, **away}, capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("ml-platform: the registry (MLflow) does not answer: ")
    assert "Traceback" not in failed.stderr
    assert "then repeat the command" in failed.stderr


def test_a_terminal_becomes_the_project_s(shops: Shops, run):
    lines = run("env").output
    asked = [sys.executable, "-c", "import os; print(os.environ['DAGSTER_HOME'], os.environ['PATH'])"]
    shell = subprocess.run(["sh", "-c", f"{lines}{shlex.join(asked)}"], check=True, capture_output=True, text=True)
    home, path = shell.stdout.split()
    assert path.startswith(str(Path(sys.executable).parent))
    assert "telemetry:\n  enabled: false" in Path(home, "dagster.yaml").read_text()
    assert Path(home).is_relative_to(shops.settings.home)


def test_a_terminal_is_told_which_port_cannot_be(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ML_PLATFORM_DAGSTER_PORT", "none")
    failed = run("env")
    assert failed.exit_code == 1
    assert "ML_PLATFORM_DAGSTER_PORT: a port from 1 to 65535 is wanted" in failed.output
