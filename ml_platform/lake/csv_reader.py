"""Reads CSV files as columns of texts, exactly: every row that a file holds, or an error with the line.

Records are cut and checked by `csv_records`, a block at a time, and read by Polars, whose rows are counted against
them. So what two independent parsers do not read alike is refused, and a file is never held in memory as a whole.
"""

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from ml_platform.lake.csv_records import Block, MalformedCsv, cut_into_blocks
from ml_platform.lake.file_spec import Files
from ml_platform.lake.stored_files import opened

CHUNK = 16 * 1024 * 1024  # bytes read at once


def read_csv(path: Path | str, files: Files) -> pl.DataFrame:
    """Read a local CSV file, or the object at a URI, gzipped or not; a file of no rows and no header has no columns.

    Raises
    ------
    MalformedCsv
        If the file is not in the declared dialect, or could be read in two ways; with the line.
    OSError, EOFError
        If the file cannot be opened or unpacked.
    """
    frames: list[pl.DataFrame] = []
    names: list[str] = []
    for block in cut_into_blocks(_in_utf8(path, files), files):
        names = names or _names(block, files)
        above = 1 if not frames and files.header == "first_line" else 0
        frame = _parse(block.text, names, files)
        if frame.height != block.rows:
            raise MalformedCsv(
                f"its lines from {block.line} on are {block.rows} rows, of which Polars makes {frame.height}: please "
                "report this, with the file's dialect"
            )
        frames.append(frame[above:])
    return pl.concat(frames) if frames else pl.DataFrame(schema=dict.fromkeys(files.names or (), pl.String))


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
    again = sorted({name for name in first if first.count(name) > 1})
    if again:
        shown = ", ".join(name or "(none)" for name in again)
        raise MalformedCsv(f"its header has the same name more than once: {shown}: say names: to name all columns")
    if len(first) > 1 and not first[-1]:
        raise MalformedCsv(
            "its header ends in a separator: say trailing_separator: true if each line does, or names: to name all "
            "columns"
        )
    return first


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
    is_utf8, is_first, line = files.encoding in ("utf-8", "utf-8-sig"), True, 1
    with opened(path) as file:
        while True:
            content = file.read(max(CHUNK, len(codecs.BOM_UTF8)))
            if is_first and content.startswith(codecs.BOM_UTF8) and not is_utf8:
                raise MalformedCsv(f"it begins with the mark of UTF-8: leave out encoding: {files.encoding}")
            try:
                text = decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].decode(files.encoding, errors="ignore").count("\n")
                raise MalformedCsv(
                    f"line {line} is not in {files.encoding}: say which encoding it is in, e.g. "
                    "encoding: cp1252 (Western Windows) or utf-16"
                ) from error
            if is_first and text:
                text, is_first = text.removeprefix("\ufeff"), False
            line += text.count("\n")
            if text:
                yield text.encode()
            if not content:
                return
