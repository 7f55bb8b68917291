"""Files as people have them: read as they are meant, or refused with the line and the remedy."""

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ml_platform.lake.sources.file_readers import read_file
from ml_platform.lake.sources.file_spec import Files
from ml_platform.lake.sources.from_spec import raw_table
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.lake.sources.stored_files import list_folder
from ml_platform.lake.storage.tables import Lake


def zipped(content: bytes) -> bytes:
    """The same bytes whenever: they are in the names of tests, which all of pytest's workers must agree on."""
    return gzip.compress(content, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "files", "rows"),
    [
        ("a.csv", b"\xef\xbb\xbfid,v\r\n1,2\r\n", {}, [("1", "2")]),
        ("A.CSV", b"id,v\n1,2", {}, [("1", "2")]),
        ("a.csv", b'id,v\n1,"a\nb, ""c"""\n', {}, [("1", 'a\nb, "c"')]),
        ("a.csv", b"id;v\n1;2,5\n", {"separator": ";"}, [("1", "2,5")]),
        ("a.txt", b"id\tv\n1\t2\n", {"separator": "\t", "format": "csv"}, [("1", "2")]),
        ("a.csv", "id,v\n1,Köln €\n".encode("cp1252"), {"encoding": "cp1252"}, [("1", "Köln €")]),
        ("a.csv", "id,v\n1,Köln\n".encode("utf-16"), {"encoding": "UTF-16"}, [("1", "Köln")]),
        ("a.csv.gz", zipped("id,v\n1,Köln\n".encode("latin-1")), {"encoding": "latin-1"}, [("1", "Köln")]),
        ("a.csv", b"id,v\n1,NA\n2,-\n", {"null_values": ["-"]}, [("1", "NA"), ("2", None)]),
        ("a.csv", b'id,v\n1,\n2,""\n', {}, [("1", None), ("2", None)]),
        ("a.csv", b'id,v\n1,\n2,""\n', {"null_values": []}, [("1", None), ("2", "")]),
        ("a.csv", b'id,v\n1,\n"a,\nb",\n', {}, [("1", None), ("a,\nb", None)]),
        ("a.csv", b"id,v\r\n1,\r\n2,3", {}, [("1", None), ("2", "3")]),
        ("a.csv", "id;v\n1;\n".encode("utf-16"), {"encoding": "utf-16", "separator": ";"}, [("1", None)]),
        ("a.csv", b"id,v\n", {}, []),
        ("a[1]*.csv", b"id,v\n1,2\n", {}, [("1", "2")]),
        ("a.jsonl", b'{"id": "1", "v": 2}\n\n{"id": "2"}\n', {}, [("1", 2), ("2", None)]),
        ("a.ndjson", b'{"id": 1, "v": 2}\n{"id": "x", "v": 2.5}\n', {}, [("1", 2.0), ("x", 2.5)]),
    ],
)
def test_a_file_is_read_as_it_is_meant(
    tmp_path: Path, name: str, content: bytes, files: dict[str, Any], rows: list[tuple[Any, ...]]
) -> None:
    (tmp_path / name).write_bytes(content)
    read = read_file(tmp_path / name, Files.model_validate(files))
    assert read.columns == ["id", "v"]
    assert read.rows() == rows


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_file_of_no_bytes_has_no_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert read_file(tmp_path / name).shape == (0, 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id;v\n1;2,5\n", r"one column, 'id;v': say separator: .;."),
        ("a.csv", b"id\tv\n1\t2\n", r"one column, 'id\tv': say separator: .\\t."),
        ("a.csv", b"id,v\n1,2\n3,4,5\n", "line 3 has 3 fields, the header has 2"),
        ("a.csv", b"id,v\n1,2\n3", "line 3 has 1 field, the header has 2: the file may have been cut off"),
        ("a.csv", b'id,v\n"1\n1",2\n"3"\n4,5\n', "line 4 has 1 field"),
        ("a.csv.gz", zipped(b"id,v,w\n1,2,3\n4,5\n"), "line 3 has 2 fields, the header has 3"),
        ("a.csv", b'id,v\n1,"a\n2,b\n', "line 2 has a quote that is not closed"),
        (
            "a.csv",
            b'id,v\n1,5" pipe\n',
            "line 2 has a quote within a value: put the value in quotes and write the quote twice",
        ),
        ("a.csv", "id,v\n1,Köln\n".encode("latin-1"), "line 2 is not in utf-8: say .* encoding: cp1252"),
        ("a.csv", b"id,v,id,id\n1,2,3,4\n", "has the same name more than once: id"),
        ("a.csv.gz", zipped(b"id,v\n" + b"1,2\n" * 9999)[:-9], "file ended before the end-of-stream"),
        ("a.jsonl", b'{"id": 1}\n{"id": 2, "v', r'line 2 is no JSON object: \{"id": 2, "v'),
        ("a.jsonl", b'[{"id": 1}]\n', r"line 1 is no JSON object: \[\{"),
        ("a.jsonl", b'\xef\xbb\xbf{"id": 1}\n', "begins with a byte order mark"),
        ("a.parquet", b"", "cannot be read as parquet"),
        ("a.json", b"[]", "say format: csv, parquet or jsonl"),
    ],
)
def test_a_broken_file_is_named_with_the_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"(?s){name}.*{message}"):
        read_file(tmp_path / name)


def test_an_encoding_that_the_file_is_not_in_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("id\nKöln\n".encode())
    with pytest.raises(ValueError, match="line 2 is not in ascii"):
        read_file(tmp_path / "a.csv", Files(encoding="ascii"))
    with pytest.raises(ValueError, match="like utf-8, cp1252, latin-1 or utf-16 was wanted, found 'ansi'"):
        Files(encoding="ansi")


def test_json_objects_may_leave_out_what_may_be_missing(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": 2}\n')
    declared = {
        "name": "raw/events",
        "description": "Events.",
        "owner": "team:web",
        "file": {"path": str(tmp_path / "a.jsonl")},
        "columns": {"id": {"type": "string", "key": True}, "coupon": {"type": "string", "nullable": True}},
    }
    raw_table(SourceSpec.model_validate(declared)).load(lake)
    assert lake.read("raw/events").sort("id").collect().rows() == [("1", None), ("2", None)]
    wanted = declared["columns"] | {"user": {"type": "string"}}  # type: ignore[operator]
    with pytest.raises(ValueError, match="column 'user': wanted String, found no such column"):
        raw_table(SourceSpec.model_validate({**declared, "columns": wanted})).load(lake)


def test_a_large_integer_in_json_keeps_its_digits_beside_a_fraction(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 9007199254740993}\n{"id": 1.5}\n{"id": 7.0}\n')
    declared = {
        "name": "raw/events",
        "description": "Events.",
        "owner": "team:web",
        "file": {"path": str(tmp_path / "a.jsonl")},
        "columns": {"id": {"type": "integer", "key": True}},
    }
    report = raw_table(SourceSpec.model_validate(declared)).load(lake)
    assert report.reasons == {"id: not an integer": 1}
    assert lake.read("raw/events").collect()["id"].to_list() == [9007199254740993, 7]


def test_a_folder_is_listed_without_what_programs_keep_in_it(tmp_path: Path) -> None:
    for name in ("1.csv", ".2.csv.part", "_SUCCESS", "_temporary/3.csv", "2024/4.csv", ".git/5.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in list_folder(tmp_path, "*")] == ["1.csv"]
    assert [file.name for file in list_folder(tmp_path, "**/*.csv")] == ["1.csv", "2024/4.csv"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.csv", ["1.csv"]),
        ("**/*.csv", ["1.csv", "a/2.csv", "a/x/3.csv", "b/x/y/4.csv"]),
        ("*/*.csv", ["a/2.csv"]),
        ("**/x/*.csv", ["a/x/3.csv"]),
        ("a/**/[1-3].csv", ["a/2.csv", "a/x/3.csv"]),
        ("**/x/**/*.csv", ["a/x/3.csv", "b/x/y/4.csv"]),
    ],
)
@pytest.mark.parametrize("as_uri", [False, True])
def test_a_pattern_means_the_same_in_a_folder_and_in_a_store(
    tmp_path: Path, pattern: str, names: list[str], as_uri: bool
) -> None:
    for name in ("1.csv", "a/2.csv", "a/x/3.csv", "b/x/y/4.csv", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [file.name for file in list_folder(tmp_path.as_uri() if as_uri else tmp_path, pattern)] == names


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": [1], "tags": [["a"]]}, schema_overrides={"id": pl.Int32})
    frame.write_parquet(tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet").equals(frame)
