"""Reads files as rows: CSV as text, which the contract converts, Parquet and JSON lines with their own types."""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import polars as pl

from ml_platform.lake.sources.csv_reader import read_csv
from ml_platform.lake.sources.csv_records import MalformedCsv
from ml_platform.lake.sources.file_diagnosis import why_not_json_lines
from ml_platform.lake.sources.file_spec import FileFormat, Files
from ml_platform.lake.sources.parquet_reader import read_parquet
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.lake.sources.stored_files import opened

_BY_SUFFIX: dict[str, FileFormat] = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_VALUE = r"\s*([+-]?[\d.,]*\d|(true|false)$|$)"  # a number, a date, a truth value or nothing: no column's name


def read_source_file(spec: SourceSpec, path: Path | str) -> pl.DataFrame:
    """Read a file of a declared table; nullable columns that no JSON object has are null.

    Raises
    ------
    FileNotFoundError, ValueError
        See `read_file`.
    """
    files = spec.file or spec.folder or Files()
    rows = read_file(path, files)
    if file_format(path, files) == "csv" and files.header == "first_line" and files.names is None:
        _check_header(path, rows.columns, spec)
    rows = spec.take(rows)
    if file_format(path, files) != "jsonl" or not rows.columns:
        return rows
    columns = spec.schema_class().columns().items()
    # With one fraction in it, Polars reads a whole column as floats, which rounds large integers.
    rounded = [name for name, column in columns if column.dtype.is_integer() and rows.schema.get(name) == pl.Float64]
    if rounded:
        rows = spec.take(read_file(path, files, as_text=rounded))
    absent = {name: column.dtype for name, column in columns if column.nullable and name not in rows.columns}
    return rows.with_columns(pl.lit(None, dtype=dtype).alias(name) for name, dtype in absent.items())


def read_file(path: Path | str, files: Files | None = None, *, as_text: Sequence[str] = ()) -> pl.DataFrame:
    """Read a local file, or the object at a URI; an empty file has no columns, unless it is Parquet.

    Parameters
    ----------
    as_text
        Columns of JSON lines whose values, of whatever type, are read as texts.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the format is neither given nor known by the suffix, or the file is not of that format; with the line.
    """
    files = files or Files()
    absent = f"No file {path}. Put it there, or correct the path in the table's defs.yaml."
    if isinstance(path, Path) and not path.is_file():
        raise FileNotFoundError(absent)
    kind = file_format(path, files)
    try:
        if kind == "csv":
            return read_csv(path, files)
        if kind == "parquet":
            return read_parquet(path)
        texts = dict.fromkeys(as_text, pl.String)
        return pl.scan_ndjson(path, infer_schema_length=None, schema_overrides=texts).collect()
    except FileNotFoundError:
        raise FileNotFoundError(absent) from None
    except pl.exceptions.NoDataError:
        return pl.DataFrame()
    except (pl.exceptions.PolarsError, OSError, EOFError, MalformedCsv) as error:
        if kind == "jsonl" and not _content(path).strip():
            return pl.DataFrame()
        why = _why_not_json_lines(path) if kind == "jsonl" else None
        raise ValueError(f"{path} cannot be read as {kind}: {why or error}.") from error


def file_format(path: Path | str, files: Files) -> FileFormat:
    """Format of a file, as declared or by its suffix (raises ValueError if neither says it)."""
    # `.csv.gz` is a CSV file too: Polars unpacks it.
    suffixes = PurePosixPath(str(path).lower()).suffixes
    kind = files.format or next((_BY_SUFFIX[suffix] for suffix in reversed(suffixes) if suffix in _BY_SUFFIX), None)
    if kind is None:
        raise ValueError(f"{path}: the suffix does not tell the format; say format: csv, parquet or jsonl.")
    return kind


def _check_header(path: Path | str, header: Sequence[str], spec: SourceSpec) -> None:
    """Refuse a column without name, and a first line that is none of the contract's columns but looks like a row."""
    columns = spec.schema_class().columns()
    if "" in header and spec.unlisted == "reject":
        place = header.index("") + 1
        index = ", as an index is that pandas or R writes" if place == 1 else ""
        raise ValueError(
            f"{path} has no name for column {place} in its header{index}: say unlisted: drop to leave it out, or "
            "names: to name all columns."
        )
    if not columns.keys() & set(header) and any(re.match(_VALUE, text) for text in header):
        raise ValueError(
            f"{path} has no header: its first line is {', '.join(header)[:200]}, and '{spec.name}' has the columns "
            f"{', '.join(columns)}. If it is a row, say header: none and names: with the columns in the file's order."
        )


def _why_not_json_lines(path: Path | str) -> str | None:
    try:
        return why_not_json_lines(_content(path))
    except (OSError, EOFError) as error:
        return str(error)


def _content(path: Path | str) -> bytes:
    with opened(path) as file:
        return file.read()
