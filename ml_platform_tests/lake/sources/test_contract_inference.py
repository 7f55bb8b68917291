"""What is guessed of a file: how it is written, and a contract that its own rows hold."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.lake.sources.contract_inference import columns_of, guess_columns
from ml_platform.lake.sources.dialect_inference import guess_files
from ml_platform.lake.sources.file_spec import Files
from ml_platform.lake.sources.inference_notes import notes_of


def test_a_contract_is_guessed_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(
        "id,day,at,price,open,note,zip\n"
        "1,2024-01-01,2024-01-01T10:00Z,1.5,True,,01234\n"
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


def guessed(folder: Path, values: list[str]) -> dict[str, Any]:
    """What is guessed of a column of texts."""
    pl.DataFrame({"x": values, "y": "z"}).write_csv(folder / "x.csv", separator=";", quote_style="necessary")
    assert guess_files(folder / "x.csv") == Files(separator=";")
    return guess_columns(folder / "x.csv", Files(separator=";"))["x"]


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (["1.234,5", "2,5"], {"type": "number", "format": "1.234,5"}),
        (["1,234,567", "2,000,000"], {"type": "integer", "format": "1,234.5"}),
        (["1'234", "999"], {"type": "integer", "format": "1'234.5"}),
        (["31.12.2024", "01.02.2024"], {"type": "date", "format": "%d.%m.%Y"}),
        (["31.12.2024", "1.2.2024"], {"type": "date", "format": "%d.%m.%Y"}),
        (["12/31/2024 10:00", "01/02/2024 11:00"], {"type": "timestamp", "format": "%m/%d/%Y %H:%M"}),
        (["0.5", "-2", "1e-05", "0.30000000000000004"], {"type": "number"}),
        (["0.125", "0.250"] * 10, {"type": "number"}),  # three decimals each
        (["2024-01-05 10:00:00.250", "2024-01-05"], {"type": "timestamp"}),
        (["12.5-", "3.0"], {"type": "number", "format": "1,234.5"}),
        (["  1.234,50-", "      3,00 "], {"type": "number", "format": "1.234,5"}),
        (["-5", "0", "9223372036854775807"], {"type": "integer"}),
    ],
)
def test_other_ways_to_write_are_guessed_where_they_are_clear(
    tmp_path: Path, values: list[str], column: dict[str, str]
) -> None:
    assert guessed(tmp_path, values) == column


MEASURED = [f"{number / 7:.{3 + number % 3}f}" for number in range(1, 60) if number % 7]


@pytest.mark.parametrize(
    "values",
    [
        ["0.13", "0.00005", "0.761"],  # as Polars and JavaScript write it
        ["-0.00007064560505993339", "0.5"],
        ["1.5E-05", "2.25E-04", "3.0e+02"],  # as Excel, Java and SQL Server do
        [*MEASURED, "1e12"],
        [*MEASURED, "5e-5", ".5", "+3.0", "1.50", "7."],
        [*MEASURED, "12"],
    ],
)
def test_numbers_are_numbers_however_programs_write_them(tmp_path: Path, values: list[str]) -> None:
    assert guessed(tmp_path, values) == {"type": "number"}


@pytest.mark.parametrize("odd", ["007", "12e4567", "89014103211118510720.5", "1_000", "0x1F"])
def test_measurements_make_no_number_of_a_code(tmp_path: Path, odd: str) -> None:
    assert guessed(tmp_path, [*MEASURED, odd]) == {"type": "string"}


def test_infinite_values_are_missing_ones_among_numbers(tmp_path: Path) -> None:
    column = {"type": "number", "nullable": True, "null_values": ["NaN", "inf", "-inf"]}
    assert guessed(tmp_path, [*MEASURED, "inf", "NaN", "-inf"]) == column


def test_versions_are_texts_however_many_there_are(tmp_path: Path) -> None:
    assert guessed(tmp_path, [f"3.{number}" for number in range(40)]) == {"type": "string"}


def test_alike_columns_are_told_in_one_sentence_with_what_speaks_against_a_number() -> None:
    rows = pl.DataFrame({f"x{number}": ["0.5", "1.25", "007"] for number in range(30)})
    (note,) = notes_of(rows, columns_of(rows))
    assert note.startswith("Columns x0, x1, x2, x3, x4 and 25 more look like numbers")
    assert note.endswith("Found: '007'")


@pytest.mark.parametrize(
    "values",
    [
        ["1", "x"],
        ["100-", "200-"],  # codes
        ["1.5-", "100-"],
        ["12,500-", "3,000"],
        ["89014103211118510720", "89014103211118510721"],  # more digits than an integer or a float has
        ["9223372036854775808"],
        ["1E5", "2E5"],  # article numbers
        ["12e4567", "98e1234"],  # hashes
        ["12e45", "98e12"],
        ["1.10", "1.9"],  # versions
        ["1.10", "1.20"],
        ["007", "10"],
        ["0", "-0007"],
        ["+4930123", "+4930124"],
        ["1,250", "2,000"],  # a thousand or one and a quarter?
        ["1.250", "3.500"] * 20,
        ["01/02/2024", "03/04/2024"],  # day or month first?
        ["01/01/2024", "02/02/2024"],
        ["31.12.24"],
        ["[1, 2]", "[3]"],
        ["10:30", "11:45"],
        ["1 day", "2 days"],
        ["2024-01-05T10:00:00.123456789Z"],  # nanoseconds
        ["TRUE", "False"],
        ["nan", "inf"],
        ["0x1F", "1_000"],
        ["NA", "DE"],
        [" 1", "2"],
    ],
)
def test_what_a_type_would_change_stays_a_text(tmp_path: Path, values: list[str]) -> None:
    assert guessed(tmp_path, values) == {"type": "string"}


@pytest.mark.parametrize(
    ("values", "column"),
    [
        (["1", " ", "2.5"], {"type": "number", "nullable": True, "null_values": [" "]}),
        (["2024-01-01", "NULL", "-"], {"type": "date", "nullable": True, "null_values": ["-", "NULL"]}),
        (["1", "None", "2"], {"type": "integer", "nullable": True, "null_values": ["None"]}),
        (["3", "NA", "2"], {"type": "integer", "nullable": True, "null_values": ["NA"]}),
        (["a", "-", "b"], {"type": "string"}),
    ],
)
def test_texts_that_mean_a_missing_value_are_guessed_of_one_column(
    tmp_path: Path, values: list[str], column: dict[str, Any]
) -> None:
    file = tmp_path / "x.csv"
    pl.DataFrame({"x": values, "service": ["None", "Fiber", "-"], "country": ["DE", "NA", "ZA"]}).write_csv(file)
    assert guess_files(file) == Files()
    assert guess_columns(file) == {"x": column, "service": {"type": "string"}, "country": {"type": "string"}}


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("1,2024-01-01,x\n2,2024-01-02,y\n", {"header": "none", "names": ["column_1", "column_2", "column_3"]}),
        ("1,1\n0,1\n", {"header": "none", "names": ["column_1", "column_2"]}),
        ("country,2019,2020\nDE,12.5,13.5\n", {}),
        ("country,city\nDE,Köln\n", {}),
        ("a,b,\n1,2,\n", {"trailing_separator": True}),
        ("a,b\n1,2,\n", {"trailing_separator": True}),
        ('a, b\n1, "x, y"\n', {"trim": True}),
        ('a,b\n1,"x \\" y"\n', {"escape": "\\"}),
        ('a,b\n1,"C:\\tmp\\"\n', {}),
        ("sep=|\na|b\n1|2\n", {"separator": "|"}),
        ("a,b\r1,2\r", {}),
    ],
)
def test_a_dialect_is_guessed_if_it_reads_the_whole_file(tmp_path: Path, text: str, files: dict[str, Any]) -> None:
    (tmp_path / "x.csv").write_text(text, newline="")
    assert guess_files(tmp_path / "x.csv") == Files.model_validate(files)


def test_a_file_that_no_dialect_reads_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('a,b\n1,2\n3,5" pipe\n')
    with pytest.raises(ValueError, match=r"x.csv cannot be read as csv: line 3 has a quote within a value"):
        guess_files(tmp_path / "x.csv")


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


def test_typed_columns_that_no_type_keeps_are_left_out(tmp_path: Path) -> None:
    typed = {
        "tags": pl.Series([["a"]]),
        "clock": pl.Series([time(10, 30)]),
        "took": pl.Series([timedelta(seconds=1)]),
        "raw": pl.Series([b"x"]),
        "large": pl.Series([2**64 - 1], dtype=pl.UInt64),
        "exact": pl.Series([Decimal("0.12345678901234567890")]),
        "price": pl.Series([Decimal("1.99")]),
        "nanos": pl.Series([1], dtype=pl.Datetime("ns")),
        "kind": pl.Series(["a"], dtype=pl.Categorical),
    }
    pl.DataFrame(typed).write_parquet(tmp_path / "x.parquet")
    assert guess_columns(tmp_path / "x.parquet") == {"price": {"type": "number"}, "kind": {"type": "string"}}
