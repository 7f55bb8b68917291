"""Vectorised expressions against the row-by-row evaluation, value by value."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from ml_platform.features.expressions.columns import Columns, compile_columns
from ml_platform.features.expressions.compile import compile_tree, evaluator

t, u, a, b, x, y, s = (pl.col(name) for name in "tuabxys")
KINDS = {
    "t": "timestamp",
    "u": "timestamp",
    "a": "integer",
    "b": "integer",
    "x": "number",
    "y": "number",
    "s": "string",
}
local = t.dt.convert_time_zone("America/New_York")
VECTORISED = [
    t - timedelta(hours=1),
    t.dt.offset_by("90m"),
    (u - t).dt.total_minutes(),
    (u - t).dt.total_days(),
    local.dt.hour().cast(pl.Int64) * 60 + local.dt.minute().cast(pl.Int64),
    local.dt.weekday().cast(pl.Int64),
    t.dt.convert_time_zone("Asia/Kathmandu").dt.hour(),
    t.dt.hour().cast(pl.Float64) + t.dt.minute().cast(pl.Float64) / 60,
    t.dt.second(),
    a * b - 7,
    a + x,
    x * y,
    x / y,
    a / 49,
    (t - timedelta(hours=1)) - (u - timedelta(days=3)) - (t - u),
    (u - t).dt.total_seconds() * 1_000_000_000 - a,
    x.cast(pl.Int64),
]
ROW_BY_ROW = [s.str.to_uppercase(), x.abs(), t.dt.month(), pl.when(a > 0).then(x).otherwise(y), t == u]


def columns(count: int, seed: int = 0, **changed: list[Any]) -> dict[str, list[Any]]:
    draw = random.Random(seed)
    start = datetime(2013, 1, 1, tzinfo=UTC)
    moments = [
        start + timedelta(microseconds=draw.randrange(2 * 365 * 86400 * 10**6), days=draw.choice([0, -90_000, 50_000]))
        for _ in range(count)
    ]
    return {
        "t": moments,
        "u": [moment + timedelta(seconds=draw.randrange(-90_000, 90_000), microseconds=1) for moment in moments],
        "a": [draw.randrange(-1000, 1000) for _ in range(count)],
        "b": [draw.randrange(-9, 9) for _ in range(count)],
        "x": [draw.uniform(-1e6, 1e6) for _ in range(count)],
        "y": [draw.choice([-1.5, 0.1, 3.0]) for _ in range(count)],
        "s": [draw.choice(["a", "ß", ""]) for _ in range(count)],
        **changed,
    }


def compare(expressions: list[pl.Expr], inputs: dict[str, list[Any]], *, vectorised: bool) -> None:
    trees = [(f"f{number}", compile_tree(expression)) for number, expression in enumerate(expressions)]
    count = len(inputs["t"])
    found = Columns(inputs, KINDS, count)
    compiled = compile_columns(trees)
    found.derive(compiled)
    rows = [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)]
    for (name, tree), feature in zip(trees, compiled, strict=True):
        wanted = [evaluator(tree)(row) for row in rows]
        assert found.objects(name) == wanted, tree
        assert [type(value) for value in found.objects(name)] == [type(value) for value in wanted], tree
        assert (feature.vector is not None) is vectorised


@pytest.mark.parametrize("seed", range(5))
def test_numpy_gives_what_the_rows_give(seed: int) -> None:
    compare(VECTORISED, columns(300, seed), vectorised=True)


def test_what_numpy_cannot_do_goes_row_by_row() -> None:
    compare(ROW_BY_ROW, columns(50), vectorised=False)


@pytest.mark.parametrize(
    "changed",
    [
        {"t": [None, datetime(2013, 3, 10, 7, tzinfo=UTC)]},
        {"t": [datetime(2013, 3, 10, 6, 59, 59, 999_999, tzinfo=UTC), datetime(2013, 11, 3, 6, tzinfo=UTC)]},
        {"t": [datetime(1883, 11, 18, 16, 59, tzinfo=UTC), datetime(1883, 11, 18, 17, 4, tzinfo=UTC)]},
        {"t": [datetime(1700, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(2261, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)]},
        {"a": [2**62, -(2**62)], "b": [3, 4]},
        {"a": [None, 1], "x": [1e300, -1e300]},
        {"x": [0.0, -0.0], "y": [0.0, 1.0]},
        {"b": [0, 0]},
    ],
)
def test_nulls_changes_of_the_clock_and_numbers_past_64_bits(changed: dict[str, list[Any]]) -> None:
    inputs = columns(2) | changed
    compare([*VECTORISED[:-1]], inputs, vectorised=True)


def test_a_later_feature_uses_an_earlier_one_whichever_way_both_went() -> None:
    trees = [
        ("hour", compile_tree(t.dt.hour().cast(pl.Int64))),
        ("upper", compile_tree(s.str.to_uppercase())),
        ("twice", compile_tree(pl.col("hour") * 2)),
        ("label", compile_tree(pl.col("upper") + pl.col("hour").cast(pl.String))),
    ]
    inputs = columns(20)
    found = Columns(inputs, KINDS, 20)
    found.derive(compile_columns(trees))
    hours = [moment.hour for moment in inputs["t"]]
    assert found.objects("twice") == [2 * hour for hour in hours]
    assert found.objects("label") == [f"{text.upper()}{hour}" for text, hour in zip(inputs["s"], hours, strict=True)]


def test_an_error_of_a_row_is_raised_as_one_row_would() -> None:
    found = Columns(columns(2, x=[1.0, float("inf")]), KINDS, 2)
    with pytest.raises(OverflowError):
        found.derive(compile_columns([("f", compile_tree(x.cast(pl.Int64)))]))
