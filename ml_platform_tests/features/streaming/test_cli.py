"""`ml-platform stream features`: which process keeps which views, what it tells, and that `make dev` runs it."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.dev import feature_streams
from ml_platform.features.online.open import open_online_store
from ml_platform.features.streaming import cli
from ml_platform.features.streaming.feature_stream import FeatureStream
from ml_platform.features.streaming.status import FeatureStreamStatus, write_status
from ml_platform.lake.storage.tables import Lake
from ml_platform.processes.platform import PORTS
from ml_platform.settings import Settings
from ml_platform_tests.features.streaming.till_views import Clock, sale, views


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with two streamed views of one table."""
    views(tmp_path / "defs" / "features")
    monkeypatch.setattr(cli, "current_project", lambda: SimpleNamespace(defs=tmp_path / "defs", root=tmp_path))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["stream", "features", *arguments])
    return result.exit_code, result.output


def test_views_are_named_by_themselves_or_by_their_table(project):
    tables = cli.project_streams()
    assert cli.chosen_table(tables, "till") == cli.chosen_table(tables, "raw/sales") == "raw/sales"
    code, told = run("tills")
    assert (code, "till" in told) == (1, True)
    code, told = run()
    assert (code, "which view? Streamed are: clerk_load, till" in told) == (1, True)


def test_the_status_says_what_is_wrong(project):
    assert "no process has run here yet: ml-platform stream features clerk_load" in run("--status")[1]
    now = datetime.now(UTC)
    status = FeatureStreamStatus(
        table="raw/sales", views=["till"], state="waiting", reason="no broker", pid=7, host="here", started_at=now,
        updated_at=now, source="topic sales", events=1234, too_late=5, refused=2, reasons={"sold_at: is null": 2},
    )  # fmt: skip
    write_status(Settings().feature_streams_dir, status)
    code, told = run("till", "--status")
    assert code == 0
    assert "raw/sales (clerk_load, till): it is waiting: no broker; process 7 on here, topic sales" in told
    assert "1,234 events, 0 late and corrected, 5 too late (kept, not counted), 2 refused" in told
    assert "2 × sold_at: is null" in told


def test_what_the_store_has_of_an_entity_is_shown(project):
    declared = cli.project_streams()["raw/sales"]
    settings = Settings()
    with (
        open_online_store(settings.online_uri) as store,
        FeatureStream(Lake(settings.lake_uri), declared, store, settings.feature_streams_dir, clock=Clock(2)) as stream,
    ):
        stream.take([sale(0, 1)])
    code, told = run("till", "--look-up", "a")
    assert code == 0
    assert "till since 2024-05-01 00:02:01.000000 UTC" in told  # when the sale left the longest window, long ago
    assert "  sales_2m: 0\n" in told
    assert "nothing of clerk_load for {'shop': 'a', 'clerk': 'y'}" in run("clerk_load", "--look-up", "a,y")[1]
    assert "wanted shop,clerk, found 'a'" in run("clerk_load", "--look-up", "a")[1]


def test_make_dev_runs_one_process_for_each_table(project, capsys):
    [process] = feature_streams(Settings(), PORTS)
    assert process.command[-3:] == ["stream", "features", "clerk_load"]
    assert process.environment["ML_PLATFORM_HOME"] == str(project / "home")
    path = project / "defs" / "features" / "till.yaml"
    path.write_text(path.read_text().replace("lateness: 30 seconds", "lateness: soon"))
    assert feature_streams(Settings(), PORTS) == []
    assert "no stream of features is followed" in capsys.readouterr().out
