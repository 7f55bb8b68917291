"""Values as they stand in files, read as a contract's types: each in one way, whatever stands beside it."""

from datetime import UTC, date, datetime
from typing import Any

import dataframely as dy
import polars as pl
import pytest

from ml_platform.lake.contracts.contract import ROW, apply_contract
from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.sources.source_spec import ColumnSpec

NOON = datetime(2024, 1, 2, 12, tzinfo=UTC)


def _read(values: list[Any] | pl.Series, **column: Any) -> list[Any]:
    """What a contract of one column makes of values: each the value, or the reason why it is rejected."""
    contract = type("rows", (dy.Schema,), {"x": ColumnSpec.model_validate({"nullable": True, **column}).build()})
    verdict = apply_contract(pl.DataFrame({"x": values}), contract, where="a file")
    read = dict(verdict.accepted.select(ROW, "x").rows()) | {
        row: reasons[0] for row, reasons in verdict.rejected.rows()
    }
    return [read[row] for row in range(len(values))]


ISO = {
    "2024-01-02": datetime(2024, 1, 2, tzinfo=UTC),
    "2024-01-02 12:00": NOON,
    "2024-01-02T12:00:00": NOON,
    "2024-01-02 12:00:00.000": NOON,
    "2024-01-02T12:00Z": NOON,
    "2024-01-02 12:00:00 UTC": NOON,
    "2024-01-02T13:00:00+01:00": NOON,
    "2024-01-02 07:00:00.0-0500": NOON,
    "2024-01-02 12:00:00+00": NOON,
    " 2024-1-2 12:00 ": NOON,
    "2024-02-30 12:00": "x: not a timestamp",
    "01/02/2024 12:00": "x: not a timestamp",
    "02.01.2024": "x: not a timestamp",
    "noon": "x: not a timestamp",
}


@pytest.mark.parametrize("first", range(len(ISO)))
def test_a_timestamp_is_iso_8601_whichever_is_the_first(first: int) -> None:
    texts = list(ISO)[first:] + list(ISO)[:first]
    assert _read(texts, type="timestamp") == [ISO[text] for text in texts]


def test_other_ways_to_write_are_declared() -> None:
    american = {"type": "timestamp", "format": "%m/%d/%Y %I:%M %p"}
    assert _read(["01/02/2024 12:00 PM"], **american) == [NOON]
    assert _read(["02.01.2024 12:00"], **american) == ["x: not a timestamp like %m/%d/%Y %I:%M %p"]
    assert _read(["2024/01/02 13.00 +0100"], type="timestamp", format="%Y/%m/%d %H.%M %z") == [NOON]
    assert _read(["1704196800"], type="timestamp", format="%s") == [NOON]
    assert _read(["2.1.2024", "2024-01-02"], type="date", format="%d.%m.%Y") == [
        date(2024, 1, 2),
        "x: not a date like %d.%m.%Y",
    ]


@pytest.mark.parametrize(
    ("texts", "column"),
    [
        (["24-01-02", "0024-01-02", "2024-01-02"], {"type": "date"}),
        (["02.01.24", "2.1.024", "02.01.2024"], {"type": "date", "format": "%d.%m.%Y"}),
        (["02.01.24 12:00", "2.1.24 1200", "02.01.2024 12:00"], {"type": "timestamp", "format": "%d.%m.%Y %H:%M"}),
        (
            ["24/01/02 12.00 +0000", "4/1/2 12.00 +0000", "2024/1/2 12.00 +0000"],
            {"type": "timestamp", "format": "%Y/%m/%d %H.%M %z"},
        ),
    ],
)
def test_a_year_of_two_digits_is_not_one_of_the_roman_empire(texts: list[str], column: dict[str, Any]) -> None:
    read = _read(texts, **column)
    assert read[0].startswith("x: not a ")  # not the year 24
    assert read[1] == date(24, 1, 2) if texts[1].startswith("00") else read[1].startswith("x: not a ")
    assert read[2] in (NOON, NOON.date())
    if "format" in column:
        assert _read(texts[:1], **{**column, "format": column["format"].replace("%Y", "%y")}) == read[2:]


def test_categories_are_texts() -> None:
    values = pl.Series(["a", None, "b"])
    for kind in (pl.Categorical(), pl.Enum(["a", "b"])):
        assert _read(values.cast(kind), type="string") == ["a", None, "b"]


@pytest.mark.parametrize("kind", [str, datetime.fromisoformat])
def test_local_times_are_placed_by_their_clock_and_rejected_where_it_was_changed(kind: Any) -> None:
    clock = ["2024-07-01 12:00", "2024-03-31 02:30", "2024-10-27 02:30", "2024-10-27 03:30"]
    unclear = "x: not a timestamp of Europe/Berlin (or one that the clocks show twice)"
    assert _read(list(map(kind, clock)), type="timestamp", time_zone="Europe/Berlin") == [
        datetime(2024, 7, 1, 10, tzinfo=UTC),
        unclear,
        unclear,
        datetime(2024, 10, 27, 2, 30, tzinfo=UTC),
    ]


def test_an_offset_goes_before_the_declared_clock() -> None:
    assert _read(["2024-10-27 02:30+02:00"], type="timestamp", time_zone="Europe/Berlin") == [
        datetime(2024, 10, 27, 0, 30, tzinfo=UTC)
    ]


def test_a_typed_timestamp_without_zone_wants_its_clock_declared() -> None:
    with pytest.raises(SchemaMismatch, match=r"time_zone=None.*say in the column's time_zone which clock it is by"):
        _read([datetime(2024, 1, 2, 12)], type="timestamp")
    assert _read([datetime(2024, 1, 2, 12)], type="timestamp", time_zone="UTC") == [NOON]
    assert _read([date(2024, 1, 2)], type="timestamp") == [datetime(2024, 1, 2, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("1,234.5", {"1,234,567.5": 1234567.5, "1234.5": 1234.5, "-1,000": -1000, "1,5": None, "1.234,5": None}),
        ("1.234,5", {"1.234.567,5": 1234567.5, "1234,5": 1234.5, "0,05": 0.05, "1.5": None, "1,234.5": None}),
        ("1 234,5", {"1 234,5": 1234.5, "1\u00a0234,5": 1234.5, "12 34": None}),
        ("1'234.5", {"1'234.5": 1234.5}),
    ],
)
def test_numbers_with_separators_are_read_as_declared_and_never_by_guess(
    form: str, values: dict[str, float | None]
) -> None:
    reason = f"x: not a number like {form}"
    assert _read(list(values), type="number", format=form) == [
        reason if value is None else value for value in values.values()
    ]
    assert _read(["1,234.5", "1.234,5"], type="number") == ["x: not a number"] * 2


def test_whole_numbers_are_integers_however_they_are_written() -> None:
    assert _read(["1", "2.0", "3.", "+4", "5.5", "1e3"], type="integer") == [1, 2, 3, 4, *["x: not an integer"] * 2]
    assert _read(["1.000", "1.000,0"], type="integer", format="1.234,5") == [1000, 1000]


def test_integers_of_a_typed_file_can_be_names() -> None:
    assert _read([10115, None], type="string") == ["10115", None]
    with pytest.raises(SchemaMismatch, match="wanted String, found Float64"):
        _read([1.5], type="string")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"type": "number", "format": "1_234"}, r"format of a number is one of 1,234\.5, 1\.234,5.*found 1_234"),
        (
            {"type": "date", "format": "DD.MM.YYYY"},
            r"cannot be DD\.MM\.YYYY: wanted is something like %d\.%m\.%Y",
        ),
        ({"type": "timestamp", "format": "%H:%M %Z"}, "%Z is not supported"),
        ({"type": "timestamp", "format": "%d.%m.%Y %H"}, r"cannot be %d\.%m\.%Y %H: .*specify both hour and minute"),
        ({"type": "string", "format": "%d"}, "format is for numbers, dates and timestamps; the type is string"),
        ({"type": "timestamp", "time_zone": "Berlin"}, "like Europe/Berlin; found timestamp, Berlin"),
        ({"type": "date", "time_zone": "UTC"}, "time_zone is for timestamp"),
    ],
)
def test_a_way_to_write_that_makes_no_sense_is_refused(column: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColumnSpec.model_validate(column)
