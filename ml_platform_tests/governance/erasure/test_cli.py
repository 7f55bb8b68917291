import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings

TABLE = "features/carrier_reliability"


@pytest.fixture
def lake(tmp_path, monkeypatch):
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    opened = Lake(Settings().lake_uri)
    opened.append(TABLE, pl.DataFrame({"carrier": ["UA", "AA", "DL"], "late_share": [0.1, 0.2, 0.3]}))
    return opened


def run(*arguments, text=None):
    return CliRunner().invoke(app, ["forget", *arguments], input=text)


def test_an_airline_is_erased_by_name_and_shown(lake):
    dry = run("--entity", "carrier=UA", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert f"{TABLE}: found 1 rows of its newest version" in dry.output
    assert lake.read(TABLE).collect().height == 3
    assert run("--entity", "carrier=UA", text="n\n").exit_code == 1
    assert lake.read(TABLE).collect().height == 3
    done = run("--entity", "carrier=UA", "--yes", "--ticket", "T-9")
    assert done.exit_code == 0, done.output
    assert lake.read(TABLE).collect()["carrier"].to_list() == ["AA", "DL"]
    assert "raw/flights" in done.output  # would bring it back
    assert "T-9" in run("list").output
    assert f"{TABLE}: rows searched 3; rows removed 1" in run("show", "1").output
    assert run("show", "2").exit_code == 1


def test_a_file_of_many_is_erased_and_searched_again(lake, tmp_path):
    file = tmp_path / "gone.csv"
    file.write_text("carrier\nUA\nAA\n")
    assert run("--from", str(file), "--yes", "--no-suppress").exit_code == 0
    assert lake.read(TABLE).collect()["carrier"].to_list() == ["DL"]
    assert run("verify", "--from", str(file)).exit_code == 0
    lake.append(TABLE, pl.DataFrame({"carrier": ["UA"], "late_share": [0.1]}))
    found = run("verify", "--entity", "carrier=UA")
    assert found.exit_code == 1
    assert "1 rows of its newest version" in found.output


def test_verify_goes_on_after_a_certificate_that_cannot_be_read(lake):
    assert run("--entity", "carrier=UA", "--yes", "--no-suppress").exit_code == 0
    (path,) = (Settings().home / "erasures").glob("[0-9]*.json")
    path.write_bytes(b"\xff{")
    lake.append(TABLE, pl.DataFrame({"carrier": ["UA"], "late_share": [0.1]}))
    found = run("verify", "--entity", "carrier=UA")
    assert found.exit_code == 1
    assert "not a certificate" in found.output
    assert "1 rows of its newest version" in found.output
    again = run("--entity", "carrier=UA", "--yes")
    assert again.exit_code == 1
    assert "restore it from a backup" in again.output
    assert "UA" in lake.read(TABLE).collect()["carrier"].to_list()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--entity", "carier=UA"], "Did you mean 'carrier'?"),
        (["--entity", "carrier"], "--entity wants name=value, like customer=123; found 'carrier'"),
        (["--entity", "carrier=UA", "--entity", "origin=EWR"], "one entity at a time"),
        (["--entity", "carrier=UA", "--also", "notes"], "--also wants schema/table.column"),
        (["--from", "no-such.csv"], "no-such.csv"),
    ],
)
def test_a_wrong_call_is_answered_and_erases_nobody(lake, arguments, message):
    answer = run(*arguments, "--yes")
    assert answer.exit_code == 1
    assert message in " ".join(answer.output.split())
    assert lake.read(TABLE).collect().height == 3
