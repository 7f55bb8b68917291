"""Rows of the files of a folder as JSON objects: lines of JSON and of CSV that are complete, and Parquet files."""

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from ml_platform.streams.protocols import StreamMisfit

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_WORDS = {"": "null", "true": "true", "false": "false", "True": "true", "False": "false"}
_PIECE = 4 * 2**20  # bytes that are read at a time
_LONGEST_LINE = 64 * 2**20
PARQUET_ROWS = 10_000  # of one segment


def complete_lines(path: Path, start: int, *, settled: bool, is_csv: bool) -> bytes:
    """Read from a place on, some megabytes at most, up to the last line that is complete.

    Parameters
    ----------
    settled
        Whether the last line counts without an end of line.
    is_csv
        Whether an end of line within quotes ends no line.

    Raises
    ------
    StreamMisfit
        When a line has more than 64 MiB.
    """
    size = _PIECE
    while True:
        with open(path, "rb") as file:
            file.seek(start)
            content = file.read(size)
        end = _last_end(content, is_csv=is_csv)
        if end:
            return content[:end]
        if len(content) < size:
            return content if settled else b""
        if size >= _LONGEST_LINE:
            raise StreamMisfit(f"{path}: no end of line in {size:,} bytes from byte {start} on: it is no file of lines")
        size *= 4


def _last_end(content: bytes, *, is_csv: bool) -> int:
    """Behind the last end of line that ends a record; 0 when there is none."""
    end = content.rfind(b"\n") + 1
    while is_csv and end and content.count(b'"', 0, end) % 2:  # within quotes
        end = content.rfind(b"\n", 0, end - 1) + 1
    return end


def json_rows(content: bytes) -> list[bytes]:
    """The lines that are not empty."""
    return [line.strip() for line in content.split(b"\n") if line.strip()]


def csv_rows(content: bytes, header: str, texts: Sequence[str]) -> list[bytes]:
    """Records as JSON objects; what looks like a number, true or false is one, and what is empty is null.

    Parameters
    ----------
    header
        First line of the file.
    texts
        Columns whose values are texts all the same.

    Examples
    --------
    >>> csv_rows(b'7,"a, b",,01\\n', "id,name,age,zip", ())
    [b'{"id": 7, "name": "a, b", "age": null, "zip": "01"}']
    """
    delimiter = max(",;\t", key=header.count)
    columns = next(csv.reader([header], delimiter=delimiter))
    names, kept = [json.dumps(name, ensure_ascii=False) for name in columns], set(texts)
    as_text = [name in kept for name in columns]
    rows = []
    for record in csv.reader(io.StringIO(content.decode("utf-8", "surrogateescape"), newline=""), delimiter=delimiter):
        if not record:
            continue
        if len(record) != len(names):  # no object: the reader of messages says that it is broken, and keeps it
            rows.append(delimiter.join(record).encode("utf-8", "surrogateescape"))
            continue
        values = [_json(value, is_text) for value, is_text in zip(record, as_text, strict=True)]
        rows.append(
            ("{" + ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True)) + "}").encode(
                "utf-8", "surrogateescape"
            )
        )
    return rows


def _json(value: str, is_text: bool) -> str:
    if not is_text:
        if (word := _WORDS.get(value)) is not None:
            return word
        if _NUMBER.fullmatch(value):
            return value
    return json.dumps(value, ensure_ascii=False)


def parquet_height(path: Path) -> int | None:
    """Rows of a Parquet file; None where it is not whole, or none."""
    import pyarrow
    import pyarrow.parquet

    try:
        return int(pyarrow.parquet.read_metadata(path).num_rows)
    except (OSError, pyarrow.ArrowInvalid):
        return None


def parquet_rows(path: Path, start: int, end: int) -> list[bytes]:
    """Rows of a Parquet file as JSON objects."""
    import polars as pl

    from ml_platform.streams.table_source import json_lines

    rows = pl.scan_parquet(path, glob=False).slice(start, end - start).collect()
    return json_lines(rows, rows.columns)
