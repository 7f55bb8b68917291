"""Guesses a contract from a file, for a person to review: how the file is written, its columns and their types.

A type is guessed only if it loses nothing: every value of the column, written back, gives the same text, and no other
way to read it fits. All else is a string: ids of twenty digits, codes like 1E5 or 007, versions like 1.10, and 1,250,
which could be a thousand or one and a quarter.
"""

import codecs
import math
import re
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.lake.csv_reader import read_csv, read_start
from ml_platform.lake.csv_records import MalformedCsv
from ml_platform.lake.csv_structure import SEPARATORS
from ml_platform.lake.file_spec import Files
from ml_platform.lake.readers import file_format, read_file
from ml_platform.lake.source_spec import ColumnSpec
from ml_platform.lake.values import NUMBERS, typed

_MISSING = (" ", "-", "--", ".", "?", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "None", "none", "NaN", "nan")
_FIRST_LOOK = 1000  # rows; most guesses fail there
_ENOUGH = 20  # values with as many decimals each; fewer could be versions (1.10) as well as prices (unlike 1,10)
_YEAR = r"(?:19|20)\d\d"
_TYPES: list[dict[str, Any]] = [{"type": name} for name in ("integer", "number", "date", "timestamp", "boolean")]
_DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_WRITTEN: list[dict[str, Any]] = [
    *({"type": name, "format": form} for name in ("integer", "number") for form in NUMBERS),
    *({"type": "timestamp" if clock else "date", "format": day + clock} for clock in _CLOCKS for day in _DAYS),
]
_VARIANTS: tuple[dict[str, Any], ...] = ({}, {"trailing_separator": True}, {"trim": True}, {"escape": "\\"})


def guess_files(path: Path | str) -> Files:
    """Guess how a CSV file is written: its encoding, separator, header, and what else its reader must know.

    Raises
    ------
    ValueError
        If no such way reads the file; with the line that the likeliest one cannot read.
    """
    if file_format(path, Files()) != "csv":
        return Files()
    encoding, text = _decoded(read_start(path))
    first = re.split("[\r\n]", text.lstrip("\ufeff"), maxsplit=1)[0]
    said = re.fullmatch('"?sep=(.)"?', first, re.IGNORECASE)
    plain = Files(encoding=encoding, separator=said.group(1) if said else max(SEPARATORS, key=first.count))
    files, lines = _first_that_reads(path, plain)
    if lines.is_empty():
        return files
    first = lines.row(0)
    seen = {
        "trim": any(name != name.strip() for name in first if name),
        "trailing_separator": len(first) > 1 and lines.to_series(-1).null_count() == lines.height,
    }
    if any(seen.values()) and not files.trim:
        files = files.model_copy(update=seen)
        lines = _lines(path, files)
    if _is_data(lines.row(0), lines[1:]):
        return files.model_copy(update={"header": "none", "names": tuple(lines.columns)})
    return files


def guess_columns(path: Path | str, files: Files | None = None) -> dict[str, dict[str, Any]]:
    """Guess the columns of a file as a `SourceTable` lists them: types, formats, and which may be missing.

    Columns without a name, or that no type of a `SourceTable` can hold (lists, times, durations, …), are left out.
    """
    return columns_of(read_file(path, files))


def columns_of(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Guess columns as `guess_columns` does, from rows that were read."""
    guessed = {
        name: _read_texts(values) if values.dtype == pl.String else _typed_as(values)
        for name, values in zip(rows.columns, rows.iter_columns(), strict=True)
    }
    return {name: column for name, column in guessed.items() if name and column is not None}


def _decoded(start: bytes) -> tuple[str, str]:
    """Guess the encoding of a file's first bytes, and decode them."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16", start[: len(start) // 2 * 2].decode("utf-16", errors="replace")
    try:
        return "utf-8", codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return "cp1252", start.decode("cp1252", errors="replace")


def _first_that_reads(path: Path | str, plain: Files) -> tuple[Files, pl.DataFrame]:
    problems = []
    for variant in _VARIANTS:
        files = plain.model_copy(update=variant)
        try:
            return files, _lines(path, files)
        except MalformedCsv as error:
            problems.append(error)
    raise ValueError(f"{path} cannot be read as csv: {problems[0]}.") from problems[0]


def _lines(path: Path | str, files: Files) -> pl.DataFrame:
    """Read all records of a file, its header being one of them."""
    return read_csv(path, files.model_copy(update={"header": "none"}))


def _is_data(first: tuple[str | None, ...], below: pl.DataFrame) -> bool:
    """Whether the first line looks like a row: where the rows below have numbers or dates, it has one too."""
    is_data = False
    for text, values in zip(first, below.iter_columns(), strict=True):
        kind = _read_texts(values)["type"]
        if kind == "string" or text is None:
            continue
        may_be_year = re.fullmatch(_YEAR, text) and not values.str.contains(f"^{_YEAR}$").all()  # "country,2019,2020"
        if may_be_year or _read_texts(pl.concat([values, pl.Series([text])]))["type"] == "string":
            return False
        is_data = True
    return is_data


def _read_texts(texts: pl.Series) -> dict[str, Any]:
    """Guess what texts are; those that mean a missing value are named only where the others are no texts."""
    missing = {"nullable": True} if texts.null_count() else {}
    column = _guessed(texts.drop_nulls())
    marks = [mark for mark in _MISSING if (texts == mark).any()] if column["type"] == "string" else []
    if marks and (marked := _guessed(texts.filter(~texts.is_in(marks)).drop_nulls()))["type"] != "string":
        return marked | {"nullable": True, "null_values": marks}
    return column | missing


def _guessed(known: pl.Series) -> dict[str, Any]:
    """Guess the type, and the format, of texts of which none is missing."""
    as_text = {"type": "string"}
    if known.is_empty():
        return as_text
    rows = known.alias("x").to_frame()
    plain = next((column for column in _TYPES if _keeps_all(rows, column)), None)
    if plain is not None and plain["type"] not in ("integer", "number"):
        return plain
    fitting = [column for column in (plain, *_WRITTEN) if column is not None and _keeps_all(rows, column)]
    rivals = [column for column in (*_TYPES[:2], *_WRITTEN) if _reads_all(rows, column)]
    if not fitting:
        return as_text
    if fitting[0]["type"] in ("date", "timestamp"):
        return fitting[0] if len(rivals) == 1 else as_text  # day and month could be either way around
    read = _read(rows, fitting[0]).cast(pl.Float64)
    alike = (_read(rows, column).cast(pl.Float64).equals(read) for column in rivals)
    return fitting[0] if all(alike) else as_text


def _read(rows: pl.DataFrame, column: dict[str, Any]) -> pl.Series:
    built = ColumnSpec.model_validate(column).build()
    return rows.select(typed("x", pl.String(), built.dtype, built.metadata or {})).to_series()


def _keeps_all(rows: pl.DataFrame, column: dict[str, Any]) -> bool:
    """Whether every text is read as this type, and written back as the same text."""
    return all(
        _reads_all(some, column) and _writes_back(some["x"], _read(some, column), column)
        for some in (rows.head(_FIRST_LOOK), rows)
    )


def _reads_all(rows: pl.DataFrame, column: dict[str, Any]) -> bool:
    """Whether every text could be meant as this type: nobody writes 0.123 for 123."""
    if any(_read(some, column).null_count() for some in (rows.head(_FIRST_LOOK), rows)):
        return False
    groups, _ = NUMBERS.get(column.get("format", ""), ("", ""))
    return not groups or not rows["x"].str.contains(rf"^[+-]?0+[{groups}]").any()


def _writes_back(texts: pl.Series, read: pl.Series, column: dict[str, Any]) -> bool:
    form = column.get("format")
    if (texts != texts.str.strip_chars()).any():
        return False
    if column["type"] == "boolean":
        return set(texts.unique()) <= {"true", "false"} or set(texts.unique()) <= {"True", "False"}
    if column["type"] in ("integer", "number"):
        return _numbers_write_back(texts, *(NUMBERS[form] if form else ("", ".")), whole=column["type"] == "integer")
    if form is not None:
        ways = {form, form.replace("%d", "%-d").replace("%m", "%-m")}
        return any((read.dt.to_string(way) == texts).all() for way in ways)
    if column["type"] == "date":
        return bool((read.dt.to_string("%Y-%m-%d") == texts).all())
    return not texts.str.contains(r"\.\d{6}\d*[1-9]").any()  # nanoseconds would be cut off


def _numbers_write_back(texts: pl.Series, groups: str, point: str, *, whole: bool) -> bool:
    written = texts.unique()
    is_marked = point != "." or (groups != "" and written.str.contains(f"[{groups}]").any())
    for group in groups:
        written = written.str.replace_all(group, "", literal=True)
    written = written.str.replace(point, ".", literal=True)
    if whole:
        return bool(written.str.contains(r"^(0|-?[1-9]\d*)$").all())
    decimals = set(written.str.extract(r"\.(\d+)$").str.len_chars().fill_null(0))
    fixed = (
        decimals.pop() if len(decimals) == 1 and 0 not in decimals and (is_marked or len(texts) >= _ENOUGH) else None
    )
    return all(_number_writes_back(text, fixed) for text in written)


def _number_writes_back(text: str, fixed: int | None) -> bool:
    value = float(text)
    if not math.isfinite(value):
        return False
    ways = {repr(value), repr(value).removesuffix(".0"), *(f"{value:.{digits}g}" for digits in (15, 16, 17))}
    return text in ways or (fixed is not None and f"{value:.{fixed}f}" == text)


def _typed_as(values: pl.Series) -> dict[str, Any] | None:
    """Guess the type of typed values; None if there is none that keeps them."""
    dtype, missing = values.dtype, {"nullable": True} if values.null_count() else {}
    if isinstance(dtype, pl.Datetime):
        if dtype.time_unit == "ns" and (values.dt.nanosecond() % 1000 != 0).any():
            return None
        return {"type": "timestamp"} | ({} if dtype.time_zone else {"time_zone": "UTC"}) | missing
    if dtype.is_integer() and values.cast(pl.Int64, strict=False).null_count() == values.null_count():
        return {"type": "integer"} | missing
    if dtype.is_float() or (dtype.is_decimal() and values.cast(pl.Float64).cast(dtype, strict=False).equals(values)):
        return {"type": "number"} | missing
    kinds = {pl.Boolean: "boolean", pl.Date: "date", pl.Categorical: "string", pl.Enum: "string", pl.Null: "string"}
    kind = kinds.get(type(dtype))
    return None if kind is None else {"type": kind} | missing
