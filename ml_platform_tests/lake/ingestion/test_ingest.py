"""Ingest: nothing is lost, nothing is doubled, and a rejected row can be read with its reason."""

import json
from datetime import date, datetime

import dataframely as dy
import polars as pl
import pytest

from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.ingestion.ingest import DAY, DayRange, IngestReport, ingest
from ml_platform.lake.query.sql import query
from ml_platform.lake.storage.tables import Lake


class Sales(dy.Schema):
    day = dy.Date()
    sale = dy.String(primary_key=True)
    amount = dy.Float64(min=0)


def _rows(*rows: tuple[str, str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["day", "sale", "amount"], orient="row").with_columns(
        pl.col("day").str.to_date("%Y-%m-%d", strict=False).fill_null(date(2013, 1, 2)).alias(DAY)
    )


def _ingest(lake: Lake, frame: pl.DataFrame, days: DayRange | None = None) -> IngestReport:
    report = ingest(
        lake, "raw/sales", Sales, frame, source="sales.csv", days=days, partition_by=["day"] if days else []
    )
    assert report.rows_read == report.rows_written + report.rows_quarantined == frame.height
    return report


JANUARY = DayRange("day", date(2013, 1, 1), date(2013, 2, 1))
GOOD = [("2013-01-01", "a", "1"), ("2013-01-02", "b", "2"), ("2013-01-03", "c", "3")]
BAD = [("2013-01-02", "d", "lots"), ("2013-01-03", "c", "4"), ("someday", "e", "5"), ("2013-01-03", "f", "-1")]


def test_good_rows_go_on_and_bad_rows_keep_their_values_and_reasons(lake: Lake) -> None:
    report = _ingest(lake, _rows(*GOOD, *BAD), JANUARY)
    assert (report.rows_read, report.rows_written, report.rows_quarantined) == (7, 3, 4)
    assert report.reasons == {
        "amount: not a number": 1,
        "duplicate of sale (the first is kept)": 1,
        "day: not a date": 1,
        "amount: below 0": 1,
    }
    quarantined = lake.read(report.quarantine_table).sort("source_row").collect()
    assert [tuple(json.loads(row).values()) for row in quarantined["row"]] == BAD
    assert quarantined["source_row"].to_list() == [3, 4, 5, 6]
    assert quarantined["day"].to_list() == [date(2013, 1, 2), date(2013, 1, 3), date(2013, 1, 2), date(2013, 1, 3)]
    assert set(quarantined["source"]) == {"sales.csv"}
    assert (
        query(lake, 'SELECT reasons[1] FROM quarantine."raw/sales" WHERE source_row = 3').item()
        == "amount: not a number"
    )


def test_ingesting_again_changes_nothing(lake: Lake) -> None:
    first = _ingest(lake, _rows(*GOOD, *BAD), JANUARY)
    again = _ingest(lake, _rows(*GOOD, *BAD), JANUARY)
    assert again.version > first.version
    assert lake.read("raw/sales").collect().height == 3
    assert lake.read("quarantine/raw/sales").collect().height == 4


def test_one_day_inside_of_a_range_replaces_only_itself(lake: Lake) -> None:
    frame = _rows(*GOOD, *BAD)
    _ingest(lake, frame, JANUARY)
    second = DayRange("day", date(2013, 1, 2), date(2013, 1, 3))
    _ingest(lake, frame.filter(pl.col(DAY) == date(2013, 1, 2)), second)
    assert sorted(lake.read("raw/sales").collect()["sale"]) == ["a", "b", "c"]
    assert lake.read("quarantine/raw/sales").collect().height == 4


def test_a_corrected_source_empties_the_quarantine(lake: Lake) -> None:
    _ingest(lake, _rows(*GOOD, *BAD), JANUARY)
    report = _ingest(lake, _rows(*GOOD), JANUARY)
    assert (report.rows_quarantined, report.quarantined_share) == (0, 0.0)
    assert lake.read("quarantine/raw/sales").collect().is_empty()


def test_a_row_that_lies_outside_of_the_days_is_quarantined(lake: Lake) -> None:
    frame = _rows(("2013-01-01", "a", "1"), ("2031-01-01", "b", "2"))
    report = _ingest(lake, frame, JANUARY)
    assert report.reasons == {"day: outside of the ingested days": 1}


def test_a_table_without_days_is_replaced_as_a_whole(lake: Lake) -> None:
    _ingest(lake, _rows(*GOOD, *BAD))
    report = _ingest(lake, _rows(*GOOD[:1], *BAD[:1]))
    assert report.rows_written == lake.read("raw/sales").collect().height == 1
    assert lake.read("quarantine/raw/sales").collect().height == 1


def test_no_rows_give_an_empty_table(lake: Lake) -> None:
    report = _ingest(lake, _rows(*GOOD).clear(), JANUARY)
    assert report.rows_read == 0
    assert lake.read("raw/sales").collect().is_empty()


def test_wrong_columns_write_nothing(lake: Lake) -> None:
    _ingest(lake, _rows(*GOOD), JANUARY)
    with pytest.raises(SchemaMismatch, match="column 'amount': wanted Float64, found no such column"):
        _ingest(lake, _rows(*GOOD).drop("amount"), JANUARY)
    assert lake.version("raw/sales") == 2  # the empty table, its rows, its constraints
    assert lake.read("raw/sales").collect().height == 3


def test_rows_rejected_before_and_after_a_transform_keep_the_source_s_values(lake: Lake) -> None:
    class SalesFile(dy.Schema):
        date = dy.Date()
        sale = dy.String()
        cents = dy.Int64()

    frame = pl.DataFrame(
        {"date": ["2013-01-01"] * 3, "sale": ["a", "b", "c"], "cents": ["100", "x", "-5"]},
    )
    report = ingest(
        lake,
        "raw/sales",
        Sales,
        frame,
        source="sales.csv",
        raw_contract=SalesFile,
        transform=lambda rows: rows.select(day="date", sale="sale", amount=pl.col("cents") / 100),
    )
    assert lake.read("raw/sales").collect()["amount"].to_list() == [1.0]
    quarantined = lake.read("quarantine/raw/sales").sort("source_row").collect()
    assert [(json.loads(row)["cents"], reasons) for row, reasons in quarantined.select("row", "reasons").rows()] == [
        ("x", ["cents: not an integer"]),
        ("-5", ["amount: below 0"]),
    ]
    assert report.rows_read == 3


def test_a_transform_that_drops_rows_is_refused(lake: Lake) -> None:
    with pytest.raises(ValueError, match=r"made 1 rows of 3.*let the contract reject them"):
        ingest(lake, "raw/sales", Sales, _rows(*GOOD), source="sales.csv", transform=lambda rows: rows.head(1))


def test_a_range_of_no_days_is_refused() -> None:
    with pytest.raises(ValueError, match="start before end"):
        DayRange("day", date(2013, 1, 2), date(2013, 1, 2))


def test_values_that_json_does_not_have_are_kept_in_the_quarantine(lake: Lake) -> None:
    class Scans(dy.Schema):
        scan = dy.Binary()
        sharpness = dy.Float64(min=0)

    frame = pl.DataFrame({"scan": [b"\x00\xff", b"ok"] * 2, "sharpness": [float("nan"), 1.0, float("-inf"), -1.5]})
    report = ingest(lake, "raw/scans", Scans, frame, source="scans.parquet")
    assert report.rows_written == 1
    rows = [json.loads(row) for row in lake.read(report.quarantine_table).sort("source_row").collect()["row"]]
    assert rows == [
        {"scan": "base64:AP8=", "sharpness": "NaN"},
        {"scan": "base64:AP8=", "sharpness": "-inf"},
        {"scan": "base64:b2s=", "sharpness": "-1.5"},
    ]


def test_a_type_that_the_table_cannot_hold_writes_nothing_not_even_to_the_quarantine(lake: Lake) -> None:
    frame = _rows(*GOOD, *BAD).with_columns(at=pl.lit(datetime(2013, 1, 1)))
    with pytest.raises(SchemaMismatch, match="column 'at' is a timestamp without time zone"):
        ingest(lake, "raw/sales", Sales, frame, source="sales.csv", evolution="add_columns")
    assert lake.tables() == []
