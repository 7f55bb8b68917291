"""Sums of trailing windows in NumPy: the rows of the compiled SQL, and no trace of what left a window."""

import math
from datetime import timedelta

import duckdb
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform.features import rolling_sums
from ml_platform.features.rolling import Rolling
from ml_platform.features.rolling_sums import compute_sums, range_sums

AGGREGATES = {
    "sales": {"function": "count", "description": "Sales."},
    "revenue": {"function": "sum", "column": "amount", "description": "Takings."},
    "basket": {"function": "mean", "column": "amount", "description": "Mean sale."},
    "pieces": {"function": "sum", "column": "pieces", "description": "Things sold."},
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


@pytest.mark.parametrize(("chunk", "places"), [(1_000_000, 2**61), (40, 2**61), (1_000_000, 2**36)])
def test_the_rows_are_those_of_the_compiled_sql(connection, monkeypatch, chunk, places):
    monkeypatch.setattr(rolling_sums, "CHUNK", chunk)
    monkeypatch.setattr(rolling_sums, "_PLACES", places)
    rolling = declared()
    computed = compute_sums(connection, rolling, ENTITY, "event_time").sort(*ENTITY, "event_time")
    wanted = connection.sql(rolling.sql(ENTITY, "event_time")).pl().sort(*ENTITY, "event_time")
    assert computed.height > sales().height
    assert_frame_equal(computed, wanted, check_dtypes=False, rel_tol=1e-9)


def test_a_huge_or_missing_value_leaves_no_trace():
    random = np.random.default_rng(3)
    values = 10.0 ** random.uniform(-12, 12, 999) * random.choice([-1.0, 1.0], 999)
    values[100], values[200], values[300] = 1e300, math.inf, math.nan
    starts = random.integers(0, 1000, 5000)
    ends = np.minimum(starts + random.integers(0, 400, 5000), 999)
    starts = np.minimum(starts, ends)
    for start, end, found in zip(starts, ends, range_sums(values, starts, ends), strict=True):
        inside = values[start:end]
        wanted = math.fsum(inside) if np.isfinite(inside).all() else inside.sum()
        assert found == pytest.approx(wanted, rel=0, abs=1e-13 * np.abs(inside).sum(), nan_ok=True) or (
            found == wanted
        ), (start, end)


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
