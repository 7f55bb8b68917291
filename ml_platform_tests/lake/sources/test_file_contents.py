"""Files that are called .csv and are something else are told as what they are, with what to do."""

import bz2
import gzip
import io
import lzma
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from ml_platform.lake.sources.dialect_inference import guess_dialect
from ml_platform.lake.sources.file_contents import encoding_of
from ml_platform.lake.sources.file_readers import read_file

TABLE = pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})


def archive(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name in names:
            opened.writestr(name, "a,b\n1,2\n")
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        opened.addfile(tarfile.TarInfo("a.csv"), io.BytesIO())
    return file.getvalue()


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def database(folder: Path) -> bytes:
    connection = sqlite3.connect(folder / "x.db")
    connection.execute("CREATE TABLE t (a)")
    connection.commit()
    connection.close()
    return (folder / "x.db").read_bytes()


CONTENTS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "zip": (lambda _: archive("a.csv"), "a Zip archive: unpack it"),
    "xlsx": (lambda _: archive("[Content_Types].xml", "xl/workbook.xml"), r"an Excel file \(.xlsx\): save its sheet"),
    "xls": (lambda _: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), r"an Excel file \(.xls\): save its sheet"),
    "parquet": (lambda _: written(TABLE.write_parquet), "a Parquet file: say format: parquet"),
    "arrow": (lambda _: written(TABLE.write_ipc), r"an Arrow \(Feather\) file"),
    "avro": (lambda _: written(TABLE.write_avro), "an Avro file"),
    "sqlite": (database, "an SQLite database: export its table"),
    "bzip2": (lambda _: bz2.compress(b"a,b\n1,2\n"), "packed by bzip2: unpack it"),
    "xz": (lambda _: lzma.compress(b"a,b\n1,2\n"), "packed by xz: unpack it"),
    "gzip twice": (lambda _: gzip.compress(gzip.compress(b"a,b\n1,2\n")), "packed by gzip twice"),
    "tar": (lambda _: tar(), "a tar archive: unpack it"),
    "tar.gz": (lambda _: gzip.compress(tar()), "a tar archive: unpack it"),
    "pdf": (lambda _: b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj", "a PDF document"),
    "html": (
        lambda _: b"\n<!DOCTYPE html>\n<html><head><title>Log\nin</title></head><body>Hi, you</body></html>",
        r"an HTML page, as a login or an error is \(Log in\): download the file itself",
    ),
    "html in utf-16": (lambda _: "<html><body>Error, 404</body></html>".encode("utf-16"), "an HTML page"),
    "xml": (lambda _: b'<?xml version="1.0"?>\n<rows><row a="1"/></rows>\n', "XML: convert it"),
    "json": (lambda _: b'[{"a": 1, "b": 2},\n {"a": 3}]\n', "JSON: write it as JSON lines"),
    "json lines": (lambda _: b'{"a": 1, "b": 2}\n{"a": 3, "b": 4}\n', "JSON lines: say format: jsonl"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_what_is_no_csv_is_told_as_what_it_is(tmp_path: Path, kind: str) -> None:
    make, message = CONTENTS[kind]
    (tmp_path / "x.csv").write_bytes(make(tmp_path))
    for read in (read_file, guess_dialect):
        with pytest.raises(ValueError, match=rf"x.csv cannot be read as csv: it is {message}"):
            read(tmp_path / "x.csv")


@pytest.mark.parametrize(
    "content", [b"PAR1,PK\n1,2\n", b"Obj,ORC\n1,2\n", b"%,b\n1,2\n", b"[a],<b>\n1,2\n", gzip.compress(b"a,b\n1,2\n")]
)
def test_a_csv_that_begins_like_something_else_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert read_file(tmp_path / "x.csv").rows() == [("1", "2")]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("id,größe\n1,Köln\n".encode("utf-16"), "utf-16"),
        ("id,größe\n1,Köln\n".encode("utf-16-le"), "utf-16-le"),
        ("id,größe\n1,Köln\n".encode("utf-16-be"), "utf-16-be"),
        ("id,v\n".encode("utf-32"), "utf-32"),
        ("\ufeffid,v\n".encode(), "utf-8"),
        (b"id,v\n1,\0\n2,x\n", None),
        ("id,größe\n".encode("cp1252"), None),
        (b"", None),
    ],
)
def test_an_encoding_is_told_by_its_mark_or_its_zero_bytes(content: bytes, encoding: str | None) -> None:
    assert encoding_of(content) == encoding
