"""`ml-platform sql`: what it prints, in every format, and what it says when it cannot."""

import csv
import io
import json
from datetime import UTC, datetime

import polars as pl
import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.features.training_sets.notebook_api import open_lake
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings

ROWS = pl.DataFrame(
    {
        "origin": ["EWR", "JFK", "LGA"],
        "seen": [datetime(2013, 1, day, tzinfo=UTC) for day in (1, 2, 3)],
        "reasons": [["late"], ["a, b", 'say "x"'], []],
        "delay": [1.5, None, 30.0],
    }
)


@pytest.fixture(autouse=True)
def flights(lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    lake.append("raw/flights", ROWS)
    lake.append("quarantine/raw/flights", ROWS)
    lake.append("raw/flights", ROWS.with_columns(origin=pl.lit("SFO")))


def _sql(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["sql", *arguments], input=stdin)


def test_a_table_is_readable_and_says_when_there_is_more() -> None:
    shown = _sql("SELECT origin, delay FROM raw.flights ORDER BY origin, delay", "--limit", "2")
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[1].replace("┆", "│").split("│")[1:3] == [" origin ", " delay "]
    assert "│ EWR    ┆   1.5 │" in lines
    assert lines[-1] == "2 rows"
    assert shown.stderr == "The first 2 rows; there are more. --limit 0 shows all.\n"
    everything = _sql("SELECT origin FROM raw.flights", "--limit", "0")
    assert everything.stdout.splitlines()[-1] == "6 rows"
    assert everything.stderr == ""


def test_csv_and_json_can_be_read_by_programs() -> None:
    select = "SELECT * FROM raw.flights WHERE origin != 'SFO' ORDER BY origin"
    rows = list(csv.DictReader(io.StringIO(_sql(select, "--format", "csv").stdout)))
    assert [row["origin"] for row in rows] == ["EWR", "JFK", "LGA"]
    assert [json.loads(row["reasons"]) for row in rows] == ROWS["reasons"].to_list()
    objects = json.loads(_sql(select, "--format", "json").stdout)
    assert [row["delay"] for row in objects] == [1.5, None, 30.0]


def test_versions_and_times_reach_back() -> None:
    count = "SELECT count(*) AS n FROM raw.flights"
    assert json.loads(_sql(count, "--version", "raw/flights=0", "--format", "json").stdout) == [{"n": 3}]
    assert json.loads(_sql(count, "--as-of", "2999-01-01", "--format", "json").stdout) == [{"n": 6}]
    early = _sql(count, "--as-of", "2001-01-01")
    assert early.exit_code == 1
    assert "'raw/flights' did not exist at 2001-01-01" in early.stderr


def test_the_query_can_come_from_the_input() -> None:
    assert "EWR" in _sql("-", stdin='SELECT DISTINCT origin FROM quarantine."raw/flights"').stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SELECT * FROM raw.flihgts"], "Did you mean 'raw/flights'?"),
        (["SELECT * FROM flights"], 'Tables: quarantine."raw/flights", raw.flights'),
        (["SELECT nothing FROM raw.flights"], '"nothing" not found'),
        (["DROP TABLE raw.flights"], "One SELECT was wanted"),
        (["SELECT 1; SELECT 2"], "One SELECT was wanted, found 2"),
        (["FROM read_csv('/etc/passwd')"], "SQL reads only the lake's tables: make the file one (SourceTable)"),
        (["SELECT INTERVAL 1 DAY"], "like INTERVAL: cast it"),
        (["SELECT 1 FROM raw.flights", "--version", "raw/flihgts=0"], "Did you mean 'raw/flights'?"),
        (["SELECT 1", "--version", "raw/flights"], "--version wants table=number, like raw/flights=3"),
        (["SELECT 1 FROM raw.flights", "--version", "raw/flights=7"], "versions 0 to 1, version 7 was asked for"),
        (["SELECT 1", "--as-of", "yesterday"], "like 2024-06-01 or 2024-06-01T12:00Z; got 'yesterday'"),
    ],
)
def test_a_mistake_is_answered_with_what_would_be_right(arguments: list[str], message: str) -> None:
    answer = _sql(*arguments)
    assert answer.exit_code == 1
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_notebook_opens_the_project_s_lake() -> None:
    lake = open_lake()
    assert lake.sql("SELECT count(*) FROM raw.flights", as_of="2999-01-01").item() == 6
    assert lake.sql("SELECT count(*) FROM raw.flights", versions={"raw/flights": 0}).item() == 3
