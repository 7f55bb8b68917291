"""What a source table declares: its contract, and every mistake refused with what is wanted."""

from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest

from ml_platform.lake.contracts import describe
from ml_platform.lake.declared import raw_table
from ml_platform.lake.errors import EmptyInput
from ml_platform.lake.readers import read_file
from ml_platform.lake.source_spec import Files, SourceSpec, resolve
from ml_platform.lake.tables import Lake
from ml_platform.settings import PROJECT_ROOT


class Readings(dy.Schema):
    sensor = dy.String(primary_key=True)


def _spec(**changes: Any) -> SourceSpec:
    declared = {
        "name": "raw/readings",
        "description": "Readings.",
        "owner": "team:lab",
        "file": {"path": "readings.csv"},
        "columns": {"sensor": {"type": "string", "key": True}},
    }
    return SourceSpec.model_validate(
        {key: value for key, value in {**declared, **changes}.items() if value is not None}
    )


def test_inline_columns_are_a_contract() -> None:
    columns = {
        "sensor": {"type": "string", "key": True, "allowed": ["a", "b"]},
        "value": {"type": "number", "nullable": True, "minimum": -1.5, "unit": "°C", "description": "What it read."},
        "at": {"type": "timestamp"},
    }
    facts = {column.name: column for column in describe(_spec(columns=columns).schema_class())}
    assert facts["sensor"].primary_key
    assert facts["sensor"].constraints == ("one of a, b",)
    assert (facts["value"].unit, facts["value"].description, facts["value"].nullable) == ("°C", "What it read.", True)
    assert facts["value"].constraints == ("at least -1.5",)
    assert facts["at"].type == pl.Datetime("us", "UTC")


def test_a_contract_can_be_a_class() -> None:
    spec = _spec(columns=None, contract=f"{__name__}:Readings")
    assert spec.schema_class() is Readings
    with pytest.raises(ValueError, match="wants module:Class of a dataframely schema"):
        _spec(columns=None, contract="json:dumps").schema_class()
    with pytest.raises(ValueError, match="No module named 'nowhere'"):
        _spec(columns=None, contract="nowhere:X").schema_class()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": None}, "one of file, folder and sql is wanted, found none"),
        ({"folder": {"path": "x"}}, "found file, folder"),
        ({"columns": None}, r"one of contract \(module:Class\) and columns is wanted"),
        ({"columns": {"x": {"type": "text"}}}, "Input should be 'string'"),
        ({"columns": {"x": {"type": "string", "minimum": 1}}}, "minimum and maximum are for integer"),
        ({"columns": {"x": {"type": "date", "pattern": "a"}}}, "allowed and pattern are for string"),
        ({"partition_by": ["day"]}, "partition_by names no column of the contract: day"),
        ({"name": "Readings"}, "should match pattern"),
        ({"shedule": "@daily"}, "Extra inputs are not permitted"),
        (
            {
                "file": None,
                "sql": {"url_variable": "U", "query": "SELECT 1 AS x", "cursor": "x"},
                "columns": {"x": {"type": "integer"}},
            },
            r"sql\.cursor wants a primary key.*key: true",
        ),
    ],
)
def test_a_mistake_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _spec(**changes)


def test_paths_start_at_the_project_and_take_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve("data/x.csv") == PROJECT_ROOT / "data" / "x.csv"
    monkeypatch.setenv("WHERE", "/srv")
    assert resolve("$WHERE/x.csv") == Path("/srv/x.csv")
    with pytest.raises(ValueError, match="its variable is not set"):
        resolve("$NOWHERE_AT_ALL/x.csv")


def test_columns_that_are_not_listed_are_refused_or_dropped(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "readings.csv").write_text("sensor,value\na,1\n")
    file = {"path": str(tmp_path / "readings.csv")}
    with pytest.raises(ValueError, match="column 'value': not wanted"):
        raw_table(_spec(file=file)).load(lake)
    raw_table(_spec(file=file, unlisted="drop")).load(lake)
    assert lake.read("raw/readings").collect().rows() == [("a",)]


@pytest.mark.parametrize("content", ["", "sensor\n"])
def test_a_file_without_rows_does_not_empty_the_table(lake: Lake, tmp_path: Path, content: str) -> None:
    file = tmp_path / "readings.csv"
    file.write_text("sensor\na\n")
    raw = raw_table(_spec(file={"path": str(file)}))
    raw.load(lake)
    file.write_text(content)
    with pytest.raises(EmptyInput, match=r"readings\.csv has no rows, which would empty 'raw/readings'"):
        raw.load(lake)
    assert lake.read("raw/readings").collect().rows() == [("a",)]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No file .*x\.csv"):
        read_file(tmp_path / "x.csv")
    (tmp_path / "x.data").write_text("a")
    with pytest.raises(ValueError, match="say format: csv, parquet or jsonl"):
        read_file(tmp_path / "x.data")
    with pytest.raises(ValueError, match=r"x\.data cannot be read as parquet"):
        read_file(tmp_path / "x.data", Files(format="parquet"))
