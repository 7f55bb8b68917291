"""Columns come into a table only where that was allowed, and the error says how to allow it."""

from collections.abc import Sequence

import dataframely as dy
import polars as pl
import pytest

from ml_platform.lake.contracts.schema_evolution import Evolution
from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.ingestion.ingest import DayRange, ingest
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.storage.tables import Lake
from ml_platform_tests.lake.ingestion.test_ingest import JANUARY


class Sales(dy.Schema):
    day = dy.Date()
    sale = dy.String(primary_key=True)


class SalesWithAmount(Sales):
    amount = dy.Float64(nullable=True, min=0)


class SalesWithNumber(dy.Schema):
    day = dy.Date()
    sale = dy.Int64(primary_key=True)


class OnlyDays(dy.Schema):
    day = dy.Date()


TWO = pl.DataFrame({"day": ["2013-01-01", "2013-01-02"], "sale": ["1", "2"]})
MORE = TWO.with_columns(amount=pl.Series(["1.5", "-1"]))


def _load(
    lake: Lake,
    frame: pl.DataFrame,
    contract: type[dy.Schema],
    evolution: Evolution = "reject",
    days: DayRange | None = None,
) -> Sequence[tuple[object, ...]]:
    ingest(lake, "raw/sales", contract, frame, source="till.csv", evolution=evolution, days=days)
    return lake.read("raw/sales").drop("day").sort("sale").collect().rows()


@pytest.mark.parametrize("days", [None, JANUARY])
def test_a_column_that_the_contract_gained_needs_leave(lake: Lake, days: DayRange | None) -> None:
    _load(lake, TWO, Sales, days=days)
    before = lake.versions(lake.tables())
    with pytest.raises(
        SchemaMismatch, match=r"'raw/sales' and its contract disagree: column 'amount'.*evolution: add_columns"
    ):
        _load(lake, MORE, SalesWithAmount, days=days)
    assert lake.versions(lake.tables()) == before, "something was written all the same"
    assert _load(lake, MORE, SalesWithAmount, "add_columns", days) == [("1", 1.5)]
    assert lake.read("quarantine/raw/sales").select("reasons").collect().item().to_list() == ["amount: below 0"]


def test_a_type_that_let_no_row_pass_can_be_corrected(lake: Lake) -> None:
    names = TWO.with_columns(sale=pl.lit("north ") + pl.col("sale"))
    assert not _load(lake, names, SalesWithNumber)
    assert _load(lake, names, Sales) == [("north 1",), ("north 2",)]
    with pytest.raises(SchemaMismatch, match="column 'sale': wanted String, found Int64"):
        _load(lake, TWO, SalesWithNumber)
    lake.replace("raw/sales", SalesWithNumber.create_empty())
    assert _load(lake, TWO, SalesWithNumber) == [(1,), (2,)]


def test_older_rows_are_null_in_an_added_column(lake: Lake) -> None:
    _load(lake, TWO, Sales, days=JANUARY)
    later = MORE.head(1).with_columns(day=pl.lit("2013-02-01"), sale=pl.lit("3"))
    february = DayRange("day", JANUARY.end, JANUARY.end.replace(month=3))
    assert _load(lake, later, SalesWithAmount, "add_columns", february) == [("1", None), ("2", None), ("3", 1.5)]


@pytest.mark.parametrize("days", [None, JANUARY])
def test_a_column_that_only_the_source_has_is_refused_or_taken_as_it_is(lake: Lake, days: DayRange | None) -> None:
    with pytest.raises(SchemaMismatch, match=r"column 'amount': not wanted, found String.*evolution: add_columns"):
        _load(lake, MORE, Sales, days=days)
    assert lake.tables() == []
    assert _load(lake, MORE, Sales, "add_columns", days) == [("1", "1.5"), ("2", "-1")]
    assert _load(lake, TWO, Sales, "add_columns", days) == [("1", None), ("2", None)]  # the source dropped it again


@pytest.mark.parametrize("evolution", ["reject", "add_columns"])
def test_a_type_never_changes_in_place(lake: Lake, evolution: Evolution) -> None:
    _load(lake, TWO, Sales)
    with pytest.raises(SchemaMismatch, match=r"column 'sale': wanted String, found Int64.*Lake\.replace"):
        _load(lake, TWO, SalesWithNumber, evolution)


def test_a_column_that_the_contract_lost_is_refused(lake: Lake) -> None:
    _load(lake, TWO, Sales)
    with pytest.raises(SchemaMismatch, match=r"column 'sale' \(String\) is missing.*Lake\.replace"):
        _load(lake, TWO.select("day"), OnlyDays)


def test_a_raw_table_says_it_once(lake: Lake) -> None:
    raw = RawTable(
        name="raw/sales",
        description="Sales.",
        source="till.csv",
        contract=Sales,
        read=lambda _start, _end: MORE,
        evolution="add_columns",
    )
    raw.load(lake)
    assert lake.schema("raw/sales").names() == ["day", "sale", "amount"]
