"""`ml-platform cost` on a home with some measured use, tables and budgets."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.cost.config import CostConfig
from ml_platform.cost.publish import publish_costs
from ml_platform.cost.records import RUN, SERVING, Use, UseLog, now
from ml_platform.cost.storage import stored_tables
from ml_platform.cost.summary import read_summary
from ml_platform.cost.use_table import ingest_costs, read_costs
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path))
    settings = Settings(home=tmp_path)
    log = UseLog(settings.cost_dir)
    log.write(
        [
            Use(time=now(), meter="m", kind=RUN, run="1", job="fit", step="fit", model="toy", cpu_seconds=7200.0),
            Use(time=now(), meter="m", kind=SERVING, model="toy", key="shop", cpu_seconds=3600.0, requests=4),
            Use(time=now() - timedelta(days=60), meter="m", kind=RUN, run="0", job="fit", cpu_seconds=1.0),
        ]
    )
    log.close()
    return settings


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["cost", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_costs_are_summed_before_and_after_the_ingest(home: Settings) -> None:
    for _ in range(2):
        [toy] = json.loads(run("--by", "model", "--format", "json"))
        assert (toy["model"], toy["cpu_seconds"], toy["requests"], toy["runs"]) == ("toy", 10_800.0, 4, 1)
        assert toy["price"] == pytest.approx(0.12)
        assert "0.1200 EUR since" in run("--since", "12h")
        assert {line.split(",")[0] for line in run("--by", "key", "--format", "csv").splitlines()[1:]} == {
            "shop",
            "(none)",
        }
        ingest_costs(Lake(home.lake_uri), home)
    assert read_costs(Lake(home.lake_uri), home).height == 3
    assert len(json.loads(run("--by", "run", "--since", "90d", "--format", "json"))) == 3


def test_a_span_that_is_none_is_told() -> None:
    result = CliRunner().invoke(app, ["cost", "--since", "yesterday"])
    assert result.exit_code == 1
    assert "wanted 12h, 7d, 4w or a day" in result.output


def test_storage_tells_versions_apart(home: Settings) -> None:
    lake = Lake(home.lake_uri)
    for value in range(3):
        lake.replace("raw/readings", pl.DataFrame({"value": [value] * 1000}))
    [table] = [one for one in stored_tables(lake, CostConfig(), 30) if one.table == "raw/readings"]
    assert [one.version for one in table.versions] == [2, 1, 0]
    assert all(one.unique_bytes == one.bytes > 0 for one in table.versions)
    assert table.older_bytes == sum(one.bytes for one in table.versions[1:])
    assert table.vacuumable_bytes == 0
    [now_free] = [one for one in stored_tables(lake, CostConfig(), 0) if one.table == "raw/readings"]
    assert now_free.vacuumable_bytes == table.older_bytes
    [kept] = [one for one in stored_tables(lake, CostConfig(), 0, {"raw/readings": [0]}) if one.table == "raw/readings"]
    assert kept.vacuumable_bytes == table.versions[1].bytes
    assert "raw/readings" in run("storage")


def test_waste_names_tables_that_nothing_reads(home: Settings) -> None:
    Lake(home.lake_uri).replace("raw/forgotten", pl.DataFrame({"value": [1]}))
    [finding] = json.loads(run("waste", "--format", "json"))
    assert (finding["kind"], finding["name"]) == ("table", "raw/forgotten")
    assert finding["price_month"] > 0
    assert "raw/forgotten" in finding["remedy"]
    assert not (home.home / "mlflow.db").exists(), "looking makes nothing"


def test_the_summary_is_published_and_a_damaged_one_told(home: Settings) -> None:
    made = publish_costs(Lake(home.lake_uri), home, CostConfig(), datetime.now(UTC))
    assert read_summary(home.cost_dir) == made
    assert [one.name for one in made.by["key"] if one.requests] == ["shop"]
    (home.cost_dir / "summary.json").write_text("{")
    with pytest.raises(ValueError, match="a run of governance/cost replaces it"):
        read_summary(home.cost_dir)


def test_budgets_are_shown() -> None:
    assert "There are no budgets" in run("budgets")
