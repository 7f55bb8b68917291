"""`SourceTable`: a few lines of YAML and your own data are a raw table, checked, watched and queryable."""

import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from ml_platform.lake.source_spec import SourceSpec
from ml_platform.lake.tables import Lake
from ml_platform.orchestration.resources import Platform, build_resources
from ml_platform.orchestration.source_assets import FILES_TAG, source_table_defs
from ml_platform.orchestration.source_scaffold import SourceTableParams, SourceTableScaffolder
from ml_platform.settings import PROJECT_ROOT, Settings

DATASETS = PROJECT_ROOT.parent / "shared" / "datasets"


def _scaffold(folder: Path, **params: str) -> dict[str, Any]:
    request = dg.ScaffoldRequest(
        type_name="ml_platform.orchestration.SourceTable",
        target_path=folder,
        scaffold_format="yaml",
        project_root=None,
        params=SourceTableParams.model_validate(params),
    )
    SourceTableScaffolder().scaffold(request)
    return yaml.safe_load((folder / "defs.yaml").read_text())["attributes"]


def _asset(definitions: dg.Definitions) -> dg.AssetsDefinition:
    (asset,) = definitions.assets or ()
    assert isinstance(asset, dg.AssetsDefinition)
    return asset


def _materialise(definitions: dg.Definitions, settings: Settings) -> dg.ExecuteInProcessResult:
    return dg.materialize([_asset(definitions)], resources=build_resources(settings), raise_on_error=False)


@pytest.mark.parametrize(("name", "rows"), [("telco_churn", 7043), ("dry_bean", 13611), ("bike_hourly", 17379)])
def test_your_own_csv_is_a_table_after_one_command(
    settings: Settings, lake: Lake, tmp_path: Path, name: str, rows: int
) -> None:
    file = DATASETS / f"{name}.csv"
    if not file.is_file():
        pytest.skip(f"wants {file}")
    declared = _scaffold(tmp_path / name, path=str(file), owner="team:own")
    result = _materialise(source_table_defs(SourceSpec.model_validate(declared)), settings)
    assert result.success
    (check,) = result.get_asset_check_evaluations()
    assert check.passed, check.description
    assert lake.read(f"raw/{name}").select(pl.len()).collect().item() == rows


def test_a_file_of_another_country_is_a_table_after_one_command(settings: Settings, lake: Lake, tmp_path: Path) -> None:
    file = tmp_path / "umsatz.csv"
    file.write_text("Straße;Betrag;Tag\nKöln;1.234,50;31.12.2024\nUlm;-5,25;01.01.2025\n", encoding="cp1252")
    declared = _scaffold(tmp_path / "umsatz", path=str(file), owner="team:own")
    assert {name: declared["file"][name] for name in ("separator", "encoding")} == {
        "separator": ";",
        "encoding": "cp1252",
    }
    assert _materialise(source_table_defs(SourceSpec.model_validate(declared)), settings).success
    assert lake.read("raw/umsatz").sort("Betrag").collect().rows() == [
        ("Ulm", -5.25, date(2025, 1, 1)),
        ("Köln", 1234.5, date(2024, 12, 31)),
    ]


@pytest.mark.parametrize("kind", ["file", "folder", "sql"])
def test_every_kind_is_scaffolded_as_it_loads(tmp_path: Path, kind: str) -> None:
    spec = SourceSpec.model_validate(_scaffold(tmp_path / "orders", kind=kind))
    assert spec.name == "raw/orders"
    assert _asset(source_table_defs(spec)).key.to_user_string() == "raw/orders"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "daily").mkdir()
    return tmp_path / "daily"


def _sales(folder: Path, **changes: Any) -> dg.Definitions:
    declared = {
        "name": "raw/sales",
        "description": "Sales.",
        "owner": "team:shop",
        "folder": {"path": str(folder), "pattern": "*.csv"},
        "columns": {"sale": {"type": "string", "key": True}, "amount": {"type": "number", "minimum": 0}},
    }
    return source_table_defs(SourceSpec.model_validate({**declared, **changes}))


def _put(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    os.utime(folder / name, (time.time() - 60,) * 2)


def _tick(definitions: dg.Definitions, settings: Settings, instance: dg.DagsterInstance) -> Any:
    (sensor,) = definitions.sensors or ()
    platform = build_resources(settings)["platform"]
    assert isinstance(platform, Platform)
    context = dg.build_sensor_context(instance=instance, resources={"platform": platform})
    return sensor.evaluate_tick(context)  # type: ignore[union-attr]


def test_a_folder_is_watched_and_each_file_loaded_once(settings: Settings, lake: Lake, folder: Path) -> None:
    definitions = _sales(folder)
    with dg.instance_for_test() as instance:
        assert _tick(definitions, settings, instance).skip_message == "no new files, 0 were read"
        _put(folder, "1.csv", "sale,amount\na,1\nb,-1\n")
        (request,) = _tick(definitions, settings, instance).run_requests
        result = _materialise(definitions, settings)
        assert result.success
        (event,) = result.asset_materializations_for_node("raw__sales")
        assert {name: event.metadata[name].value for name in ("rows read", "rows accepted", "files read")} == {
            "rows read": 2,
            "rows accepted": 1,
            "files read": 1,
        }
        checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
        assert not checks["contract"].passed
        assert checks["files_unchanged"].passed
        assert _tick(definitions, settings, instance).skip_message == "no new files, 1 were read"
        _put(folder, "2.csv", "sale,amount\nc,1\n")
        (later,) = _tick(definitions, settings, instance).run_requests
    assert request.run_key != later.run_key
    assert lake.read("raw/sales").collect()["sale"].to_list() == ["a"]


def test_a_run_that_died_is_repeated_but_not_for_ever(settings: Settings, folder: Path) -> None:
    definitions = _sales(folder)
    _put(folder, "1.csv", "sale,amuont\na,1\n")
    with dg.instance_for_test() as instance:
        keys = []
        for _ in range(3):
            (request,) = _tick(definitions, settings, instance).run_requests
            keys.append(request.run_key)
            result = dg.materialize(
                [_asset(definitions)],
                resources=build_resources(settings),
                instance=instance,
                tags={FILES_TAG: request.tags[FILES_TAG]},
                raise_on_error=False,
            )
            assert not result.success
        assert len(set(keys)) == 3
        assert "3 runs could not load all of 1.csv" in str(_tick(definitions, settings, instance).skip_message)


def test_a_changed_file_fails_its_check(settings: Settings, folder: Path) -> None:
    definitions = _sales(folder)
    _put(folder, "1.csv", "sale,amount\na,1\n")
    _materialise(definitions, settings)
    _put(folder, "1.csv", "sale,amount\na,1\nb,1\n")
    checks = {check.check_name: check for check in _materialise(definitions, settings).get_asset_check_evaluations()}
    assert not checks["files_unchanged"].passed
    assert "1.csv" in str(checks["files_unchanged"].description)


def test_a_schedule_takes_the_sensor_s_place(folder: Path) -> None:
    definitions = _sales(folder, schedule="0 6 * * *")
    assert [schedule.name for schedule in definitions.schedules or ()] == ["raw_sales_schedule"]
    assert not definitions.sensors
