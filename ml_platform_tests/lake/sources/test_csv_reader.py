"""CSV in every dialect comes back unchanged, or is refused with the line; no row is lost without a word."""

import csv
import io
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ml_platform.lake.sources import csv_reader
from ml_platform.lake.sources.csv_reader import read_csv
from ml_platform.lake.sources.csv_records import MalformedCsv, cut_into_blocks
from ml_platform.lake.sources.file_spec import Files

Rows = list[tuple[str | None, ...]]


def read(folder: Path, content: bytes | str, **files: Any) -> Rows:
    (folder / "x.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv(folder / "x.csv", Files.model_validate(files)).rows()


@pytest.fixture(params=[1, 5, 1 << 20], ids=lambda size: f"by {size} bytes")
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "CHUNK", request.param)


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize(
    ("content", "files", "rows"),
    [
        # quotes and escapes
        ('id,v\n1,"C:\\tmp\\"\n2,x\n', {}, [("1", "C:\\tmp\\"), ("2", "x")]),
        ('id,v\n1,"ends with \\" here"\n2,"\\\\"\n', {"escape": "\\"}, [("1", 'ends with " here'), ("2", "\\")]),
        ('id,v\n1,a \\" b\\, c\n2,"d ""e"""\n', {"escape": "\\"}, [("1", 'a " b, c'), ("2", 'd "e"')]),
        ("id,v\n1,a\\\nb\r\n2,c\\\\\r\n", {"escape": "\\"}, [("1", "a\nb"), ("2", "c\\")]),
        ("id,v\n1,'a, ''b'''\n2,5\" pipe\n", {"quote": "'"}, [("1", "a, 'b'"), ("2", '5" pipe')]),
        ('id\tv\n1\t5" pipe\n2\t"x\n', {"quote": "none", "separator": "\t"}, [("1", '5" pipe'), ("2", '"x')]),
        ('id,v\n1,"a\r\nb"\n2,"\n"\n', {}, [("1", "a\r\nb"), ("2", "\n")]),
        # blanks
        ('id,v\n1, a\n2, "a, b" \n', {"trim": True}, [("1", "a"), ("2", "a, b")]),
        ('id , v\n1 ,\t" a "\t\n 2 , \n', {"trim": True}, [("1", " a "), ("2", None)]),
        ("id\tv\n 1 \t\n", {"trim": True, "separator": "\t"}, [("1", None)]),
        ("id,v\n1, a \n", {}, [("1", " a ")]),
        # lines that are no rows
        ("id,v\n1,2\n\n", {}, [("1", "2")]),
        ("\r\n\r\nid,v\r\n\r\n1,2\r\n\r\n", {}, [("1", "2")]),
        ("id,v\n1,2\n   \n3,4\n", {}, [("1", "2"), ("3", "4")]),
        ("  \n\nid\n1\n", {}, [("1",)]),
        ("# made by x, \"y\nid,v\n# it's\n1,#2\n#\n", {"comment": "#"}, [("1", "#2")]),
        ('id,v\n1,"a\n#b"\n#c', {"comment": "#"}, [("1", "a\n#b")]),
        ("// a\nid,v\n/1,2\n", {"comment": "//"}, [("/1", "2")]),
        ('Report\nof, "today\n\nid,v\n1,2\n', {"skip_lines": 2}, [("1", "2")]),
        ("sep=;\nid;v\n1;2\n", {"separator": ";"}, [("1", "2")]),
        ('"sep=;"\r\nid;v\r\n1;2\r\n', {"separator": ";"}, [("1", "2")]),
        # headers
        ("1,2\n3,4\n", {"header": "none", "names": ["id", "v"]}, [("1", "2"), ("3", "4")]),
        ("a,a\n1,2\n", {"names": ["id", "v"]}, [("1", "2")]),
        ("NA,v\n1,2\n", {"null_values": ["NA"]}, [("1", "2")]),
        # ragged lines
        ("id,v,\n1,2,\n3,,\n", {"trailing_separator": True}, [("1", "2"), ("3", None)]),
        ("id,v\n1,2,\n", {"trailing_separator": True}, [("1", "2")]),
        ("id,v,,\n1,2,,\n3,,,\n4,5\n", {"trailing_separator": True}, [("1", "2"), ("3", None), ("4", "5")]),
        ("id,v\n1,2\n,\n3,\n,\n", {"empty_rows": "drop"}, [("1", "2"), ("3", None)]),
        ("id,v\n1,2\n,\n", {}, [("1", "2"), (None, None)]),
        (',\nid,v\n1,2\n"",""\n', {"empty_rows": "drop"}, [("1", "2"), (None, None)]),
        ("id,v\n1,2\nTotal,2\n\n", {"skip_last_lines": 1}, [("1", "2")]),
        ("id,v\r1,2\rTotal,2\r,\r", {"skip_last_lines": 1, "empty_rows": "drop"}, [("1", "2")]),
        ("id,v\r\n1,2\r\n2 rows, see\r\nhttp://x", {"skip_last_lines": 2}, [("1", "2")]),
        ("v,w\n1,2,3\n", {"names": ["id", "v", "w"]}, [("1", "2", "3")]),
        ("id,v,w\n1\n1,2\n1,2,3\n", {"missing_fields": None}, [("1", None, None), ("1", "2", None), ("1", "2", "3")]),
        ("id\na\n\nb\n\n", {"missing_fields": "null"}, [("a",), (None,), ("b",), (None,)]),
        ('id\na\n""\n', {}, [("a",), (None,)]),
        # line ends
        ("id,v\r1,2\r3,4\r", {}, [("1", "2"), ("3", "4")]),
        ('id,v\r\r1,"a\rb\nc"\r3,4', {}, [("1", "a\rb\nc"), ("3", "4")]),
        ("id,v\r\n1,2\n3,4\r\n", {}, [("1", "2"), ("3", "4")]),
        ("# a\r#b\rid,v\r1,2\r", {"comment": "#"}, [("1", "2")]),
        # encodings
        ("\ufeffid,v\n1,é\n", {}, [("1", "é")]),
        ("\ufeffid,v\n1,é\n".encode("utf-16-le"), {"encoding": "utf-16-le"}, [("1", "é")]),
        ("id,v\n1,ÿþ\u2028\x85\n", {}, [("1", "ÿþ\u2028\x85")]),
        ("id,v\n1,だ\n".encode("shift_jis"), {"encoding": "shift_jis"}, [("1", "だ")]),
    ],
)
def test_a_declared_dialect_is_read_as_it_is_meant(
    tmp_path: Path, content: bytes | str, files: dict[str, Any], rows: Rows
) -> None:
    assert read(tmp_path, content, **files) == rows


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize(
    ("content", "files", "message"),
    [
        ('id,v\n1,"ends with \\" here"\n2,plain\n3,"also \\" here"\n', {}, "line 2 has text after a closing quote"),
        ('id,v\n1,x\n2,"5" pipe"\n3,"6" pipe"\n', {}, "line 3 has text after a closing quote.* quote: none"),
        ('id,v\n1,5" pipe\n2,6" pipe\n', {}, "line 2 has a quote within a value.* say escape:"),
        ('id,v\n1,"a\nb"\n2, "x"\n', {}, "line 4 has a blank before a quote: say trim: true"),
        ('id,v\n1,"x" \n', {}, "line 2 has a blank after a quote: say trim: true"),
        ('id,v\n1,"a\n2,b\n', {}, "line 2 has a quote that is not closed"),
        ('id,v\n1,"a\\tb"\n', {"escape": "\\"}, r"line 2 has \\t, but escape: is for quotes"),
        ("id,v\n1,a\\", {"escape": "\\"}, "line 2 ends in an escape"),
        ("id,v\n# a\\\n1,2\n", {"escape": "\\", "comment": "#"}, "line 2 is a comment with"),
        ("id,v\n1,2,\n", {}, "line 2 has 3 fields, the header has 2: it ends in a separator; say trailing_separator"),
        ("id,v,\n1,2,\n", {}, "its header ends in a separator: say trailing_separator: true"),
        ("id,v\n1,2,3\n", {"trailing_separator": True}, "line 2 has 3 fields, the header has 2"),
        ("id,v\n1,2,3\n", {"missing_fields": None}, "line 2 has 3 fields"),
        ("id,v\n\n# x\n1\n", {"comment": "#"}, "line 4 has 1 field.* say missing_fields: null"),
        ("id\na\n\n", {}, "line 3 is blank.* say missing_fields: null if it is a row"),
        ("Report of today\nid,v\n1,2\n", {}, "line 2 has 2 fields, the header has 1.* say skip_lines:"),
        ('"id";"v"\n"1";"2"\n', {}, "line 1 has ';' after a closing quote: say separator: \";\""),
        ("sep=;\nid;v\n1;2\n", {}, "line 1 says 'sep=;': say separator: ';'"),
        ("id,v\n1,a\rb\n", {}, r"line 2 has a carriage return \(CR\) by itself"),
        ("id,v\r1,2\r3,4\n5,6\r", {}, r"line 3 has a line feed \(LF\), where earlier lines end in CR"),
        ("id,v\n1,a\0b\n", {}, "line 2 has a NUL byte, which is in no text: the file is damaged"),
        ("id,v\n1,2\n".encode("utf-16-le"), {}, "looks like UTF-16 without .*: say encoding: utf-16-le"),
        ("id,v\n1,2\n".encode("utf-16"), {}, "begins with the mark of UTF-16: say encoding: utf-16"),
        ("id,v\n1,2\n3,ö\n".encode("latin-1"), {}, "line 3 is not in utf-8"),
        ("\ufeffid,v\n1,ö\n", {"encoding": "cp1252"}, "begins with the mark of UTF-8: leave out encoding: cp1252"),
        ("id,id\n1,2\n", {}, "same name more than once: id: say names:"),
        # what stands around rows
        ("Report 2024\nid,v\n1,2\n", {}, "line 2 has 2 fields.*: say skip_lines: 1 if what is above is a title"),
        ("Report\n\nof, us\nid,v,w\n1,2,3\n1,2,3\n", {}, r"skip_lines: [23] if what is above is a title"),
        ("Sales, EU\nid,v,w\n1,2,3\n", {}, "line 2 has 3 fields, the header has 2: .*say skip_lines: 1 if"),
        ("v,w\n1,2,3\n2,3,4\n", {}, "lacks the first column's name, as R .*, say names: with the names of all"),
        ("id,v\n1,2\n3,4,5\n", {}, "line 3 has 3 fields, the header has 2: put a value with ',' in quotes$"),
        ("id,v\n1,2\n2 rows\n", {}, "line 3 has 1 field, .*; say skip_last_lines: 1 if it is a footer; say missing_f"),
        ("id,v\n1,2\n\x1a", {}, r"line 3 has 1 field, .*mark with which DOS ended files \(Ctrl-Z\); remove it"),
        ("id,v\n1,2\nid,v\n3,4\n", {}, "row 2 below the header repeats the header: files were joined there"),
        ("id,v\n1,2\n\ufeffid,v\n3,4\n", {}, "line 3 begins with a byte order mark.*: files were joined there"),
        # headers
        ("id,v,,\n1,2,,\n", {}, "ends in 2 separators: say trailing_separator: true if each line does"),
        ("id,v,w\n1,2,3,,\n", {}, "line 2 has 5 fields, .*: it ends in 2 separators; say trailing_separator: true"),
        ("id,v,,\n1,2,x,\n", {"trailing_separator": True}, "line 2 has 4 fields, the header has 2"),
        ("id,v,,\n1,2,\n", {"trailing_separator": True}, "line 2 has 3 fields, the header has 2"),
        ("id,Amount,amount\n1,2,3\n", {}, "names that differ only in case or blanks: Amount, amount: say names:"),
        ("id,v,v \n1,2,3\n", {}, "names that differ only in case or blanks: v, v : say names:"),
        ("name\tnote, x\n1\t2, y\n", {}, r'has a tab in a name, .*: say separator: "\\t" if tabs part the columns'),
        ('"id" "v"\n"1" "2"\n', {}, 'line 1 has a blank between quoted values: say separator: " " if'),
        # encodings
        ("id,v\n1,2\n".encode("utf-16-be"), {}, "without a byte order mark: say encoding: utf-16-be"),
        ("id,v\n1,2\n".encode("utf-16-be"), {"encoding": "utf-16"}, "say encoding: utf-16-be"),
        ("\ufeffid,v\n1,2\n".encode("utf-16-be"), {"encoding": "utf-16-le"}, "mark of UTF-16: say encoding: utf-16$"),
        ("id,v\n1,2\n".encode("utf-32"), {"encoding": "utf-16"}, "mark of UTF-32: say encoding: utf-32"),
        ("id,v\n1,2\n", {"encoding": "utf-16"}, "it is not in utf-16: leave out encoding"),
        (b"id,v\n1,\x81\n", {"encoding": "cp1252"}, r"line 2 is not in cp1252: .*encoding: cp850 \(Western DOS\) or"),
        (",,v\n1,2,3\n", {}, "has no name for columns 1 and 2: say names: to name all columns"),
        ("id,v\n1,2\n", {"header": "none", "names": ["id", "v"]}, "line 1 has the names themselves"),
        ("1,2\n", {"header": "none", "names": ["id"]}, "line 1 has 2 fields, names has 1"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_with_line_and_remedy(
    tmp_path: Path, content: bytes | str, files: dict[str, Any], message: str
) -> None:
    with pytest.raises(MalformedCsv, match=message):
        read(tmp_path, content, **files)


def test_a_quote_that_is_never_closed_does_not_fill_the_memory() -> None:
    chunks = ['id,v\n1,"', *["x" * 99] * 20]
    with pytest.raises(MalformedCsv, match="line 2 begins a record of more than 999 bytes"):
        list(cut_into_blocks((chunk.encode() for chunk in chunks), Files(), longest=999))


# -- Tables written by a writer that knows nothing of the reader.
TEXT = st.text(st.sampled_from("ab1 ,;\t|\"'\\\n\r#é€\u2028-="), max_size=6)
DIALECTS = st.fixed_dictionaries(
    {
        "separator": st.sampled_from(",;\t|"),
        "quote": st.sampled_from("\"'"),
        "doubled": st.booleans(),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
        "end": st.sampled_from(["\n", "\r\n", "\r"]),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be"]),
        "blank_lines": st.booleans(),
        "header": st.booleans(),
        "trailing": st.booleans(),
        "comments": st.booleans(),
        "last_end": st.booleans(),
        "chunk": st.sampled_from([1, 2, 7, 64, 1 << 20]),
    }
)


def written(rows: Sequence[Sequence[str]], dialect: dict[str, Any]) -> str:
    """Write rows, with the lines around and between them that the dialect has."""
    lines = []
    for row in rows:
        line = io.StringIO()
        writer = csv.writer(
            line,
            delimiter=dialect["separator"],
            quotechar=dialect["quote"],
            doublequote=dialect["doubled"],
            escapechar=None if dialect["doubled"] else "\\",
            quoting=dialect["quoting"],
        )
        writer.writerow(row)
        lines.append(line.getvalue().removesuffix("\r\n") + dialect["separator"] * dialect["trailing"])
        if dialect["blank_lines"] and len(row) > 1:
            lines.append("")
        if dialect["comments"]:
            lines.append("#' it's a \"comment, not a row")
    return dialect["end"].join(lines) + (dialect["end"] if dialect["last_end"] else "")


def comes_back(folder: Path, table: list[list[str]], dialect: dict[str, Any]) -> None:
    names = [f"c{place}" for place in range(len(table[0]))]
    # A writer does not know of comments, nor that a missing value is no text of its own.
    assume(not dialect["comments"] or not any(row[0].startswith("#") for row in table))
    assume(len(names) > 1 or not (dialect["trailing"] or any(row == [""] for row in table)))
    text = written([names, *table] if dialect["header"] else table, dialect)
    files = Files(
        separator=dialect["separator"],
        quote=dialect["quote"],
        escape=None if dialect["doubled"] else "\\",
        encoding=dialect["encoding"],
        comment="#" if dialect["comments"] else None,
        trailing_separator=dialect["trailing"],
        header="first_line" if dialect["header"] else "none",
        names=None if dialect["header"] else tuple(names),
        null_values=(),
    )
    path = folder / "x.csv"
    path.write_bytes(text.encode(dialect["encoding"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "CHUNK", dialect["chunk"])
        try:
            found = read_csv(path, files)
        except MalformedCsv as error:
            # An escaped line end is like none, and a blank line in a file of one column like a value.
            if not (dialect["doubled"] and len(names) > 1) and re.match(r"line \d+ ", str(error)):
                return
            raise
    assert found.columns == names
    assert [[value or "" for value in row] for row in found.rows()] == table


TABLES = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(TEXT, min_size=width, max_size=width), min_size=1))
QUICK = settings(
    derandomize=True, max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(TABLES, DIALECTS)
def test_tables_come_back_from_every_dialect(tmp_path: Path, table: list[list[str]], dialect: dict[str, Any]) -> None:
    comes_back(tmp_path, table, dialect)


@pytest.mark.slow
@settings(QUICK, max_examples=4_000)
@given(TABLES, DIALECTS)
def test_tables_come_back_from_every_dialect_at_length(
    tmp_path: Path, table: list[list[str]], dialect: dict[str, Any]
) -> None:
    comes_back(tmp_path, table, dialect)


# -- Texts that nobody wrote on purpose.
def strictly(text: str) -> Rows | None:  # noqa: PLR0912
    """Read by RFC 4180, a character at a time; None if that cannot be done in only one way."""
    rows: Rows = []
    row: list[str | None] = []
    place = 0
    while place < len(text):
        start = place
        if text[place] == '"':
            value, place = "", place + 1
            while text[place : place + 1] != '"' or text[place + 1 : place + 2] == '"':
                if place >= len(text):
                    return None
                place += text[place] == '"'
                value, place = value + text[place], place + 1
            place += 1
            row.append(value)
        else:
            while place < len(text) and text[place] not in ",\r\n":
                if text[place] == '"':
                    return None
                place += 1
            row.append(text[start:place] or None)
        if text[place : place + 1] == ",":
            place += 1
            if place < len(text):
                continue
            row.append(None)
        elif text[place : place + 2] == "\r\n":
            place += 2
        elif text[place : place + 1] == "\n":
            place += 1
        elif place < len(text):
            return None
        rows.append(tuple(row))
        row = []
    # Lines of nothing but blanks are no rows where a row has more columns.
    if len(max(rows, key=len, default=())) > 1:
        rows = [row for row in rows if len(row) > 1 or row[0] == "" or (row[0] or "").strip(" \t")]
    elif (None,) in rows:
        return None
    return rows if len({len(row) for row in rows}) == 1 else None


def is_read_or_refused(folder: Path, text: str, chunk: int) -> bool:
    """Read a text; whether it was read, and rightly."""
    wanted = strictly(text)
    files = Files(header="none", names=NAMES[: len(wanted[0])] if wanted else NAMES[:2], null_values=())
    (folder / "x.csv").write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "CHUNK", chunk)
        try:
            found = read_csv(folder / "x.csv", files).rows()
        except MalformedCsv:
            found = None
    assert found == wanted, f"{text!r} was read otherwise"
    return found is not None


NAMES = tuple(f"column {place}" for place in range(12))
FIELDS = ["", "a", '"a"', '""', '"a""b"', '"a\nb"', '"a,b"', " a", '"\r\n"', '""""']
WRONG = ['"a"x', 'a"b', ' "a"', '"a" ', '"', '"a"""', 'a"', '"",', "\\"]


def field_by_field(folder: Path, *, seed: int, times: int) -> None:
    chance, outcomes = random.Random(seed), set()
    for _ in range(times):
        fields = FIELDS + WRONG * (chance.random() < 0.3)
        width = chance.choice([1, 2, 3])
        lines = [
            ",".join(chance.choice(fields) for _ in range(max(1, width + (chance.random() < 0.03))))
            for _ in range(chance.randint(1, 5))
        ]
        text = chance.choice(["\n", "\r\n"]).join(lines) + chance.choice(["", "\n", "\n\n"])
        if text.strip():
            outcomes.add(is_read_or_refused(folder, text, chance.choice([1, 3, 7, 1000])))
    assert outcomes == {True, False}


def test_other_texts_are_read_strictly_or_refused(tmp_path: Path) -> None:
    field_by_field(tmp_path, seed=0, times=600)


@pytest.mark.slow
def test_other_texts_are_read_strictly_or_refused_at_length(tmp_path: Path) -> None:
    field_by_field(tmp_path, seed=1, times=10_000)
