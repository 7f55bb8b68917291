"""Sums of trailing windows in NumPy: the rows of the compiled SQL, and no trace of what left a window."""

import math
from datetime import timedelta

import duckdb
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform.features.rolling import numpy_engine
from ml_platform.features.rolling.numpy_engine import compute_sums
from ml_platform.features.rolling.spec import Rolling

AGGREGATES = {
    "sales": {"function": "count", "description": "Sales."},
    "revenue": {"function": "sum", "column": "amount", "description": "Takings."},
    "basket": {"function": "mean", "column": "amount", "description": "Mean sale."},
    "pieces": {"function": "sum", "column": "pieces", "description": "Things sold."},
    "cash": {"function": "mean", "column": "cash", "description": "Share of the sales that were paid in cash."},
    "coins": {"function": "sum", "column": "cash", "description": "Sales that were paid in cash."},
}
ENTITY = ("shop", "till")


def declared(**changes: object) -> Rolling:
    windows = [timedelta(minutes=20), timedelta(hours=3)]
    plain = {"source": "raw/sales", "time": "sold_at", "filter": "status <> 'void'", "windows": windows}
    return Rolling.model_validate({**plain, "aggregates": AGGREGATES, **changes})


def sales(rows: int = 600) -> pl.DataFrame:
    random = np.random.default_rng(5)
    amounts = [None if n % 7 == 0 else float(v) for n, v in enumerate(random.normal(20, 5, rows))]
    for place, value in ((50, 1e20), (90, math.inf), (130, math.nan), (170, -math.inf)):
        amounts[place] = value
    return pl.DataFrame(
        {
            "shop": [("a", "b", "c", None)[n] for n in random.integers(0, 4, rows)],
            "till": random.integers(1, 3, rows),
            "sold_at": pl.Series(random.integers(0, 1500, rows) * 60_000_000).cast(pl.Datetime("us", "UTC")),
            "amount": amounts,
            "pieces": [None if n % 5 == 0 else n for n in range(rows)],
            "cash": [None if n % 9 == 0 else n % 4 == 0 for n in range(rows)],
            "status": [None if n % 37 == 0 else ("void" if n % 11 == 0 else "ok") for n in range(rows)],
        }
    )


@pytest.fixture
def connection():
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw")
        opened.register("sales", sales())
        opened.execute("CREATE TABLE raw.sales AS FROM sales")
        yield opened


def computed_rows(connection: duckdb.DuckDBPyConnection, rolling: Rolling) -> pl.DataFrame:
    frames = compute_sums(connection, rolling, ENTITY, "event_time")
    assert frames is not None
    return pl.concat(frames).sort(*ENTITY, "event_time")


@pytest.mark.parametrize("rows", ["changes", "events"])
@pytest.mark.parametrize("limits", [{}, {"ROWS": 120}, {"_PLACES": 2**37}, {"HELD": 150}, {"HELD": 90, "ROWS": 50}])
def test_the_rows_are_those_of_the_compiled_sql(connection, monkeypatch, limits, rows):
    for name, value in limits.items():
        monkeypatch.setattr(numpy_engine, name, value)
    rolling = declared(rows=rows)
    computed = computed_rows(connection, rolling)
    wanted = connection.sql(rolling.sql(ENTITY, "event_time")).pl().sort(*ENTITY, "event_time")
    assert (computed.height > sales().height) == (rows == "changes")
    assert_frame_equal(computed, wanted, check_dtypes=False, rel_tol=1e-9)


@pytest.mark.parametrize("rows", ["changes", "events"])
def test_rows_at_events_alone_are_those_of_polars_rolling(connection, rows):
    counted = pl.col("status").is_not_null() & (pl.col("status") != "void") & pl.col("shop").is_not_null()
    events = sales().filter(counted).with_columns(pl.col("amount").round().replace([1e20, math.inf, -math.inf], 7.0))
    events = events.with_columns(pl.col("amount").fill_nan(3.0)).sort(*ENTITY, "sold_at")
    connection.register("whole_numbers", events)  # whole, so that sums are exact in whatever order
    connection.execute("CREATE OR REPLACE TABLE raw.sales AS FROM whole_numbers")
    computed = computed_rows(connection, declared(rows=rows))
    for name, period in (("20m", "20m"), ("3h", "3h")):
        wanted = (
            events.rolling("sold_at", period=period, group_by=ENTITY)
            .agg(
                pl.len().cast(pl.Int64).alias(f"sales_{name}"),
                pl.col("amount").sum().alias(f"revenue_{name}"),
                pl.col("amount").mean().alias(f"basket_{name}"),
                pl.col("pieces").sum().cast(pl.Float64).alias(f"pieces_{name}"),
                pl.col("cash").mean().alias(f"cash_{name}"),
                pl.col("cash").sum().cast(pl.Float64).alias(f"coins_{name}"),
            )
            .unique([*ENTITY, "sold_at"], maintain_order=True)
            .rename({"sold_at": "event_time"})
        )
        found = computed.select(wanted.columns).join(wanted, on=[*ENTITY, "event_time"], how="semi")
        assert_frame_equal(found.sort(*ENTITY, "event_time"), wanted, check_dtypes=False, check_exact=True)
        assert (computed.height == wanted.height) == (rows == "events")


def test_each_key_is_in_one_frame_alone(connection, monkeypatch):
    monkeypatch.setattr(numpy_engine, "ROWS", 300)
    sums = compute_sums(connection, declared(), ENTITY, "event_time")
    assert sums is not None
    frames = list(sums)
    keys = pl.concat(frame.select(ENTITY).unique() for frame in frames)
    assert len(frames) > 1
    assert not keys.is_duplicated().any()


@pytest.mark.parametrize(
    "changes",
    [
        {"every": timedelta(hours=1)},
        {"aggregates": {**AGGREGATES, "top": {"function": "max", "column": "amount", "description": "Largest."}}},
        {"aggregates": {"words": {"function": "sum", "column": "status", "description": "No number."}}},
        {"filter": "false"},
    ],
)
def test_what_it_cannot_is_left_to_sql(connection, changes):
    assert compute_sums(connection, declared(**changes), ENTITY, "event_time") is None
