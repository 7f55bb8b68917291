"""Files as people have them: one command makes a table of each, which takes every row, or says why there is none."""

import csv
import io
import random
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster_shared.yaml_utils import parse_yaml_with_source_position
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.lake.sources.from_spec import raw_table
from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.lake.storage.tables import Lake
from ml_platform.orchestration.scaffolding import ScaffoldError
from ml_platform.orchestration.source_scaffold import SourceTableParams, SourceTableScaffolder
from ml_platform.yaml_documents import documents

NAME = "ml_platform.orchestration.SourceTable"


def scaffold(folder: Path, path: Path) -> tuple[dict[str, Any], list[str]]:
    """What one command writes, and its notes."""
    folder.mkdir(parents=True)  # as `dg` does before
    request = dg.ScaffoldRequest(
        type_name=NAME,
        target_path=folder,
        scaffold_format="yaml",
        project_root=None,
        params=SourceTableParams(path=str(path)),
    )
    SourceTableScaffolder().scaffold(request)
    text = (folder / "defs.yaml").read_text(encoding="utf-8")
    notes = [line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ")]
    return yaml.safe_load(text)["attributes"], notes


def rows_of(folder: Path, declared: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The table that a declaration makes of its own source, which loses no row."""
    lake = Lake(str(folder / "lake"))
    report = raw_table(SourceSpec.model_validate(declared)).load(lake)
    assert (report.rows_quarantined, report.reasons) == (0, {})
    columns = declared["columns"]
    return lake.read(declared["name"]).select(list(columns)).collect().rows()


def write(folder: Path, content: str | bytes, name: str = "x.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


BANK = """Kontoumsätze Girokonto
IBAN;DE12 3456 7890
Zeitraum;01.12.2023 - 31.01.2024

Buchungstag;Verwendungszweck;Betrag;Währung
31.12.2023;"REWE; SAGT DANKE";-45,90;EUR
02.01.2024;Gehalt;3.200,00;EUR
"""
SAP = """Material;Menge;Wert
100-100;12;   1.234,50
100-200; 3;     -10,00
"""
MULTILINE = 'id,comment\r\n1,"Hello,\r\nworld"\r\n2,"a ""b"""\r\n'
FILES: dict[str, tuple[str | bytes, list[tuple[Any, ...]], str]] = {
    "export of a bank": (
        BANK.encode("cp1252"),
        [
            (date(2023, 12, 31), "REWE; SAGT DANKE", -45.9, "EUR"),
            (date(2024, 1, 2), "Gehalt", 3200.0, "EUR"),
        ],
        "Lines above the header are left out: Kontoumsätze Girokonto / IBAN",
    ),
    "Excel with empty columns and rows": (
        "a,b,,\n1,x,,\n2,y,,\n,,,\n,,,\n",
        [(1, "x"), (2, "y")],
        "Lines of separators",
    ),
    "Excel with a title over all columns": ("Report 2024,,\nid,n,s\n1,2.5,x\n", [(1, 2.5, "x")], "Report 2024"),
    "Excel with several titles over all columns": (
        "Sales;;\nas of 2024-06-01;;\n;;\n\nid;n;s\n1;2,5;x\n",
        [(1, 2.5, "x")],
        "Lines above the header are left out: Sales;; / as of 2024-06-01;;",
    ),
    "Excel with values under no name": (
        "a,b,\n1,2,x\n3,4,y\n",
        [(1, 2, "x"), (3, 4, "y")],
        "names lists all: column_3",
    ),
    "Excel with errors in cells": ("id,v\n1,#N/A\n2,3\n3,#DIV/0!\n", [(1, None), (2, 3), (3, None)], ""),
    "Excel's text in UTF-16": ("id\tgröße\n1\t2,5\n".encode("utf-16"), [(1, 2.5)], ""),
    "UTF-16 without mark": ("id;ö\n1;a\n".encode("utf-16-be"), [(1, "a")], ""),
    "R's write.csv": ('"","speed"\n"1",4\n"2",7\n', [(4,), (7,)], "left out that have no name"),
    "R's write.csv of named rows": (
        '"","mpg"\n"Mazda",21\n"Fiat",32.4\n',
        [("Mazda", 21), ("Fiat", 32.4)],
        "column_1",
    ),
    "R's write.table": ('"speed" "dist"\n"1" 4 2\n"2" 4 10\n', [(1, 4, 2), (2, 4, 10)], "row_name was added to names"),
    "an index X": ("X,v\n1,5\n2,6\n", [(1, 5), (2, 6)], "Column X counts the rows"),
    "numbers aligned right": (SAP, [("100-100", 12, 1234.5), ("100-200", 3, -10.0)], ""),
    "a total": ("id,v\n1,2.5\n2,3.5\nTotal,6.0\n", [(1, 2.5), (2, 3.5)], "looks like a total and is left out: Total"),
    "a total among texts": (
        "shop,v\nA,2\nTotal,2\n",
        [("A", 2), ("Total", 2)],
        "say skip_last_lines: 1 beside its path. Found: Total",
    ),
    "a total of sums among texts": (
        "Filiale;Ort;Menge;Wert\nNord;Kiel;2;1.000,50\nSüd;Ulm;3;10,25\nSumme;;5;1.010,75\n",
        [("Nord", "Kiel", 2, 1000.5), ("Süd", "Ulm", 3, 10.25)],
        "looks like a total and is left out: Summe, , 5, 1.010,75",
    ),
    "sums with another label": ("shop,v\nA,2\nB,3\nC,5\n", [("A", 2), ("B", 3), ("C", 5)], ""),
    "a total that is no sum": (
        "shop,v\nA,2\nB,3\nTotal,6\n",
        [("A", 2), ("B", 3), ("Total", 6)],
        "is kept as a row; if it is a total, say skip_last_lines: 1 beside its path. Found: Total, 6",
    ),
    "a row that begins like a total": (
        "shop,v\nA,2\nB,3\nTotal Wine,5\n",
        [("A", 2), ("B", 3), ("Total Wine", 5)],
        "is kept as a row",
    ),
    "a total row with a text": (
        "shop,place,v\nA,x,2\nB,y,3\nTotal,z,5\n",
        [("A", "x", 2), ("B", "y", 3), ("Total", "z", 5)],
        "is kept as a row",
    ),
    "zeros and a total": ("shop,v\nA,0\nB,0\nTotal,0\n", [("A", 0), ("B", 0), ("Total", 0)], "is kept as a row"),
    "a total above a footer": (
        "shop,v,w\nA,2,x\nB,3,y\nTotal,9,\n\n2 rows\n",
        [("A", 2, "x"), ("B", 3, "y"), ("Total", 9, None)],
        "is kept as a row; if it is a total, say skip_last_lines: 2 beside its path. Found: Total, 9,",
    ),
    "a total without a name": ("id,v\n1,2\n2,3\n,5\n", [(1, 2), (2, 3), (None, 5)], "no value in its first column"),
    "a footer": ("id,v,w\n1,2,a\n2,3,b\n\n2 rows\n", [(1, 2, "a"), (2, 3, "b")], "last lines are left out: 2 rows"),
    "lines within quotes": (MULTILINE, [(1, "Hello,\r\nworld"), (2, 'a "b"')], ""),
    "commas in a tab-separated file": ("name\tnote, x\n1\t2, y\n", [(1, "2, y")], ""),
    "the same name twice": ("a,b,A\n1,2,3\n", [(1, 2, 3)], "names lists all: a, A_3"),
    "names that Python keeps for itself": ("__id,filter,columns,a|b\n1,2,3,4\n", [(1, 2, 3, 4)], ""),
    "names that mean several columns": (
        "id,*,^i.*$,a*\n1,2,3,4\n",
        [(1, 2, 3, 4)],
        "* and ^…$, which no column can have; names lists all: column_2, column_3",
    ),
    "names that YAML reads otherwise": ("yes,null,1.5,<<,a: b\n1,2,3,4,5\n", [(1, 2, 3, 4, 5)], ""),
    "two-digit years": ("id,d\n1,31.12.24\n2,01.02.24\n", [(1, "31.12.24"), (2, "01.02.24")], 'format: "%d.%m.%y"'),
    "shares": ("id,s\n1,12.5%\n2,3%\n", [(1, "12.5%"), (2, "3%")], "Column s is a string, and looks like shares in %"),
    "currencies": ("id,p\n1,$3.00\n2,$4.50\n", [(1, "$3.00"), (2, "$4.50")], "numbers with blanks or a currency"),
    "a minus behind": ("id,v\n1,12.5-\n2,3.0\n", [(1, -12.5), (2, 3.0)], ""),
    "a minus behind or thousands": (
        "id;v\n1;12,500-\n2;3,000\n",
        [(1, "12,500-"), (2, "3,000")],
        "the minus behind them",
    ),
    "yes and no": ("id,v\n1,yes\n2,no\n", [(1, "yes"), (2, "no")], "looks like yes or no: a boolean is true, false"),
    "a text among numbers": (
        "v,w\n1,a\n2,a\n3,a\nn.a.,a\n",
        [("1", "a"), ("2", "a"), ("3", "a"), ("n.a.", "a")],
        "numbers or dates but for 'n.a.': say null_values:",
    ),
    "Latin-1": (
        "id,v\n1,Köln\n".encode("latin-1"),
        [(1, "Köln")],
        "cp1252 was guessed. If this reads wrongly, say another encoding: Köln",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_some_program_is_a_table_after_one_command(tmp_path: Path, kind: str) -> None:
    content, rows, note = FILES[kind]
    declared, notes = scaffold(tmp_path / "defs" / "shop", write(tmp_path, content))
    assert rows_of(tmp_path, declared) == rows
    assert any(note in said for said in notes) if note else not notes, notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "x.csv is empty: there is nothing to guess from"),
        ("\ufeff\n\n", "is empty: there is nothing to guess from"),
        ("a,b,c\n", r"has a header \(a, b, c\) and no rows"),
        ("a" * 100_000 + "\n", r"has a header \(a{200}\) and no rows"),
        ("<html><title>Sign in</title></html>", r"it is an HTML page, as a login or an error is \(Sign in\)"),
        (b"PK\x03\x04\x14\0xl/workbook.xml", "it is an Excel file"),
        (b"\x1f\x8b\x08\0cut off", "EOFError|cannot be|Compressed|CRC|Error"),
        ("id,v\n1,2\nid,v\n3,4\n", "row 2 below the header repeats the header: files were joined there"),
        ("id,v\n1,2\n\ufeffid,v\n3,4\n", "line 3 begins with a byte order mark"),
        ("id,v\n1,2\n3,4,5\n6,7,8\n", "line 3 has 3 fields, the header has 2"),
        ("id,v\n1,2\n3", "line 3 has 1 field, the header has 2: the file may have been cut off"),
        ("ingest_row,v\n1,2\n", "ingest has a column ingest_row of its own: name it otherwise"),
    ],
)
@pytest.mark.parametrize("as_folder", [False, True])
def test_a_file_of_which_no_table_can_be_made_is_refused_and_leaves_nothing(
    tmp_path: Path, content: str | bytes, message: str, as_folder: bool
) -> None:
    path = write(tmp_path, content, "in/x.csv")
    (tmp_path / "defs").mkdir()
    (tmp_path / "defs" / "__init__.py").touch()
    wanted = message.replace("x.csv is empty", "(x.csv|in) is empty")
    with pytest.raises(ScaffoldError, match=wanted) as error:
        scaffold(tmp_path / "defs" / "shop" / "x", path.parent if as_folder else path)
    assert "\n" not in error.value.message
    assert len(error.value.message) < 700
    assert [found.name for found in (tmp_path / "defs").iterdir()] == ["__init__.py"]


def test_an_empty_file_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "", "in/1.csv")
    write(tmp_path, "id;v\n1;2,5\n", "in/2.csv")
    declared, _ = scaffold(tmp_path / "defs" / "x", tmp_path / "in")
    assert declared["columns"] == {"id": {"type": "integer"}, "v": {"type": "number", "format": "1.234,5"}}


@pytest.mark.parametrize(
    ("first", "second"), [(TOTALLED := "s,v\na,1\nb,2\nTotal,3\n", ROWS := "s,v\na,1\nb,3\n"), (ROWS, TOTALLED)]
)
def test_files_of_a_folder_of_which_some_end_in_a_total_are_refused(tmp_path: Path, first: str, second: str) -> None:
    """The last rows of the others would be lost, or the totals be rows."""
    write(tmp_path, first, "in/1.csv")
    write(tmp_path, second, "in/2.csv")
    with pytest.raises(
        ScaffoldError, match=r"2\.csv ends in [01] lines that look like no rows .* skip_last_lines is one"
    ):
        scaffold(tmp_path / "defs" / "x", tmp_path / "in")


def test_files_of_a_folder_that_all_end_in_a_total_lose_that_line_alone(tmp_path: Path) -> None:
    for number in (1, 2):
        write(tmp_path, f"s,v\na,{number}\nb,2\nTotal,{number + 2}\n", f"in/{number}.csv")
    declared, _ = scaffold(tmp_path / "defs" / "x", tmp_path / "in")
    assert declared["folder"]["skip_last_lines"] == 1


def test_a_line_that_may_be_a_total_is_noted_of_each_file_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "s,v\na,1\nb,2\n", "in/1.csv")
    write(tmp_path, "s,v\na,1\nTotal,7\n", "in/2.csv")
    _, notes = scaffold(tmp_path / "defs" / "x", tmp_path / "in")
    assert [note for note in notes if "2.csv: The last line looks like a total and is kept as a row" in note]


# -- Any file at all.
NAMES = st.one_of(
    st.sampled_from(
        ["id", "ID", "X", "__id", "filter", "columns", "a|b", "a b", " a", "", "yes", "1", "2024", "<<", "*", "^i.*$"]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=5),
)
KINDS: Sequence[st.SearchStrategy[str]] = (
    st.integers(-(2**70), 2**70).map(str),
    st.integers(0, 99).map(lambda number: f"{number:>6}"),
    st.floats().map(repr),
    st.floats(-1e9, 1e9).map(lambda number: f"{number:,.2f}"),
    st.floats(0, 1e9).map(lambda number: f"{number:,.2f}".translate(str.maketrans(",.", ".,"))),
    st.dates().map(str),
    st.dates().map(lambda day: f"{day:%d.%m.%Y}"),
    st.dates().map(lambda day: f"{day:%m/%d/%y}"),
    st.datetimes().map(lambda at: at.isoformat()),
    st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(lambda at: f"{at:%Y-%m-%d %H:%M}+02:00"),
    st.sampled_from(["true", "false"]),
    st.sampled_from(["0", "1"]),
    st.sampled_from(["yes", "no", "NA", "-", ""]),
    st.sampled_from(["NA", "1", "2.5", "", "#N/A"]),
    st.text(st.sampled_from("ab1 ,;\t|\"'\n\r.-%€="), max_size=6),
    st.text(max_size=4),
    st.just(""),
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    names = draw(st.lists(NAMES, min_size=1, max_size=5))
    kinds = [draw(st.sampled_from(KINDS)) for _ in names]
    rows = draw(st.lists(st.tuples(*kinds), min_size=0, max_size=6))
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=draw(st.sampled_from(",;\t|")),
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    above = draw(st.sampled_from(["", "", "", "Report 2024\n", "Report\n\n", "sep=;\n"]))
    writer.writerows([names] * draw(st.sampled_from([0, 1, 1, 1])))
    writer.writerows(rows)
    below = draw(st.sampled_from(["", "", "", "\n", ",,\n", "Total\n", "x,y,z,1"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]))
    content = (above + text.getvalue() + below).encode(encoding, errors="replace")
    cut = draw(st.integers(0, 40))
    return content[: len(content) - cut] if cut < 5 else content


def is_table_or_refused(folder: Path, content: bytes, number: int) -> bool:
    """Whether a file is a table of all its rows; if not, that it was refused in a line and nothing was left."""
    place = folder / f"{number}"
    path, target = write(place, content), place / "defs" / "shop"
    try:
        declared, _ = scaffold(target, path)
    except ScaffoldError as error:
        refused = error.message
    else:
        refused = ""
    if refused:
        assert "\n" not in refused
        assert not target.parent.exists()
        return False
    (document,) = documents(target / "defs.yaml")
    assert document.validate(SourceSpec) == SourceSpec.model_validate(declared)
    read = parse_yaml_with_source_position((target / "defs.yaml").read_text(encoding="utf-8"))
    assert read.value["attributes"] == declared  # by Dagster
    rows_of(place, declared)
    return True


QUICK = settings(
    derandomize=True, max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_NUMBERS = random.Random(0)


@QUICK
@given(files())
def test_whatever_is_scaffolded_takes_all_rows_of_its_own_file(tmp_path: Path, content: bytes) -> None:
    is_table_or_refused(tmp_path, content, _NUMBERS.getrandbits(60))


@pytest.mark.slow
@settings(QUICK, max_examples=1_000, derandomize=False, print_blob=True)  # `--hypothesis-seed` chooses others
@given(files())
def test_whatever_is_scaffolded_takes_all_rows_of_its_own_file_at_length(tmp_path: Path, content: bytes) -> None:
    is_table_or_refused(tmp_path, content, _NUMBERS.getrandbits(60))
