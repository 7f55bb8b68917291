"""Contracts held against the source's rows, or those of a sample file."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from ml_platform.testing import SampleHome, check_contract_holds
from ml_platform_tests.testing.shop_project import ORDERS, ShopProject

Home = Callable[..., SampleHome]
Tables = tuple[pl.DataFrame, pl.DataFrame]


def _with_negative(orders: pl.DataFrame, number: int) -> pl.DataFrame:
    return orders.with_columns(weight=pl.when(pl.int_range(pl.len()) < number).then(-1.0).otherwise("weight"))


def _declare_visits(project: ShopProject, text: str) -> None:
    folder = project.defs / "visits"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "tables.py").write_text(text)


def test_a_contract_that_its_source_meets_holds(project: ShopProject, make_home: Home) -> None:
    home = make_home()
    check_contract_holds("raw/orders", home)
    assert home.load("raw/orders").rows_read == 2_000
    assert home.lake.read("raw/orders").collect().height == 2_000


def test_a_contract_that_its_source_breaks_is_told_with_reasons_and_rows(
    project: ShopProject, tables: Tables, make_home: Home
) -> None:
    project.write_source("orders", ORDERS, _with_negative(tables[0], 20))
    home = make_home()
    with pytest.raises(AssertionError, match="found 20 of 2,000") as caught:
        check_contract_holds("raw/orders", home, rejected=0.009)
    assert "20 × weight: below 0" in str(caught.value)
    assert '"weight":-1.0' in str(caught.value).replace(" ", "")
    check_contract_holds("raw/orders", home, rejected=0.01)


def test_only_the_first_rows_are_kept(project: ShopProject, tables: Tables, make_home: Home) -> None:
    project.write_source("orders", ORDERS, _with_negative(tables[0], 2_000).tail(1_990).vstack(tables[0].head(10)))
    with pytest.raises(AssertionError, match="found 50 of 50"):
        check_contract_holds("raw/orders", make_home(rows=50))


def test_a_source_that_cannot_be_read_is_no_success_and_says_where_rows_may_be_put(
    project: ShopProject, make_home: Home
) -> None:
    (project.root / "files" / "orders.parquet").unlink()
    with pytest.raises(AssertionError, match="FileNotFoundError") as caught:
        check_contract_holds("raw/orders", make_home(samples=project.root / "samples"))
    assert f"put some of its rows into {project.root}/samples/raw/orders.csv" in str(caught.value)


def test_a_table_without_rows_is_no_success(project: ShopProject, make_home: Home) -> None:
    _declare_visits(project, PYTHON_TABLE)
    with pytest.raises(AssertionError, match="found none; nothing was compared"):
        check_contract_holds("raw/visits", make_home())


def test_of_a_dated_table_the_first_days_are_loaded(project: ShopProject, make_home: Home) -> None:
    _declare_visits(project, PYTHON_TABLE.replace("range(0)", "range((end - start).days)"))
    home = make_home(days=3)
    check_contract_holds("raw/visits", home)
    days = home.lake.read("raw/visits").collect().get_column("day").sort().to_list()
    assert days == [date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 3)]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_sample_file_stands_for_a_source(project: ShopProject, tables: Tables, make_home: Home, suffix: str) -> None:
    """A database here, for which there is no address; the contract and its conversions stay."""
    project.write_source("orders", ORDERS, None, file=None, sql={"url_variable": "NO_SUCH_URL", "query": "SELECT 1"})
    folder = project.root / "samples" / "raw"
    folder.mkdir(parents=True)
    rows = _with_negative(tables[0].head(100), 1).with_columns(
        pl.col("ordered_at", "known_at").dt.to_string("iso:strict")
    )
    writers: dict[str, Callable[[Path], None]] = {
        "csv": rows.write_csv, "parquet": rows.write_parquet, "jsonl": rows.write_ndjson
    }  # fmt: skip
    writers[suffix](folder / f"orders.{suffix}")
    home = make_home(samples=project.root / "samples")
    with pytest.raises(AssertionError, match="found 1 of 100"):
        check_contract_holds("raw/orders", home)
    check_contract_holds("raw/orders", home, rejected=0.01)
    assert home.lake.schema("raw/orders")["ordered_at"] == pl.Datetime("us", "UTC")


def test_two_samples_of_a_table_are_refused(project: ShopProject, tables: Tables, make_home: Home) -> None:
    folder = project.root / "samples" / "raw"
    folder.mkdir(parents=True)
    tables[0].write_parquet(folder / "orders.parquet")
    tables[0].write_csv(folder / "orders.csv")
    with pytest.raises(
        AssertionError, match=r"wanted one sample of raw/orders, found .*orders\.csv, .*orders\.parquet"
    ):
        check_contract_holds("raw/orders", make_home(samples=project.root / "samples"))


def test_an_unknown_table_is_told_with_those_that_there_are(project: ShopProject, make_home: Home) -> None:
    with pytest.raises(AssertionError, match=r"raw table 'raw/order' .* it has raw/loads, raw/orders"):
        check_contract_holds("raw/order", make_home())


def test_the_environment_does_not_lead_the_sample_elsewhere(
    project: ShopProject, make_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LAKE_URI", "TRACKING_URI", "ONLINE_URI", "HOME"):
        monkeypatch.setenv(f"ML_PLATFORM_{name}", str(project.root / "production"))
    home = make_home()
    check_contract_holds("raw/orders", home)
    assert not (project.root / "production").exists()
    assert str(home.settings.home) in home.settings.tracking_uri
    assert str(home.settings.home) in home.settings.online_uri


PYTHON_TABLE = """
from datetime import date, timedelta

import dataframely as dy
import polars as pl

from ml_platform.lake.ingestion.raw_table import Calendar, RawTable


class Visits(dy.Schema):
    day = dy.Date(primary_key=True)
    visits = dy.Int64(nullable=False)


def read(start, end):
    days = [start + timedelta(days=number) for number in range(0)]
    return pl.DataFrame({"day": days, "visits": [1] * len(days)}, schema={"day": pl.Date, "visits": pl.Int64})


RAW_TABLES = (
    RawTable(
        name="raw/visits",
        description="Visits of a day.",
        source="a generator",
        contract=Visits,
        read=read,
        calendar=Calendar("day", date(2024, 1, 1), date(2024, 3, 31)),
    ),
)
"""
