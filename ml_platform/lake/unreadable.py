"""Finds out what is wrong with a file, and in which line: after a reader has failed, or where it would not notice."""

import codecs
import csv
import io
import json
from collections.abc import Iterator

SEPARATORS = (";", "\t", "|")


def why_not_csv(content: bytes, encoding: str, separator: str) -> str | None:
    """Say what is wrong with a CSV file; None if it cannot be found.

    Examples
    --------
    >>> why_not_csv(b"id,v\\n1,2\\n3,4,5\\n", "utf-8", ",")
    "line 3 has 3 fields, the header has 2: put a value with ',' in quotes"
    >>> why_not_csv("id,v\\n1,Köln\\n".encode("latin-1"), "utf-8", ",")
    'line 2 is not in utf-8: say which encoding it is in, e.g. encoding: cp1252 (Western Windows) or utf-16'
    """
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return (
            f"line {line} is not in {encoding}: say which encoding it is in, e.g. encoding: cp1252 (Western Windows) "
            "or utf-16"
        )
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return _uneven(rows, separator) or _stray_quote(text)
    except csv.Error as error:
        return f"line {rows.line_num}: {error}"


def cut_off_line(content: bytes, encoding: str, separator: str, columns: int) -> str | None:
    """Say which line of a CSV file has too few fields, of which Polars makes nulls; None if none has.

    Examples
    --------
    >>> cut_off_line(b"id,v\\n1,2\\n3\\n", "utf-8", ",", 2)
    'line 3 has 1 field, the header has 2: the file may have been cut off'
    """
    text = content.decode(encoding)
    lines = text.count("\n") + (not text.endswith("\n"))
    # No line has too many fields, or Polars had refused it. So where each separator parts fields, their number will do.
    if '"' not in text and text.count(separator) == lines * (columns - 1):
        return None
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        short = next((row for row in rows if 0 < len(row) < columns), None)
    except csv.Error:  # a field of more than 128 KiB, which Polars can read
        return None
    if short is None:
        return None
    fields = "1 field" if len(short) == 1 else f"{len(short)} fields"
    return f"line {rows.line_num} has {fields}, the header has {columns}: the file may have been cut off"


def single_column(header: str) -> str | None:
    """Say that a header of one column probably has another separator; None if it does not."""
    found = next((separator for separator in SEPARATORS if separator in header), None)
    return found and f"it has one column, '{header}': say separator: {json.dumps(found)} if that parts its columns"


def why_not_json_lines(content: bytes) -> str | None:
    """Say which line is not a JSON object; None if it cannot be found.

    Examples
    --------
    >>> why_not_json_lines(b'{"id": 1}\\n[2]\\n')
    'line 2 is no JSON object: [2]'
    """
    if content.startswith(codecs.BOM_UTF8):
        return "it begins with a byte order mark: write it as UTF-8 without one"
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                raise ValueError
        except ValueError:
            return f"line {number} is no JSON object: {line[:80].decode(errors='replace')}"
    return None


def _uneven(rows: Iterator[list[str]], separator: str) -> str | None:
    header = next(rows, [])
    if len(header) == 1 and (hint := single_column(header[0])):
        return hint
    for row in rows:
        if len(row) > len(header):
            number = rows.line_num  # type: ignore[attr-defined]  # a csv.reader's
            return (
                f"line {number} has {len(row)} fields, the header has {len(header)}: put a value with "
                f"{separator!r} in quotes"
            )
    return None


def _stray_quote(text: str) -> str | None:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.count('"') % 2:
            return f'line {number} has a quote by itself: write it twice, and the value in quotes ("5"" pipe")'
    return None
