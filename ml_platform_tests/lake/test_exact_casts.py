"""One rule for casts: whatever the pair of types, a value stays the same or is not taken."""

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.lake.contracts.contract import ROW, apply_contract
from ml_platform.lake.errors import SchemaMismatch
from ml_platform.lake.exact_casts import cast_exactly, is_castable, is_same_kind, shown
from ml_platform.lake.storage.tables import Lake
from ml_platform.lake.storage.type_mapping import conform, storable

INSTANT = dy.Datetime(time_unit="us", time_zone="UTC")
LONG = ["9007199254740993", "9007199254740992", "9223372036854776000", "89014103211118510720", "0.1"]
PRICES = ["12.349", "-0.005", "1.10", "1.100", "1e1"]
NANOS = ["2024-01-02T00:00:00.1234567Z", "2024-01-02T00:00:00.5000000Z"]
PRICE = Decimal("1.10")
NO = "rejected"
US, NS, MS = (pl.Datetime(unit, "UTC") for unit in ("us", "ns", "ms"))
INTEGERS = [
    pl.Int8(),
    pl.Int16(),
    pl.Int32(),
    pl.Int64(),
    pl.Int128(),
    pl.UInt8(),
    pl.UInt16(),
    pl.UInt32(),
    pl.UInt64(),
]
FLOATS = [pl.Float32(), pl.Float64()]
DECIMALS = [pl.Decimal(5, 2), pl.Decimal(18, 0), pl.Decimal(38, 10), pl.Decimal(38, 38)]
NUMBERS = [*INTEGERS, *FLOATS, *DECIMALS]
INSTANTS = [
    *(pl.Datetime(unit, zone) for unit in ("ns", "us", "ms") for zone in (None, "UTC", "Europe/Berlin")),
    pl.Date(),
]
TEXTS = [pl.String(), pl.Categorical(), pl.Enum(["a", "1"])]
OTHERS = [pl.Boolean(), pl.Binary(), pl.Time(), pl.Duration("us"), pl.Null()]
FLAT = [*NUMBERS, *INSTANTS, *TEXTS, *OTHERS]
NESTED = [pl.List(pl.Int64()), pl.List(pl.Float64()), pl.Array(pl.Int16(), 1)]
NESTED += [pl.Struct({"a": pl.Float32()}), pl.Struct({"a": pl.Int8()})]
TYPES = [*FLAT, *NESTED]

EDGES = [2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64 - 1]
whole = st.one_of(st.integers(-300, 300), st.integers(-(2**70), 2**70), st.sampled_from(EDGES))
fractions = st.one_of(st.floats(), st.sampled_from([0.1, 0.25, 1.0, 3.7, -0.0, 1e20, 2.0**63]))
decimals = st.one_of(
    st.decimals(-(10**36) + 1, 10**36 - 1, places=2),  # Polars makes no column of more digits
    st.sampled_from([Decimal("1.99"), Decimal("2.00")]),
)
times = st.one_of(
    st.datetimes(),
    st.integers(-(2**63), 2**63 - 1),  # ticks, also of instants that Python does not have
    st.sampled_from([datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999), 2**63 - 1, -(2**63) + 1]),
)


def values_of(dtype: pl.DataType) -> st.SearchStrategy[Any]:
    """Values that a column of a type can have, besides null."""
    if dtype.is_integer():
        return whole
    if dtype.is_float():
        return fractions
    if dtype.is_decimal():
        return decimals
    if isinstance(dtype, pl.Datetime):
        return times
    if dtype.is_nested():
        return st.builds(lambda value: {"a": value} if dtype == pl.Struct else [value], fractions)
    return {
        pl.Boolean: st.booleans(),
        pl.Date: st.dates() | st.integers(-(2**31), 2**31 - 1),
        pl.Binary: st.binary(max_size=3),
        pl.Null: st.none(),
        pl.Time: st.times(),
        pl.Duration: st.timedeltas(timedelta(-9), timedelta(9)),
    }.get(dtype.base_type(), st.sampled_from(["a", "1", "007", "1e5", " 1", "1_0", "١", "true"]))


def series_of(value: Any, dtype: pl.DataType) -> pl.Series:
    """One value of a type and a null; two nulls where the type does not have the value."""
    if dtype.is_temporal() and isinstance(value, int):
        return pl.Series([value, None], dtype=pl.Int64).cast(dtype, strict=False)
    if isinstance(dtype, pl.Datetime) and value is not None:
        value = value.replace(tzinfo=UTC) if dtype.time_zone else value
        return pl.Series([value, None], dtype=pl.Datetime("us", dtype.time_zone and "UTC")).cast(dtype, strict=False)
    if dtype.is_nested():
        return pl.Series([value, None]).cast(dtype, strict=False)
    return pl.Series([value, None], dtype=dtype, strict=False)


def same(before: pl.Series, after: pl.Series) -> bool:
    """Whether the first values of two columns are the same, told without any cast of Polars."""
    one, two = before.dtype, after.dtype
    if one.is_temporal() and two.is_temporal():
        return _nanoseconds(before) == _nanoseconds(after)
    a, b = before[0], after[0]
    if one.is_nested():
        a, b = (value["a"] if isinstance(value, dict) else next(iter(value)) for value in (a, b))
    if two == pl.String and one not in TEXTS:
        equal = b == str(a)
    elif isinstance(a, float) and not math.isfinite(a):
        equal = isinstance(b, float) and str(a) == str(b)
    elif isinstance(a, Decimal) and isinstance(b, float):
        # A double of 17 digits is the decimal that it is written as, or, where that has fewer, the number that it is.
        equal = a in {Decimal(repr(b)), round(Decimal(b), one.scale)}  # type: ignore[attr-defined]
    elif isinstance(a, float) and isinstance(b, Decimal):
        equal = pl.Series([float(b)], dtype=one)[0] == a
    elif isinstance(a, int | float | Decimal) and isinstance(b, int | float | Decimal):
        equal = Fraction(a) == Fraction(b)
    else:
        equal = a == b
    return bool(equal)


def _nanoseconds(values: pl.Series) -> int:
    unit = values.dtype.time_unit if isinstance(values.dtype, pl.Datetime) else None
    return int(values.to_physical()[0]) * {"ns": 1, "us": 1_000, "ms": 1_000_000, None: 86_400 * 10**9}[unit]


@st.composite
def casts(draw: st.DrawFn) -> tuple[pl.Series, pl.DataType]:
    found, wanted = draw(st.sampled_from(TYPES)), draw(st.sampled_from(TYPES))
    return series_of(draw(values_of(found)), found), wanted


def check_cast(values: pl.Series, wanted: pl.DataType) -> None:
    if not is_castable(values.dtype, wanted):
        with pytest.raises(TypeError):
            cast_exactly(values, wanted)
        return
    cast = cast_exactly(values, wanted)
    assert cast.dtype == wanted
    assert cast[1] is None
    if values.is_not_null()[0] and cast.is_not_null()[0]:
        assert same(values, cast)
    elif values.is_not_null()[0]:
        shown(values, 0)  # what is lost can be told, also where Python has no such value


@settings(derandomize=True, deadline=None, max_examples=1500)
@given(casts())
def test_every_cast_of_every_pair_of_types_keeps_the_value_or_is_refused(cast: tuple[pl.Series, pl.DataType]) -> None:
    check_cast(*cast)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=20_000)
@given(casts())
def test_no_cast_changes_a_value(cast: tuple[pl.Series, pl.DataType]) -> None:
    check_cast(*cast)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.sampled_from([*INTEGERS, *FLOATS]), st.sampled_from(NUMBERS), st.data())
def test_a_number_that_a_type_has_is_taken(found: pl.DataType, wanted: pl.DataType, data: st.DataObject) -> None:
    small = data.draw(st.integers(0, 1) if wanted == pl.Decimal(38, 38) else st.integers(0, 100))
    number = 0 if wanted == pl.Decimal(38, 38) else small
    assert cast_exactly(pl.Series([number], dtype=found), wanted).to_list() == [number]


@settings(derandomize=True, deadline=None, max_examples=400)
@given(casts())
def test_a_table_and_a_contract_take_the_same_values(cast: tuple[pl.Series, pl.DataType]) -> None:
    """`Lake.append` refuses what ingest rejects; text is read by ingest only, and tables keep the kind of a column."""
    values, wanted = cast
    try:
        rows = storable(pl.DataFrame({"x": values}), "t")
        fitted = conform(rows, pl.Schema({"x": wanted}), "t", add_columns=False)["x"]
    except SchemaMismatch:
        return
    if values.is_not_null()[0]:
        assert is_same_kind(rows.schema["x"], wanted)
        assert same(values, fitted)


def read(values: pl.Series, column: dy.Column) -> list[Any]:
    contract = type("rows", (dy.Schema,), {"x": column})
    verdict = apply_contract(pl.DataFrame({"x": values}), contract, where="a file")
    taken = dict(verdict.accepted.select(ROW, "x").rows())
    return [taken.get(row, NO) for row in range(len(values))]


@pytest.mark.parametrize(
    ("values", "column", "wanted"),
    [
        (pl.Series([Decimal("1.99"), Decimal("2.00")]), dy.Int64(), [NO, 2]),
        (pl.Series(PRICES), dy.Decimal(10, 2), [NO, NO, PRICE, PRICE, NO]),
        (pl.Series([2**53 + 1, 2**53]), dy.Float64(), [NO, 2.0**53]),
        (pl.Series(LONG), dy.Float64(), [NO, 2.0**53, 2.0**63, NO, 0.1]),
        (pl.Series(["16777217", "16777216"]), dy.Float32(), [NO, 2.0**24]),
        (pl.Series(["1e400", "1e-3", "1_000", "١", " 5 "]), dy.Float64(), [NO, 0.001, NO, NO, 5.0]),
        (pl.Series([0, 1, 2]), dy.Bool(), [False, True, NO]),
        (pl.Series([300, 5]), dy.UInt8(), [NO, 5]),
        (pl.Series([1_001, 1_000]).cast(NS), INSTANT, [NO, datetime(1970, 1, 1, microsecond=1, tzinfo=UTC)]),
        (
            pl.Series(NANOS),
            INSTANT,
            [NO, datetime(2024, 1, 2, microsecond=500_000, tzinfo=UTC)],
        ),
        (pl.Series([2**63 - 1, 0]).cast(US), INSTANT, [NO, datetime(1970, 1, 1, tzinfo=UTC)]),
        (pl.Series([datetime(2024, 1, 2, 1), datetime(2024, 1, 2)]), dy.Date(), [NO, date(2024, 1, 2)]),
        (pl.Series([[1.5], [2.0]]), dy.List(dy.Int64(nullable=True)), [NO, [2]]),
    ],
)
def test_ingest_rejects_the_row_whose_value_would_change(values: pl.Series, column: dy.Column, wanted: list) -> None:
    assert read(values, column) == wanted


@pytest.mark.parametrize(
    ("first", "then", "message"),
    [
        (
            pl.Series([PRICE], dtype=pl.Decimal(5, 2)),
            pl.Series([Decimal("1.239")]),
            r"Decimal.*e\.g\. 1\.239 in row 0",
        ),
        (pl.Series([0.5]), pl.Series([2, 2**53 + 1]), r"wanted Float64, found Int64, e\.g\. 9007199254740993 in row 1"),
        (pl.Series([1]), pl.Series([Decimal("1.99")]), r"wanted Int64, .*1\.99"),
        (pl.Series([0.5], dtype=pl.Float32), pl.Series([0.1]), "wanted Float32, found Float64"),
        (pl.Series([0], dtype=US), pl.Series([1_001], dtype=NS), "has values that .*'us'.* cannot hold"),
        (pl.Series([0], dtype=US), pl.Series([2**63 - 1], dtype=US), r"infinity \(outside of the years 1 to 9999\)"),
        (pl.Series([[1]]), pl.Series([[1.5]]), r"wanted List\(Int64\)"),
        (pl.Series(["1"]), pl.Series([1]), "wanted String, found Int64"),
        (pl.Series([1]), pl.Series([True]), "wanted Int64, found Boolean"),
    ],
)
def test_an_append_that_would_change_a_value_is_refused(
    lake: Lake, first: pl.Series, then: pl.Series, message: str
) -> None:
    lake.append("raw/t", pl.DataFrame({"x": first}))
    with pytest.raises(SchemaMismatch, match=message):
        lake.append("raw/t", pl.DataFrame({"x": then}))
    assert lake.read("raw/t").collect().height == 1


def test_an_append_of_other_types_with_the_same_values_is_taken(lake: Lake) -> None:
    lake.append("raw/t", pl.DataFrame({"n": [1.5], "k": [1], "d": [Decimal("1.10")]}))
    lake.append("raw/t", pl.DataFrame({"n": [2], "k": [Decimal("2.00")], "d": [0.25]}, schema_overrides={"n": pl.Int8}))
    assert lake.read("raw/t").sort("k").collect().rows() == [(1.5, 1, Decimal("1.10")), (2.0, 2, Decimal("0.25"))]
