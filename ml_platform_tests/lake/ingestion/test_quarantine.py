"""The quarantine is emptied: rows are corrected and re-admitted, recorded, and none is lost or doubled by a crash."""

import io
import json
from collections.abc import Callable
from datetime import date
from pathlib import Path

import dataframely as dy
import polars as pl
import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.defs.flights.tables import RAW_TABLES
from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.ingestion.ingest import DAY
from ml_platform.lake.ingestion.quarantine import ID, RECORD, look, readmissions, readmit
from ml_platform.lake.ingestion.raw_table import Calendar, RawTable
from ml_platform.lake.storage import commits
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings


class SalesFile(dy.Schema):
    day = dy.Date()
    sale = dy.String()
    cents = dy.Int64()


class Sales(dy.Schema):
    day = dy.Date()
    sale = dy.String(primary_key=True)
    amount = dy.Float64(min=0)


ROWS = [("a", "100"), ("b", "many"), ("c", "-1"), ("a", "200")]


def _source(_start: date | None, _end: date | None) -> pl.DataFrame:
    return pl.DataFrame(ROWS, schema=["sale", "cents"], orient="row").with_columns(
        pl.lit("2013-01-02").alias("day"), pl.lit(date(2013, 1, 2)).alias(DAY)
    )


SALES = RawTable(
    name="raw/sales",
    description="Sales.",
    source="till.csv",
    contract=Sales,
    raw_contract=SalesFile,
    transform=lambda rows: rows.select("day", "sale", amount=pl.col("cents") / 100),
    read=_source,
    calendar=Calendar("day", date(2013, 1, 1), date(2013, 1, 31)),
)


def _sales(lake: Lake) -> list[tuple[str, float]]:
    return lake.read("raw/sales").select("sale", "amount").sort("sale").collect().rows()


def _with_cents(rows: pl.DataFrame, **cents: str) -> pl.DataFrame:
    """The rows of some sales, corrected."""
    return rows.filter(pl.col("sale").is_in(list(cents))).with_columns(pl.col("sale").replace(cents).alias("cents"))


def test_what_was_rejected_is_shown_with_reasons_and_the_source_s_values(lake: Lake) -> None:
    told: list[str] = []
    SALES.load(lake, progress=told.append)
    assert told == [
        "reading till.csv, 2013-01-01 to 2013-01-31",
        "4 rows read; checking them against the contract",
        "writing 1 rows; 3 go to the quarantine",
    ]
    shown = look(lake, "raw/sales")
    assert shown.select("sale", "cents").rows() == ROWS[1:]
    assert shown["quarantine_reasons"].to_list() == [
        ["cents: not an integer"],
        ["amount: below 0"],
        ["duplicate of sale (the first is kept)"],
    ]
    assert shown[ID].is_unique().all()


def test_corrected_rows_move_and_the_others_stay_with_their_reasons(lake: Lake) -> None:
    SALES.load(lake)
    rows = look(lake, "raw/sales")
    ids = dict(rows.filter(pl.col("cents") != "200").select("sale", ID).rows())
    double = rows.filter(pl.col("cents") == "200")
    report = readmit(
        lake, SALES, pl.concat([_with_cents(rows, b="250", c="-2"), double]), by="ann", note="asked the till"
    )
    assert (report.admitted, report.gone) == (1, 0)
    assert report.refused == {
        ids["c"]: ["amount: below 0"],
        double[ID].item(): ["the table has a row with this sale already"],
    }
    assert _sales(lake) == [("a", 1.0), ("b", 2.5)]
    assert sorted(look(lake, "raw/sales")["cents"]) == ["-1", "200"]


def test_who_when_and_what_is_recorded(lake: Lake) -> None:
    SALES.load(lake)
    assert readmissions(lake, "raw/sales").is_empty()
    readmit(lake, SALES, _with_cents(look(lake, "raw/sales"), b="250"), by="ann", note="asked the till")
    (row,) = readmissions(lake, "raw/sales").rows(named=True)
    assert (row["by"], row["note"], row["source"], row["source_row"]) == ("ann", "asked the till", "till.csv", 1)
    assert row["reasons"] == ["cents: not an integer"]
    assert (json.loads(row["before"])["cents"], json.loads(row["after"])["cents"]) == ("many", "250")


def test_handing_the_same_rows_in_again_changes_nothing(lake: Lake) -> None:
    SALES.load(lake)
    corrected = _with_cents(look(lake, "raw/sales"), b="250", c="5")
    readmit(lake, SALES, corrected, by="ann", note="x")
    again = readmit(lake, SALES, corrected, by="bob", note="x")
    assert (again.admitted, again.gone, again.refused) == (0, 2, {})
    assert _sales(lake) == [("a", 1.0), ("b", 2.5), ("c", 0.05)]
    assert set(readmissions(lake, "raw/sales")["by"]) == {"ann"}


class Crash(Exception):
    """The process ends here."""


def _crashing_after(commits_made: int) -> Callable[..., object]:
    left = [commits_made]
    retried = commits.retried

    def dies(*arguments: object, **named: object) -> object:
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        return retried(*arguments, **named)  # type: ignore[arg-type]

    return dies


@pytest.mark.parametrize("commits_made", range(4))
def test_a_crash_between_any_two_commits_loses_and_doubles_nothing(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, commits_made: int
) -> None:
    SALES.load(lake)
    corrected = _with_cents(look(lake, "raw/sales"), b="250", c="5")
    with monkeypatch.context() as patched:
        patched.setattr(commits, "retried", _crashing_after(commits_made))
        try:
            readmit(lake, SALES, corrected, by="ann", note="x")
            assert commits_made == 3, "there are more commits than this test knows of"
        except Crash:
            assert commits_made < 3
    in_table, waiting = [sale for sale, _ in _sales(lake)], look(lake, "raw/sales")["sale"].to_list()
    assert sorted(in_table + waiting) == ["a", "a", "b", "c"]
    assert readmissions(lake, "raw/sales").height == len(in_table) - 1

    readmit(lake, SALES, corrected, by="bob", note="again")
    assert _sales(lake) == [("a", 1.0), ("b", 2.5), ("c", 0.05)]
    assert look(lake, "raw/sales")["cents"].to_list() == ["200"]
    assert lake.read("quarantine/raw/sales").collect().height == 1
    assert set(readmissions(lake, "raw/sales")["by"]) == {"ann" if commits_made >= 2 else "bob"}
    assert lake.read(RECORD).collect().height >= 2


def test_rows_without_their_id_or_with_other_columns_are_refused(lake: Lake) -> None:
    SALES.load(lake)
    rows = look(lake, "raw/sales")
    with pytest.raises(ValueError, match="want the column 'quarantine_id'"):
        readmit(lake, SALES, rows.drop(ID), by="ann", note="x")
    with pytest.raises(SchemaMismatch, match="corrected rows for 'raw/sales': column 'cents'"):
        readmit(lake, SALES, rows.drop("cents"), by="ann", note="x")
    assert look(lake, "raw/sales").equals(rows)


def unknown_is_2004(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.col("year").replace("0", "2004"))


@pytest.fixture
def planes(lake: Lake, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Real planes, of which the file gives some with the year 0; returns the registrations of those."""
    (raw,) = [raw for raw in RAW_TABLES if raw.name == "raw/planes"]
    folder = tmp_path / "csv"
    folder.mkdir()
    wrong = (
        raw.read(None, None)
        .head(50)
        .with_row_index("i")
        .with_columns(pl.when(pl.col("i") < 3).then(pl.lit("0")).otherwise("year").alias("year"))
    )
    wrong.drop("i").write_csv(folder / "planes.csv", null_value="NA")
    monkeypatch.setenv("ML_PLATFORM_FLIGHTS_DIR", str(folder))
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    assert raw.load(lake).rows_quarantined == 3
    return sorted(wrong.head(3)["tailnum"])


def _command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["quarantine", *arguments])
    return result.exit_code, result.output


def test_from_the_terminal_a_csv_is_shown_corrected_and_handed_in(
    planes: list[str], lake: Lake, tmp_path: Path
) -> None:
    code, text = _command("show", "raw/planes", "--format", "csv")
    assert code == 0
    shown = pl.read_csv(io.StringIO(text), infer_schema=False)
    assert sorted(shown["tailnum"]) == planes
    file = tmp_path / "corrected.csv"
    unknown_is_2004(shown).head(2).write_csv(file)
    code, text = _command("readmit", "raw/planes", "--file", str(file), "--note", "the registry")
    assert (code, text.splitlines()[0]) == (0, "2 rows re-admitted to raw/planes, now at version 2.")
    code, text = _command(
        "readmit", "raw/planes", "--function", f"{__name__}:unknown_is_2004", "--note", "the registry"
    )
    assert (code, text.splitlines()[0]) == (0, "1 rows re-admitted to raw/planes, now at version 3.")
    assert lake.read("raw/planes").select(pl.len()).collect().item() == 50
    code, text = _command("history", "raw/planes", "--format", "json")
    assert {row["note"] for row in json.loads(text)} == {"the registry"}


def test_from_the_terminal_rows_that_stay_are_told_by_the_exit_code(
    planes: list[str], lake: Lake, tmp_path: Path
) -> None:
    _, text = _command("show", "raw/planes", "--format", "csv")
    shown = pl.read_csv(io.StringIO(text), infer_schema=False)
    file = tmp_path / "corrected.csv"
    pl.concat([unknown_is_2004(shown.head(1)), shown.tail(2)]).write_csv(file)
    code, text = _command("readmit", "raw/planes", "--file", str(file), "--note", "the registry")
    assert code == 1
    assert text.splitlines()[0] == "1 rows re-admitted to raw/planes, now at version 2."
    assert sum(" stays: " in line for line in text.splitlines()) == 2
    assert lake.read("raw/planes").select(pl.len()).collect().item() == 48


def test_from_the_terminal_a_table_without_rejected_rows_has_none(planes: list[str], lake: Lake) -> None:
    lake.append("raw/flawless", pl.DataFrame({"value": [1]}))
    assert _command("show", "raw/flawless") == (0, "The quarantine holds no rows of raw/flawless.\n")
    assert _command("history", "raw/flawless")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "raw/plane"], "has no table 'raw/plane'; "),
        (["history", "raw/plane"], "Did you mean 'raw/planes'?"),
        (["readmit", "raw/plane", "--file", "x.csv", "--note", "x"], "Did you mean 'raw/planes'?"),
        (["readmit", "raw/planes", "--note", "x"], "Give either corrected rows with --file"),
        (["readmit", "raw/planes", "--file", "no.csv", "--note", "x"], "Nothing was re-admitted to raw/planes"),
        (["readmit", "raw/planes", "--function", "json:fix", "--note", "x"], "found no function 'json:fix'"),
    ],
)
def test_a_mistake_in_the_terminal_is_explained(planes: list[str], arguments: list[str], message: str) -> None:
    code, text = _command(*arguments)
    assert code == 1
    assert message in text
