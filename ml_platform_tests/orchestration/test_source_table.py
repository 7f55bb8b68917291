"""`SourceTable`: a few lines of YAML and your own data are a raw table, checked, watched and queryable."""

import os
import time
from datetime import date
from pathlib import Path
from typing import Any

import click
import dagster as dg
import polars as pl
import pytest
import yaml
from click.testing import CliRunner

from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.resources import Platform, build_resources
from ml_platform.orchestration.scaffolding import ScaffoldError
from ml_platform.orchestration.source_assets import FILES_TAG, source_table_defs
from ml_platform.orchestration.source_scaffold import SourceTableParams, SourceTableScaffolder
from ml_platform.settings import Settings
from ml_platform_tests.paths import PROJECT_ROOT

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


def test_a_folder_of_daily_files_is_a_table_after_one_command(settings: Settings, lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "daily" / "2024").mkdir(parents=True)
    for day, rows in (("01", "1;NA\n"), ("02", "2;1,5\n"), ("03", "x3;2\n")):  # each file alone would mislead
        _put(tmp_path / "daily" / "2024", f"{day}.csv", f"id;amount\n{rows}")
    declared = _scaffold(tmp_path / "sales", path=str(tmp_path / "daily"), owner="team:own")
    assert declared["folder"] == {"path": str(tmp_path / "daily"), "pattern": "**/*.csv", "separator": ";"}
    assert declared["columns"]["id"] == {"type": "string"}
    definitions = source_table_defs(SourceSpec.model_validate(declared))
    assert _materialise(definitions, settings).success
    assert lake.read("raw/sales").sort("id").collect()["amount"].to_list() == [None, 1.5, 2.0]


def test_what_was_guessed_and_needs_a_look_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,2024-01-01\n2,2024-01-02\n")
    assert _scaffold(tmp_path / "a", path=str(tmp_path / "x.csv"))["file"]["header"] == "none"
    assert "# The first line looks like a row (1, 2024-01-01)" in (tmp_path / "a" / "defs.yaml").read_text()
    pl.DataFrame({"x": [1], "tags": [["a"]]}).write_parquet(tmp_path / "x.parquet")
    declared = _scaffold(tmp_path / "b", path=str(tmp_path / "x.parquet"))
    assert (declared["columns"], declared["unlisted"]) == ({"x": {"type": "integer"}}, "drop")
    assert "no type here: tags" in (tmp_path / "b" / "defs.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("orders", {"path": "bad.csv"}, "line 3 has a quote within a value"),
        ("orders", {"path": "nowhere.csv"}, "no file or folder"),
        ("orders", {"path": "mixed"}, r"several kinds \(.csv, .json\): give one by --path"),
        ("orders", {"path": "empty"}, "has no files"),
        ("orders", {"path": "two"}, "2.csv has other columns than .*1.csv"),
        ("Orders-1", {}, "name: String should match pattern"),
        ("orders", {"kind": "sql", "path": "bad.csv"}, "leave it out of --kind sql"),
    ],
)
def test_a_failed_scaffold_leaves_nothing_and_says_why_in_one_line(
    tmp_path: Path, name: str, params: dict[str, str], message: str
) -> None:
    (tmp_path / "bad.csv").write_text('a,b\n1,2\n3,5" pipe\n')
    for file in ("mixed/1.csv", "mixed/2.json", "two/1.csv", "two/2.csv", "empty/.hidden"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(f"{file[-5]}\nx\n")
    target = tmp_path / "defs" / "shop" / name
    target.mkdir(parents=True)  # as `dg` does before
    (tmp_path / "defs" / "__init__.py").touch()
    given = {key: str(tmp_path / value) if key == "path" else value for key, value in params.items()}
    with pytest.raises(ScaffoldError, match=message) as error:
        _scaffold(target, **given)
    assert "\n" not in error.value.message
    assert [path.name for path in (tmp_path / "defs").iterdir()] == ["__init__.py"]


def test_the_command_prints_no_traceback(tmp_path: Path) -> None:
    runner, message = CliRunner(), "no file or folder"

    @click.command()
    def scaffold() -> None:
        _scaffold(tmp_path / "orders", path=str(tmp_path / "nowhere.csv"))

    result = runner.invoke(scaffold)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert message in result.output
    assert not (tmp_path / "orders").exists()


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
    return sensor.evaluate_tick(context)


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
        _put(folder, "1.csv", "sale,amount\na,1\n")  # repaired under its name
        (request,) = _tick(definitions, settings, instance).run_requests
        assert request.run_key not in keys


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
