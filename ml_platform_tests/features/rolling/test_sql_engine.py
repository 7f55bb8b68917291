"""Trailing windows by SQL, some keys at a time: the rows of one query over all of them."""

from datetime import timedelta

import duckdb
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ml_platform.features.rolling import sql_engine
from ml_platform.features.rolling.spec import Rolling
from ml_platform.features.rolling.sql_engine import compute_parts

ENTITY = ("shop", "till")
FUNCTIONS = ("min", "max", "last", "distinct", "sum")


@pytest.fixture
def connection():
    random, rows = np.random.default_rng(5), 400
    sales = pl.DataFrame(
        {
            "shop": [("a", "b", "c", None)[n] for n in random.integers(0, 4, rows)],
            "till": random.integers(1, 5, rows),
            "sold_at": pl.Series(random.integers(0, 1500, rows) * 60_000_000).cast(pl.Datetime("us", "UTC")),
            "amount": [None if n % 7 == 0 else float(n) for n in random.integers(0, 30, rows)],
        }
    )
    with duckdb.connect() as opened:
        opened.execute("SET TimeZone = 'UTC'; CREATE SCHEMA raw")
        opened.register("sales", sales)
        opened.execute("CREATE TABLE raw.sales AS FROM sales")
        yield opened


@pytest.mark.parametrize("limit", [40, 10_000])
@pytest.mark.parametrize(
    "changes",
    [{}, {"rows": "events"}, {"every": timedelta(minutes=50)}, {"filter": "till <> 2"}, {"filter": "till > 9"}],
    ids=str,
)
def test_the_rows_are_those_of_one_query_and_a_key_is_in_one_frame_alone(connection, monkeypatch, limit, changes):
    monkeypatch.setattr(sql_engine, "ROWS", limit)
    aggregates = {name: {"function": name, "column": "amount", "description": "Amount."} for name in FUNCTIONS}
    windows = [timedelta(minutes=20), timedelta(hours=3)]
    plain = {"source": "raw/sales", "time": "sold_at", "windows": windows, "aggregates": aggregates}
    rolling = Rolling.model_validate({**plain, **changes})
    frames = list(compute_parts(connection, rolling, ENTITY, "event_time"))
    keys = [set(frame.select(ENTITY).unique().rows()) for frame in frames]
    assert (len(keys) > 1) == (limit == 40 and changes != {"filter": "till > 9"})
    assert sum(map(len, keys)) == len(set().union(*keys))
    by = [*ENTITY, "event_time"]
    wanted = connection.sql(rolling.sql(ENTITY, "event_time")).pl()
    assert_frame_equal(pl.concat(frames).sort(by), wanted.sort(by))
