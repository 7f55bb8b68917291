"""Reads CSV files as columns of texts, exactly: every row that a file holds, or an error with the line.

Records are cut and checked by `csv_records`, a block at a time, and read by Polars, whose rows are counted against
them. So what two independent parsers do not read alike is refused, and a file is never held in memory as a whole.
"""

import codecs
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import polars as pl

from ml_platform.lake.sources.csv_records import Block, MalformedCsv, cut_into_blocks
from ml_platform.lake.sources.file_contents import FEW, encoding_of, what_else
from ml_platform.lake.sources.file_spec import Files
from ml_platform.lake.sources.stored_files import opened

CHUNK = 16 * 1024 * 1024  # bytes read at once
_COMMON = {"cp1252": "Western Windows", "cp850": "Western DOS", "utf-16": "Excel's Unicode text"}
_SHOWN = 80  # characters of a name in a message
_LEAST = 2  # columns; in one, a value may well be the same as its name


def read_csv(path: Path | str, files: Files) -> pl.DataFrame:
    """Read a local CSV file, or the object at a URI, gzipped or not; a file of no rows and no header has no columns.

    Raises
    ------
    MalformedCsv
        If the file is not in the declared dialect, or could be read in two ways; with the line.
    OSError, EOFError
        If the file cannot be opened or unpacked.
    """
    return pl.concat(csv_frames(path, files))


def csv_frames(path: Path | str, files: Files) -> Iterator[pl.DataFrame]:
    """Yield the rows of `read_csv` block by block, one frame at least, while the file is read."""
    names: list[str] = []
    text, read = _without_last_lines(_in_utf8(path, files), files), 0
    header: tuple[str | None, ...] = ()
    for number, block in enumerate(cut_into_blocks(text, files)):
        names = names or _names(block, files)
        above = 1 if not number and files.header == "first_line" else 0
        frame = _parse(block.text, names, files)
        if frame.height != block.rows:
            raise MalformedCsv(
                f"its lines from {block.line} on are {block.rows} rows, of which Polars makes {frame.height}: please "
                "report this, with the file's dialect"
            )
        if above:
            header = frame.row(0)
        rows = frame[above:]
        _check_rows(rows, header, read)
        read += rows.height
        yield rows
    if not names:
        yield pl.DataFrame(schema=dict.fromkeys(files.names or (), pl.String))


def read_start(path: Path | str, size: int = CHUNK) -> bytes:
    """Read a file's first bytes, unpacked if it is gzipped."""
    with opened(path) as file:
        return file.read(size)


def _names(block: Block, files: Files) -> list[str]:
    places = [str(place) for place in range(block.columns)]
    line = _parse(block.text, places, files.model_copy(update={"null_values": ()}))
    first = [name or "" for name in line.row(0)]
    if files.header == "none" and files.names is None:
        return [f"column_{place + 1}" for place in range(block.columns)]
    if files.names is not None:
        if files.header == "none" and tuple(first) == files.names:
            raise MalformedCsv(f"line {block.line} has the names themselves: leave header: none out")
        return list(files.names)
    if (problem := _problem_of(first, block, files)) is not None:
        raise MalformedCsv(f"its header {problem}")
    return first


def _problem_of(header: Sequence[str], block: Block, files: Files) -> str | None:
    """What is wrong with a header, and what to say; None if nothing is."""
    same = Counter(name.strip().casefold() for name in header if name)
    if again := sorted({name for name in header if name and same[name.strip().casefold()] > 1}):
        how = "the same name more than once" if len(again) == 1 else "names that differ only in case or blanks"
        return f"has {how}: {_listed(again)}: say names: to name all columns"
    if files.separator != "\t" and (tabs := [name for name in header if "\t" in name]):
        quoted = _listed([json.dumps(name) for name in tabs])
        return (
            f'has a tab in a name, {quoted}: say separator: "\\t" if tabs part the columns, or names: to name all '
            "columns"
        )
    nameless = [place for place, name in enumerate(header) if not name]
    if not nameless or len(header) == 1:
        return None
    below = _parse(block.text, [str(place) for place in range(block.columns)], files)[1:]
    ends = next((size for size, name in enumerate(reversed(header)) if name), len(header))
    if ends and all(below[str(len(header) - 1 - size)].null_count() == below.height for size in range(ends)):
        many = "a separator" if ends == 1 else f"{ends} separators"
        return f"ends in {many}: say trailing_separator: true if each line does, or names: to name all columns"
    if ends or len(nameless) > 1:
        places = " and ".join(str(place + 1) for place in nameless)
        return f"has no name for column{'s' if len(nameless) > 1 else ''} {places}: say names: to name all columns"
    return None  # the index of pandas or R, or a column in between, which a table may leave out


def _check_rows(rows: pl.DataFrame, header: Sequence[str | None], before: int) -> None:
    """Refuse a row that repeats the header."""
    if rows.width < _LEAST or not header:
        return
    for place in rows.to_series(0).eq_missing(pl.Series([header[0]], dtype=pl.String)).arg_true():
        if rows.row(place) == header:
            raise MalformedCsv(
                f"row {before + place + 1} below the header repeats the header: files were joined there; remove that "
                "line, or say header: none, skip_lines: and names: if it is a row"
            )


def _listed(names: Sequence[str]) -> str:
    """List names in a message, none of them at length."""
    return ", ".join(f"{name[:_SHOWN]}…" if len(name) > _SHOWN else name for name in names)


def _parse(text: bytes, names: Sequence[str], files: Files) -> pl.DataFrame:
    return pl.read_csv(
        text,
        has_header=False,
        schema=dict.fromkeys(names, pl.String),
        separator=files.separator,
        quote_char=None if files.quote == "none" else files.quote,
        null_values=list(files.null_values),
    )


def _in_utf8(path: Path | str, files: Files) -> Iterator[bytes]:
    """Read a file in chunks of UTF-8, without byte order mark."""
    decoder = codecs.getincrementaldecoder(files.encoding)()
    is_first, line = True, 1
    with opened(path) as file:
        start = file.read(max(CHUNK, FEW))
        _check_start(start, files)
        pieces = (start[place : place + CHUNK] for place in range(0, len(start), CHUNK))
        for content in chain(pieces, iter(lambda: file.read(CHUNK), b""), [b""]):
            try:
                text = decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(files.encoding, errors="ignore").count("\n")
                others = [f"{name} ({where})" for name, where in _COMMON.items() if name != files.encoding]
                raise MalformedCsv(
                    f"line {line} is not in {files.encoding}: say which encoding it is in, e.g. "
                    f"encoding: {' or '.join(others)}"
                ) from error
            if is_first and text:
                text, is_first = text.removeprefix("\ufeff"), False
            line += text.count("\n")
            if text:
                yield text.encode()


def _check_start(start: bytes, files: Files) -> None:
    """Refuse a file that is no CSV, or in another encoding than the declared one."""
    other, declared = what_else(start), files.encoding
    if other is not None and not (other.startswith("JSON") and (files.quote != '"' or files.skip_lines)):
        raise MalformedCsv(f"it is {other}")
    encoding, is_wide = encoding_of(start), declared.startswith(("utf-16", "utf-32"))
    if encoding is None:
        if is_wide and len(start) > 1 and start.isascii() and b"\0" not in start:
            raise MalformedCsv(f"it is not in {declared}: leave out encoding:")
    elif encoding == "utf-8":
        if declared not in ("utf-8", "utf-8-sig"):
            raise MalformedCsv(f"it begins with the mark of UTF-8: leave out encoding: {declared}")
    elif encoding in ("utf-16", "utf-32"):
        is_same = declared.startswith(encoding)
        if not is_same or codecs.getincrementaldecoder(declared)("replace").decode(start[:4]).startswith("\ufffe"):
            raise MalformedCsv(f"it begins with the mark of {encoding.upper()}: say encoding: {encoding}")
    elif declared != encoding and not (declared == "utf-16" and encoding == "utf-16-le"):
        raise MalformedCsv(f"it looks like UTF-16 without a byte order mark: say encoding: {encoding}")


def _without_last_lines(chunks: Iterable[bytes], files: Files) -> Iterator[bytes]:
    """Leave out the last lines of a text that are not blank, as `skip_last_lines` declares."""
    number = files.skip_last_lines
    blank = b"\r\n \t" + (files.separator.encode() if files.empty_rows == "drop" else b"")
    if not number:
        yield from chunks
        return
    tail = b""
    for chunk in chunks:
        tail += chunk
        place = len(tail)
        for _ in range(number):
            while place and tail[place - 1] in blank:
                place -= 1
            place = max(tail.rfind(b"\n", 0, place), tail.rfind(b"\r", 0, place)) + 1
        if place:
            yield tail[:place]
            tail = tail[place:]
