"""Guesses a contract from rows, for a person to review: their columns and the columns' types.

A type is guessed only if it loses nothing: every value of the column, written back, gives the same text, and no other
way to read it fits. All else is a string: ids of twenty digits, codes like 1E5 or 007, versions like 1.10, and 1,250,
which could be a thousand or one and a quarter. Beside many numbers of three or more decimals, which are measurements
and neither codes nor versions, a number may be written in any way that keeps its value: 1.50, .5, 1e12.
"""

import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from ml_platform.lake.contracts.conversion import NUMBERS, typed
from ml_platform.lake.names import is_selector
from ml_platform.lake.sources.file_readers import read_file
from ml_platform.lake.sources.file_spec import Files
from ml_platform.lake.sources.source_spec import ColumnSpec

_MISSING = (" ", "-", "--", ".", "?", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "None", "none", "NaN", "nan")
_INFINITE = ("inf", "-inf", "Inf", "-Inf", "Infinity", "-Infinity")  # a model takes them for missing, too
_FAILED = ("#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!")  # errors of Excel's formulas
_FIRST_LOOK = 1000  # rows; most guesses fail there
_ENOUGH = 20  # values with as many decimals each; fewer could be versions (1.10) as well as prices (unlike 1,10)
_DIGITS = 15  # that a 64-bit float keeps of any number
_SCIENTIFIC = re.compile(r"-?\d\.\d+[eE][+-]?\d+")  # with a point in it: no code
_ANY_NUMBER = re.compile(r"[+-]?(?!0\d)(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_TYPES: list[dict[str, Any]] = [{"type": name} for name in ("integer", "number", "date", "timestamp", "boolean")]
_DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_TEXT: dict[str, Any] = {"type": "string"}
_CLOCKS = ("", " %H:%M", " %H:%M:%S")
_WRITTEN: list[dict[str, Any]] = [
    *({"type": name, "format": form} for name in ("integer", "number") for form in NUMBERS),
    *({"type": "timestamp" if clock else "date", "format": day + clock} for clock in _CLOCKS for day in _DAYS),
]


def guess_columns(path: Path | str, files: Files | None = None) -> dict[str, dict[str, Any]]:
    """Guess the columns of a file as a `SourceTable` lists them: types, formats, and which may be missing.

    Columns are left out that have no name, one that means several columns (`*`), or values that no type of a
    `SourceTable` can hold (lists, times, durations, …).
    """
    return columns_of(read_file(path, files))


def columns_of(rows: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Guess columns as `guess_columns` does, from rows that were read."""
    guessed = {
        name: read_texts(values) if values.dtype == pl.String else _typed_as(values)
        for name, values in zip(rows.columns, rows.iter_columns(), strict=True)
    }
    return {name: column for name, column in guessed.items() if name and not is_selector(name) and column is not None}


def read_texts(texts: pl.Series) -> dict[str, Any]:
    """Guess what texts are; those that mean a missing value are named only where the others are no texts."""
    missing = {"nullable": True} if texts.null_count() else {}
    if texts.str.len_chars().drop_nulls().n_unique() == 1:  # right-aligned by blanks, which no type but string keeps
        texts = texts.str.strip_chars(" ") if _guessed(texts.drop_nulls().str.strip_chars(" ")) != _TEXT else texts
    column = _guessed(texts.drop_nulls())
    is_text = column["type"] == "string"
    marks = [mark for mark in (*_MISSING, *_INFINITE, *_FAILED) if (texts == mark).any()] if is_text else []
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
    if plain is not None and plain["type"] != "number":
        return plain  # digits alone are the same number in every format
    written = _possible(known)
    fitting = [column for column in written if _keeps_all(rows, column)]
    fitting = fitting if plain is None else [plain, *fitting]
    rivals = [column for column in (*_TYPES[:2], *written) if _reads_all(rows, column)]
    if not fitting:
        return as_text
    if fitting[0]["type"] in ("date", "timestamp"):
        return fitting[0] if len(rivals) == 1 else as_text  # day and month could be either way around
    read = _read(rows, fitting[0]).cast(pl.Float64)
    alike = (_read(rows, column).cast(pl.Float64).equals(read) for column in rivals)
    return fitting[0] if all(alike) else as_text


def _possible(texts: pl.Series) -> list[dict[str, Any]]:
    """The ways of `_WRITTEN` whose signs occur in some text; no other is meant, and to try one takes a while."""
    signs = sorted({sign for column in _WRITTEN for sign in _signs(column)})
    present = {sign for sign in signs if texts.str.contains(sign, literal=True).any()}
    return [
        column
        for column in _WRITTEN
        if (present >= _signs(column) if "%" in column["format"] else present & _signs(column))
    ]


def _signs(column: dict[str, Any]) -> set[str]:
    """What stands between the digits: all of a date's, any of a number's."""
    form = column["format"]
    return set(re.sub(r"%.", "", form)) if "%" in form else set("".join(NUMBERS[form]))


def read_numbers(texts: pl.Series, column: dict[str, Any]) -> pl.Series:
    """Read texts as a guessed column of numbers; null where a text is none."""
    declared = {key: value for key, value in column.items() if key in ("type", "format")}
    return _read(texts.str.strip_chars(" ").alias("x").to_frame(), declared).cast(pl.Float64)


def _read(rows: pl.DataFrame, column: dict[str, Any]) -> pl.Series:
    built = ColumnSpec.model_validate(column).build()
    return rows.select(typed("x", pl.String(), built.dtype, built.metadata or {})).to_series()


def _keeps_all(rows: pl.DataFrame, column: dict[str, Any]) -> bool:
    """Whether every text is read as this type, and written back as the same text."""
    return all(
        (read := _read_whole(some, column)) is not None and _writes_back(some["x"], read, column)
        for some in (rows.head(_FIRST_LOOK), rows)
    )


def _reads_all(rows: pl.DataFrame, column: dict[str, Any]) -> bool:
    """Whether every text could be meant as this type."""
    return all(_read_whole(some, column) is not None for some in (rows.head(_FIRST_LOOK), rows))


def _read_whole(rows: pl.DataFrame, column: dict[str, Any]) -> pl.Series | None:
    """Read texts as a type that every one of them could be meant as, else None: nobody writes 0.123 for 123."""
    read = _read(rows, column)
    groups, _ = NUMBERS.get(column.get("format", ""), ("", ""))
    if read.null_count() or (groups and rows["x"].str.contains(rf"^[+-]?0+[{groups}]").any()):
        return None
    return read


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
    if written.str.contains(r"^\d.*-$").any():  # codes may end so too, but hardly with a point in each
        if whole or not written.str.contains(point, literal=True).all():
            return False
        written = written.str.replace(r"^(\d.*)-$", "-$1")
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
    odd = [text for text in written if not writes_number(text, fixed)]
    if not odd:
        return True
    measured = int(written.str.contains(r"^-?\d+\.\d{3,}$").sum()) - len(odd) >= _ENOUGH
    return measured and all(_keeps_value(text, _ANY_NUMBER) for text in odd)


def writes_number(text: str, decimals: int | None = None) -> bool:
    """Whether a text is how a program writes a number, of as many decimals if that is given; `1.10` is not."""
    value = _number(text)
    if value is None:
        return False
    short = repr(value)
    if text in (short, short.removesuffix(".0")) or (decimals is not None and f"{value:.{decimals}f}" == text):
        return True
    if any(text == f"{value:.{digits}g}" for digits in (15, 16, 17)):
        return True
    return text == f"{Decimal(short):f}" or _keeps_value(text, _SCIENTIFIC)


def _keeps_value(text: str, form: re.Pattern[str]) -> bool:
    """Whether a text of this form is a finite number of no more digits than a float keeps."""
    if form.fullmatch(text) is None or _number(text) is None:
        return False
    return len(Decimal(text).normalize().as_tuple().digits) <= _DIGITS or writes_number(text.lstrip("+"))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


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
