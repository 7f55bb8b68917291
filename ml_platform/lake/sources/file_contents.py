"""Tells what a file is by its first bytes, where its name says CSV and it is none, and in which encoding it is."""

import codecs
import re

_BINARY: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a Zip archive: unpack it"),
    (b"PAR1", "a Parquet file: say format: parquet, or name it .parquet"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel file (.xls): save its sheet as CSV (UTF-8)"),
    (b"%PDF-", "a PDF document: export its table as CSV"),
    (b"{\\rtf", "an RTF document: save it as plain text"),
    (b"SQLite format 3\0", "an SQLite database: export its table as CSV"),
    (b"BZh", "packed by bzip2: unpack it (only .gz is read as it is)"),
    (b"\xfd7zXZ\0", "packed by xz: unpack it (only .gz is read as it is)"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd: unpack it (only .gz is read as it is)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it"),
    (b"\x1f\x8b", "packed by gzip twice: unpack it once"),
    (b"RDX3\n", "an R data file: write its table by write.csv(…, row.names = FALSE)"),
    (b"RDX2\n", "an R data file: write its table by write.csv(…, row.names = FALSE)"),
    (b"ARROW1\0\0", "an Arrow (Feather) file: write it as Parquet"),
    (b"ORC\x08", "an ORC file: write it as Parquet"),
    (b"Obj\x01", "an Avro file: write it as Parquet"),
    (b"\x89HDF\r\n", "an HDF5 file: write its table as Parquet"),
    (b"$FL2@(#)", "an SPSS file: export it as CSV"),
    (b"<stata_dta>", "a Stata file: export it as CSV"),
)
_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"<(!doctype html|html|head|body)\b", re.IGNORECASE), "an HTML page, as a login or an error is"),
    (re.compile(r"<\?xml\b|<[\w:.-]+ xmlns"), "XML: convert it to CSV, Parquet or JSON lines"),
    (re.compile(r'\{\s*"[^"\n]*"\s*:.*\}\s*\n\s*\{'), "JSON lines: say format: jsonl, or name it .jsonl"),
    (re.compile(r'\{\s*"[^"\n]*"\s*:|\[\s*[\[{]'), "JSON: write it as JSON lines (an object per line) or as CSV"),
)
_MARKS: tuple[tuple[bytes, str], ...] = (  # UTF-32's begins like UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8"),
)
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")  # in no text
FEW = 4096  # bytes that are looked at
_EVEN_OR_ODD = 0.3  # share of zero bytes, in texts that are at least partly Latin


def what_else(start: bytes) -> str | None:
    """Say what a file is if it is no CSV, and what to do; None if it could be CSV.

    Parameters
    ----------
    start
        The file's first bytes, 4 kB or more if it has them.

    Examples
    --------
    >>> what_else(b"PAR1\\x15\\x04")
    'a Parquet file: say format: parquet, or name it .parquet'
    >>> what_else(b"a,b\\n1,2\\n")
    """
    few = start[:FEW]
    kind = next((kind for magic, kind in _BINARY if few.startswith(magic)), None)
    if kind is not None and few.startswith(b"PK"):
        names = {
            b"xl/": "an Excel file (.xlsx)",
            b"word/": "a Word document",
            b"opendocument.spread": "a spreadsheet (.ods)",
        }
        office = next((name for part, name in names.items() if part in start), None)
        return f"{office}: save its sheet as CSV (UTF-8)" if office else kind
    if kind is not None and (few.startswith((b"%", b"{", b"<")) or _CONTROL.search(few)):
        return kind
    if few[257:262] == b"ustar":
        return "a tar archive: unpack it"
    text = few.decode(encoding_of(few) or "utf-8", errors="replace").lstrip("\ufeff \t\r\n")
    kind = next((kind for pattern, kind in _TEXTS if pattern.match(text)), None)
    if kind is not None and kind.startswith("an HTML"):
        match = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        title = " ".join(match.group(1).split())[:80] if match else ""
        return f"{kind}{f' ({title})' if title else ''}: download the file itself"
    return kind


def encoding_of(start: bytes) -> str | None:
    """Encoding of a text by its byte order mark, or by where its zero bytes are; None if neither tells it.

    Examples
    --------
    >>> encoding_of("id,v".encode("utf-16")), encoding_of("id,v".encode("utf-16-be")), encoding_of(b"id,v")
    ('utf-16', 'utf-16-be', None)
    """
    marked = next((encoding for mark, encoding in _MARKS if start.startswith(mark)), None)
    few = start[:FEW]
    if marked is not None or len(few) < 4:
        return marked
    even, odd = few[::2].count(0) / len(few[::2]), few[1::2].count(0) / len(few[1::2])
    if max(even, odd) < _EVEN_OR_ODD or min(even, odd) > max(even, odd) / 4:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"
