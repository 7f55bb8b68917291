"""Each supported operation, compiled, against Polars itself on edge values."""

import json
import math
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice, product

import msgspec
import polars as pl
import pytest

from ml_platform.features.expressions.compile import (
    UnsupportedExpression,
    compile_tree,
    evaluator,
    same,
    supported_operations,
)
from ml_platform.features.expressions.row_operations import OPERATIONS

a, b, x, y, p, q, s, t, u = (pl.col(name) for name in "abxypqstu")
ROME, NEW_YORK = "Europe/Rome", "America/New_York"
NUMBERS = [None, math.nan, -math.inf, math.inf, -7.5, -0.5, -0.0, 0.0, 0.5, 1.0, 1.5, 2.5, 2.675, 1e10]
INTEGERS = [None, -7, -1, 0, 1, 2, 3, 7, 1_000_000_007]
TEXTS = [None, "", " EWR\t", "ewr", "Straße", "été ", "\x1cjfk\u2003", "UA"]
# Around both changes of 2013 in New York and in Rome, a leap day, a year's first and last instants.
TIMES = [
    None,
    *(
        datetime(*moment).replace(tzinfo=UTC)  # type: ignore[arg-type]  # six numbers at most
        for moment in [
            (2012, 2, 29, 12), (2013, 1, 1, 0), (2013, 1, 1, 4, 59, 59), (2013, 3, 10, 6, 59), (2013, 3, 10, 7),
            (2013, 3, 31, 0, 59), (2013, 3, 31, 1), (2013, 10, 27, 0, 30), (2013, 10, 27, 1, 30), (2013, 11, 3, 5, 30),
            (2013, 11, 3, 6, 30), (2013, 12, 31, 23, 59, 59, 999_999),
        ]
    ),
]  # fmt: skip

EXPRESSIONS = {
    "add": [x + y, a + b, a + 1, s + ":" + s, t + timedelta(hours=3), t + (u - t), timedelta(minutes=5) + t],
    "subtract": [x - y, a - b, t - timedelta(minutes=90), t - u, 10 - a],
    "multiply": [x * y, a * b],
    "divide": [x / y, a / b, a / 2, x / 60, a / 49, 5 / x, x / 0],
    "floor_divide": [a // b, x // y, a // 7, x // 0.7, 7 // x],
    "modulo": [a % b, x % y, a % 3, x % 0.7, 17 % a],
    "negate": [-x, -a],
    "equal": [x == y, a == b, s == "UA", t == u],
    "not_equal": [x != y, s != "UA"],
    "less": [x < y, t < u, s < "f"],
    "less_equal": [x <= y, a <= b],
    "greater": [x > y, a > 1],
    "greater_equal": [x >= y, t >= datetime(2013, 3, 10, 7, tzinfo=UTC)],
    "and": [p & q],
    "or": [p | q],
    "xor": [p ^ q],
    "not": [~p],
    "is_null": [x.is_null(), s.is_null()],
    "is_not_null": [x.is_not_null()],
    "is_nan": [x.is_nan()],
    "is_not_nan": [x.is_not_nan(), x.fill_nan(0.0)],
    "is_finite": [x.is_finite()],
    "fill_null": [x.fill_null(0.0), a.fill_null(b), s.fill_null("none")],
    "coalesce": [pl.coalesce(a, b, pl.lit(5)), pl.coalesce(s, pl.lit("?"))],
    "when": [
        pl.when(x > 1).then(pl.lit("high")).otherwise(pl.lit("low")),
        pl.when(p).then(a).when(q).then(b).otherwise(None),
    ],
    "is_in": [s.is_in(["UA", "ewr"]), a.is_in([1, 2, None]), x.is_in([0.5, 1.0]), a.is_in([])],
    "is_between": [a.is_between(0, 2), x.is_between(0.5, 1.5, closed="left"), x.is_between(y, 2.5, closed="right"),
                   a.is_between(b, 3, closed="none")],
    "cast": [a.cast(pl.Float64), a.cast(pl.String), p.cast(pl.Int64), p.cast(pl.String), a.cast(pl.Boolean),
             x.clip(-9, 9).fill_nan(0.0).cast(pl.Int64), a.cast(pl.String).cast(pl.Int64)],
    "abs": [x.abs(), a.abs()],
    "floor": [x.floor(), a.floor()],
    "ceil": [x.ceil(), a.ceil()],
    "round": [x.round(), x.round(1), x.round(2), a.round(1)],
    "clip": [x.clip(0, 1), a.clip(b, None), x.clip(None, y), a.clip(-1, 2)],
    "log": [x.log(), a.log(), x.log(10), a.log(2)],
    "log1p": [x.log1p()],
    "sqrt": [x.sqrt(), a.sqrt()],
    "sin": [x.clip(-10, 10).sin(), pl.lit(2.0) * math.pi * x.sin()],
    "cos": [x.cos()],
    "min_horizontal": [pl.min_horizontal(x, y), pl.min_horizontal(a, b, pl.lit(2))],
    "max_horizontal": [pl.max_horizontal(x, y), pl.max_horizontal(a, b)],
    "dt.year": [t.dt.year(), t.dt.convert_time_zone(NEW_YORK).dt.year()],
    "dt.month": [t.dt.month()],
    "dt.day": [t.dt.convert_time_zone(ROME).dt.day()],
    "dt.weekday": [t.dt.weekday(), t.dt.convert_time_zone(NEW_YORK).dt.weekday()],
    "dt.ordinal_day": [t.dt.ordinal_day(), t.dt.convert_time_zone(NEW_YORK).dt.ordinal_day()],
    "dt.hour": [t.dt.convert_time_zone(NEW_YORK).dt.hour(), t.dt.hour().cast(pl.Int64) * 60],
    "dt.minute": [t.dt.convert_time_zone("Asia/Kolkata").dt.minute()],
    "dt.second": [t.dt.second()],
    "dt.convert_time_zone": [
        t.dt.convert_time_zone(NEW_YORK).dt.convert_time_zone("UTC"),
        # Python alone would compute these on wall clocks, an hour off across a change.
        (t.dt.convert_time_zone(NEW_YORK) + timedelta(hours=2)).dt.hour(),
        t.dt.convert_time_zone(NEW_YORK) - u.dt.convert_time_zone(NEW_YORK),
        t.dt.convert_time_zone(NEW_YORK) < u.dt.convert_time_zone(NEW_YORK),
        t.dt.convert_time_zone(NEW_YORK).dt.offset_by("-1h30m"),
    ],
    "dt.total_days": [(t - u).dt.total_days()],
    "dt.total_hours": [(t - u).dt.total_hours(), (t - u).dt.total_hours(fractional=True)],
    "dt.total_minutes": [(t - u).dt.total_minutes(), (u - t).dt.total_minutes(fractional=True)],
    "dt.total_seconds": [(t - u).dt.total_seconds()],
    "str.to_uppercase": [s.str.to_uppercase()],
    "str.to_lowercase": [s.str.to_lowercase()],
    "str.strip_chars": [s.str.strip_chars(), s.str.strip_chars("e ")],
    "str.len_chars": [s.str.len_chars()],
    "str.starts_with": [s.str.starts_with("e")],
    "str.ends_with": [s.str.ends_with("A")],
    "concat_str": [
        pl.concat_str([s, pl.lit("-"), s]),
        pl.concat_str([s, s], separator="/", ignore_nulls=True),
        pl.concat_str([a.cast(pl.String), s], separator=":"),
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    """Every pair of edge values of each type, the shorter lists repeated to the length of the longest."""
    height = len(NUMBERS) ** 2

    def pairs(values: list, first: str, second: str, dtype: pl.DataType) -> pl.DataFrame:
        rows = list(islice(cycle(product(values, repeat=2)), height))
        return pl.DataFrame(rows, schema={first: dtype, second: dtype}, orient="row")

    parts = [
        pairs(NUMBERS, "x", "y", pl.Float64()),
        pairs(INTEGERS, "a", "b", pl.Int64()),
        pairs([None, True, False], "p", "q", pl.Boolean()),
        pairs(TIMES, "t", "u", pl.Datetime("us", "UTC")),
        pairs(TEXTS, "s", "s2", pl.String()),
    ]
    return pl.concat(parts, how="horizontal")


def test_every_operation_is_tried():
    assert set(EXPRESSIONS) == set(OPERATIONS)


@pytest.mark.parametrize(
    "expression", [pytest.param(e, id=f"{op}-{i}") for op, es in EXPRESSIONS.items() for i, e in enumerate(es)]
)
def test_the_compiled_expression_gives_what_polars_gives(expression: pl.Expr, frame: pl.DataFrame):
    names = expression.meta.root_names()
    evaluate = evaluator(msgspec.json.decode(msgspec.json.encode(compile_tree(expression))))
    for row, expected in zip(frame.to_dicts(), frame.select(expression.alias("r"))["r"].to_list(), strict=True):
        assert same(evaluate(row), expected), {name: row[name] for name in names} | {"polars": expected}


def test_the_tree_is_plain_json():
    tree = compile_tree(pl.when(t > datetime(2013, 3, 10, tzinfo=UTC)).then(t - timedelta(hours=1)).otherwise(t))
    assert json.loads(json.dumps(tree)) == tree
    assert tree["args"][0]["args"][1] == {"op": "literal", "type": "timestamp", "value": "2013-03-10T00:00:00+00:00"}


@pytest.mark.parametrize("text", [" 12", "1_000", "\uff11\uff12", "12\n", "twelve", "", "+5", "-0", "00012"])
@pytest.mark.parametrize("dtype", [pl.Int64, pl.Float64])
def test_a_text_is_a_number_where_it_is_one_for_polars(text, dtype):
    expression = pl.col("text").cast(dtype)
    try:
        wanted = pl.DataFrame({"text": [text]}).select(expression).item()
    except pl.exceptions.InvalidOperationError:
        with pytest.raises(ValueError, match=r"number|invalid literal|convert string"):
            evaluator(compile_tree(expression))({"text": text})
    else:
        assert evaluator(compile_tree(expression))({"text": text}) == wanted


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (x.mean(), "Agg cannot be computed online"),
        (x.rolling_mean(3), "RollingExpr cannot be computed online"),
        (x.shift(1), "Shift"),
        (x.fill_null(strategy="forward"), "FillNullWithStrategy"),
        (pl.all(), "Selector cannot be computed online"),
        (x.round(1, mode="half_away_from_zero"), "HalfAwayFromZero"),
        (x.cast(pl.Int8), "cast to Int8"),
        (x.cast(pl.Int64, strict=False), "NonStrict"),
        (t.dt.offset_by("1mo"), "only a literal of fixed length"),
        (t.dt.hour() * 60, r"add \.cast\(pl\.Int64\)"),
        (x > pl.lit(math.nan), "literal NaN"),
        (a.is_in(b), "is_in"),
        (x.map_elements(abs, return_dtype=pl.Float64), "cannot be computed online"),
    ],
)
def test_what_cannot_be_computed_online_is_refused_by_name(expression: pl.Expr, message: str):
    with pytest.raises(UnsupportedExpression, match=message):
        compile_tree(expression)


def test_the_refusal_lists_what_is_supported():
    with pytest.raises(UnsupportedExpression, match=r"dt\.convert_time_zone.*str\.to_uppercase"):
        compile_tree(x.median())
    assert "when" in supported_operations()


def test_a_tree_of_an_unknown_operation_is_refused():
    with pytest.raises(UnsupportedExpression, match="operation 'teleport' is unknown"):
        evaluator({"op": "teleport", "args": []})
