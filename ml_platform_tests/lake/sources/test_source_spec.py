"""What a source table declares: its contract, and every mistake refused with what is wanted."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest

from ml_platform.lake.contracts.contract import apply_contract, describe
from ml_platform.lake.errors import EmptyInput
from ml_platform.lake.sources.file_readers import read_file
from ml_platform.lake.sources.file_spec import Files
from ml_platform.lake.sources.from_spec import raw_table
from ml_platform.lake.sources.source_spec import SourceSpec, resolve
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.paths import PROJECT_ROOT


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


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        (r"N\d{1,5}", ["N1", "N12345"], ["xN1", "N1x", "N1\n", "n1", "", "N123456"]),
        ("a|bc", ["a", "bc"], ["ac", "abc", "b"]),
        ("(?i)ab", ["ab", "AB"], ["abc"]),
        ("^ab$", ["ab"], ["ab\n", "xab"]),
        (".*part.*", ["a part of it", "part"], ["a\npart"]),
        (r"\d", ["7", "٣"], ["77"]),
        ("[0-9]", ["7"], ["٣"]),
    ],
)
def test_a_pattern_is_matched_by_the_whole_value(pattern: str, matching: list[str], other: list[str]) -> None:
    column = {"type": "string", "nullable": True, "pattern": pattern}
    contract = _spec(columns={"id": {"type": "integer", "key": True}, "x": column}).schema_class()
    rows = pl.DataFrame({"x": [*matching, None, *other]}).with_row_index("id")
    verdict = apply_contract(rows, contract, where="x.csv")
    assert verdict.accepted["x"].to_list() == [*matching, None]
    assert verdict.rejected["reasons"].to_list() == [[f"x: not like {pattern}"]] * len(other)
    assert describe(contract)[1].constraints == (f"like {pattern}",)


def test_texts_of_a_pattern_or_list_that_mean_a_missing_value_are_checked_by_nullable_alone(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id,code,size\n1,AB1,S\n2,,\n3,NA,NA\n4,nope,XL\n")
    columns: dict[str, Any] = {
        "id": {"type": "integer", "key": True},
        "code": {"type": "string", "pattern": r"[A-Z]{2}\d", "nullable": True, "null_values": ["NA"]},
        "size": {"type": "string", "allowed": ["S", "M"], "null_values": ["NA"]},
    }
    lake = Lake(str(tmp_path / "lake"))
    report = raw_table(_spec(columns=columns, file={"path": str(tmp_path / "x.csv")})).load(lake)
    assert lake.read("raw/readings").collect()["id"].to_list() == [1]
    assert report.reasons == {"size: missing": 2, r"code: not like [A-Z]{2}\d": 1, "size: not one of S, M": 1}


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
        ({"columns": {"x": {"type": "string", "allowed": []}}}, "at least 1 item"),
        ({"columns": {"x": {"type": "string", "pattern": ""}}}, "at least 1 character"),
        ({"columns": {"x": {"type": "string", "pattern": "("}}}, r"'\(' cannot be a pattern: unclosed group"),
        ({"columns": {"x": {"type": "string", "pattern": "a)(b"}}}, r"cannot be a pattern: unopened group"),
        ({"columns": {"x": {"type": "string", "pattern": "(?=a)a"}}}, "look-ahead and look-behind, is not supported"),
        ({"columns": {"x": {"type": "string", "pattern": "(.{1000}){1000}"}}}, "exceeds size limit"),
        ({"columns": {"*": {"type": "string"}}}, r"a column cannot be named \*, which means several columns"),
        ({"columns": {"^a.*$": {"type": "string"}}}, r"cannot be named \^a\.\*\$, .* by names: or in the query by AS"),
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


@pytest.mark.parametrize(
    ("kind", "form", "message"),
    [
        ("timestamp", "%Y-%m-%d %H:%M:%S.%f", r"25 ns: write %S%\.f"),
        ("timestamp", "%d.%m.%Y %H:%M:%S,%f", r"write %S%\.f"),
        ("timestamp", "%H:%M:%S", "it has no year, month and day"),
        ("timestamp", "%d.%m. %H:%M", "it has no year, month and day"),
        ("timestamp", "%B %Y", "it has no year, month and day"),
        ("timestamp", "%Y-%m-%d %I:%M", "12-hour clock, which wants %p"),
        ("timestamp", "%Y-%m-%d %H", "specify both hour and minute"),
        ("timestamp", "%Y-%m-%d %H:%M %Z", "say time_zone"),
        ("date", "%Y-%m-%d %H:%M", "a date has no time of day"),
        ("date", "%s", "a date has no time of day"),
        ("date", "%Y", "it has no year, month and day"),
        ("date", "dd.mm.yyyy", r"like %d\.%m\.%Y"),
        ("date", "100%%", r"like %d\.%m\.%Y"),
    ],
)
def test_a_format_that_would_be_read_otherwise_is_refused(kind: str, form: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"format of a {kind} cannot be .*{message}"):
        _spec(columns={"x": {"type": kind, "format": form}})


@pytest.mark.parametrize(
    ("form", "text", "at"),
    [
        ("%Y-%m-%d %H:%M:%S%.f", "2024-01-05 10:00:00.250", datetime(2024, 1, 5, 10, 0, 0, 250_000)),
        ("%G-W%V-%u", "2024-W02-5", datetime(2024, 1, 12)),
        ("%Y-%j", "2024-005", datetime(2024, 1, 5)),
        ("%F %I:%M %p", "2024-01-05 10:30 PM", datetime(2024, 1, 5, 22, 30)),
        ("%s", "1704448800", datetime(2024, 1, 5, 10)),
        ("%d %b %y", "5 Jan 24", datetime(2024, 1, 5)),
    ],
)
def test_formats_are_read_as_they_look(lake: Lake, tmp_path: Path, form: str, text: str, at: datetime) -> None:
    (tmp_path / "x.csv").write_text(f"x\n{text}\n")
    columns = {"x": {"type": "timestamp", "format": form}}
    raw_table(_spec(file={"path": str(tmp_path / "x.csv")}, columns=columns)).load(lake)
    assert lake.read("raw/readings").collect()["x"].to_list() == [at.replace(tzinfo=UTC)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"header": "none"}, "header: none wants names"),
        ({"names": ["a", "a"]}, "names are each given once"),
        ({"escape": "\\", "quote": "none"}, "quote is none"),
        ({"separator": '"'}, "separator and quote cannot both be"),
        ({"separator": ";", "comment": ";"}, "separator and comment cannot both be"),
        ({"separator": "§"}, "separator is one ASCII character"),
        ({"quote": "''"}, "quote is one ASCII character"),
        ({"missing_fields": "drop"}, "Input should be 'refuse' or 'null'"),
    ],
)
def test_a_dialect_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _spec(file={"path": "x.csv", **changes})


def test_a_first_line_that_is_a_row_is_noticed_and_can_be_named(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("1,a\n2,b\n")
    columns = {"id": {"type": "integer"}, "sensor": {"type": "string"}}
    file = {"path": str(tmp_path / "x.csv")}
    for unlisted in ("reject", "drop"):
        with pytest.raises(ValueError, match=r"no header: its first line is 1, a, .* say header: none and names:"):
            raw_table(_spec(file=file, columns=columns, unlisted=unlisted)).load(lake)
    named = {**file, "header": "none", "names": ["id", "sensor"]}
    raw_table(_spec(file=named, columns=columns)).load(lake)
    assert lake.read("raw/readings").sort("id").collect().rows() == [(1, "a"), (2, "b")]


def test_a_text_means_a_missing_value_only_in_its_own_column(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("country,n\nNA,1\nDE,NA\n")
    columns = {
        "country": {"type": "string"},
        "n": {"type": "integer", "nullable": True, "null_values": ["NA", "-"]},
    }
    raw_table(_spec(file={"path": str(tmp_path / "x.csv")}, columns=columns)).load(lake)
    assert lake.read("raw/readings").collect().rows() == [("NA", 1), ("DE", None)]


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


def test_columns_that_polars_takes_for_several_are_dropped_or_refused(tmp_path: Path) -> None:
    rows = pl.DataFrame({"sensor": ["a"], "^sens.*$": ["b"], "*": ["c"]})
    rows.write_parquet(tmp_path / "x.parquet")
    file = {"path": str(tmp_path / "x.parquet")}
    dropped = raw_table(_spec(file=file, unlisted="drop")).read(None, None)
    assert dropped.to_dicts() == [{"sensor": "a"}]
    with pytest.raises(ValueError, match=r"cannot be named \^sens\.\*\$, .* say unlisted: drop"):
        raw_table(_spec(file=file, evolution="add_columns")).read(None, None)
