"""Guesses a contract from a file, for a person to review: how the file is written, its columns and their types."""

from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.lake.readers import file_bytes, file_format, read_file
from ml_platform.lake.source_spec import ColumnSpec, Files
from ml_platform.lake.unreadable import SEPARATORS
from ml_platform.lake.values import NUMBERS, typed

_MISSING = (" ", "-", "--", ".", "?", "N/A", "n/a", "#N/A", "NULL", "null", "None", "none", "NaN", "nan")
_FIRST_LOOK = 1000  # rows; most guesses fail there
_TYPES: list[dict[str, Any]] = [{"type": name} for name in ("integer", "number", "date", "timestamp", "boolean")]
_DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_WRITTEN: list[dict[str, Any]] = [
    *({"type": name, "format": form} for name in ("integer", "number") for form in NUMBERS),
    *({"type": "timestamp" if clock else "date", "format": day + clock} for clock in _CLOCKS for day in _DAYS),
]


def guess_files(path: Path | str) -> Files:
    """Guess how a CSV file is written: its encoding, its separator, and which texts mean a missing value."""
    if file_format(path, Files()) != "csv":
        return Files()
    content = file_bytes(path)
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        encoding, text = "cp1252", content.decode("cp1252", errors="replace")
    header = text.partition("\n")[0]
    files = Files(encoding=encoding, separator=max((",", *SEPARATORS), key=header.count))
    missing = _missing_in(read_file(path, files))
    return files.model_copy(update={"null_values": (*files.null_values, *missing)}) if missing else files


def guess_columns(path: Path | str, files: Files | None = None) -> dict[str, dict[str, Any]]:
    """Guess the columns of a file as a `SourceTable` lists them: types, formats, and which may be missing."""
    rows = read_file(path, files)
    return {
        name: (_read_as(rows[name]) if dtype == pl.String else _typed_as(dtype))
        | ({"nullable": True} if rows[name].null_count() else {})
        for name, dtype in rows.schema.items()
    }


def _missing_in(rows: pl.DataFrame) -> list[str]:
    """Find texts that keep a column from being read as numbers, dates and the like, and are no value of another."""
    missing: set[str] = set()
    values: set[str] = set()
    for texts in rows.iter_columns():
        is_marked = texts.is_in(_MISSING)
        marks = texts.filter(is_marked).unique().to_list()
        if marks and _read_as(texts)["type"] == "string":
            known = texts.filter(~is_marked)
            (values if _read_as(known)["type"] == "string" else missing).update(marks)
    return [mark for mark in _MISSING if mark in missing - values]


def _read_as(texts: pl.Series) -> dict[str, Any]:
    known = texts.drop_nulls().alias("x").to_frame()
    # A leading zero marks a code, such as a post code, not a number.
    if known.is_empty() or known["x"].str.contains(r"^\s*[+-]?0\d+$").any():
        return {"type": "string"}
    plain = next((column for column in _TYPES if _reads_all(known, column)), None)
    if plain is not None:
        return plain
    fitting = [column for column in _WRITTEN if _reads_all(known, column)]
    if len({column["type"] for column in fitting}) == 1 and fitting[0]["type"] in ("date", "timestamp"):
        return fitting[0] if len(fitting) == 1 else {"type": "string"}  # day and month could be either way around
    return fitting[0] if fitting else {"type": "string"}


def _reads_all(known: pl.DataFrame, column: dict[str, Any]) -> bool:
    built = ColumnSpec.model_validate(column).build()
    read = typed("x", pl.String(), built.dtype, built.metadata or {}).is_not_null().all()
    return known.head(_FIRST_LOOK).select(read).item() and known.select(read).item()


def _typed_as(dtype: pl.DataType) -> dict[str, Any]:
    if isinstance(dtype, pl.Datetime):
        return {"type": "timestamp"} | ({} if dtype.time_zone else {"time_zone": "UTC"})
    if dtype.is_numeric():
        return {"type": "integer" if dtype.is_integer() else "number"}
    return {"type": {pl.Boolean: "boolean", pl.Date: "date"}.get(type(dtype), "string")}
