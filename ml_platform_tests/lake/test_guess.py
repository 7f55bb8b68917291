"""What is guessed of a file: how it is written, and a contract that its own rows hold."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.lake.guess import guess_columns, guess_files
from ml_platform.lake.source_spec import Files


def test_a_contract_is_guessed_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(
        "id,day,at,price,open,note,zip\n"
        "1,2024-01-01,2024-01-01T10:00Z,1.5,true,,01234\n"
        "2,2024-01-02,2024-01-01 11:00,2,False,x,10115\n"
    )
    assert guess_columns(file, guess_files(file)) == {
        "id": {"type": "integer"},
        "day": {"type": "date"},
        "at": {"type": "timestamp"},
        "price": {"type": "number"},
        "open": {"type": "boolean"},
        "note": {"type": "string", "nullable": True},
        "zip": {"type": "string"},
    }


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (["1.234,5", "2,5"], {"type": "number", "format": "1.234,5"}),
        (["1,234", "2,000"], {"type": "integer", "format": "1,234.5"}),
        (["31.12.2024", "01.02.2024"], {"type": "date", "format": "%d.%m.%Y"}),
        (["12/31/2024 10:00", "01/02/2024 11:00"], {"type": "timestamp", "format": "%m/%d/%Y %H:%M"}),
        (["01/02/2024", "03/04/2024"], {"type": "string"}),  # day or month first?
        (["1", "x"], {"type": "string"}),
    ],
)
def test_other_ways_to_write_are_guessed_where_they_are_clear(
    tmp_path: Path, values: list[str], column: dict[str, str]
) -> None:
    file = tmp_path / "x.csv"
    pl.DataFrame({"x": values, "y": "z"}).write_csv(file, separator=";")
    assert guess_files(file) == Files(separator=";")
    assert guess_columns(file, guess_files(file))["x"] == column


@pytest.mark.parametrize(
    ("values", "null_values", "column"),
    [
        (["1", " ", "2.5"], ("", "NA", " "), {"type": "number", "nullable": True}),
        (["2024-01-01", "NULL", "-"], ("", "NA", "-", "NULL"), {"type": "date", "nullable": True}),
        (["1", "None", "2"], ("", "NA"), {"type": "string"}),  # a value of the other column
        (["a", "-", "b"], ("", "NA"), {"type": "string"}),
    ],
)
def test_texts_that_mean_a_missing_value_are_guessed(
    tmp_path: Path, values: list[str], null_values: tuple[str, ...], column: dict[str, Any]
) -> None:
    file = tmp_path / "x.csv"
    pl.DataFrame({"x": values, "service": ["DSL", "None", "Fiber"]}).write_csv(file)
    files = guess_files(file)
    assert files == Files(null_values=null_values)
    assert guess_columns(file, files) == {"x": column, "service": {"type": "string"}}


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_the_encoding_is_guessed(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "x.csv"
    file.write_text("größe\tort\n1\tKöln\n", encoding=encoding)
    assert guess_files(file) == Files(separator="\t", encoding=encoding)
    assert list(guess_columns(file, guess_files(file))) == ["größe", "ort"]


def test_a_typed_file_tells_its_types(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    at = datetime(2024, 1, 1)
    frame = pl.DataFrame({"n": [1], "x": [1.5], "local": [at], "utc": [at.replace(tzinfo=UTC)], "ok": [True]})
    frame.write_parquet(file)
    assert guess_columns(file, guess_files(file)) == {
        "n": {"type": "integer"},
        "x": {"type": "number"},
        "local": {"type": "timestamp", "time_zone": "UTC"},
        "utc": {"type": "timestamp"},
        "ok": {"type": "boolean"},
    }
