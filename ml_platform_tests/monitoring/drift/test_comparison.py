"""Columns compared one by one: the parts of the rule."""

import itertools
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from scipy.stats import binom, ks_2samp

from ml_platform.monitoring.drift.column_tests import Kind
from ml_platform.monitoring.drift.comparison import ColumnDrift, DriftColumn, JudgedTest, compare, full_name
from ml_platform.monitoring.drift.seasonal_baseline import baseline_distances
from ml_platform.monitoring.drift.two_sample import two_sample_chi_square
from ml_platform.spec.monitoring import Monitoring
from ml_platform_tests.monitoring.drift.dirty_columns import COLUMNS, NUMERIC, draw

MONITORING = Monitoring()


@pytest.fixture
def rng() -> np.random.Generator:
    """Numbers that are the same whichever tests have run before."""
    return np.random.default_rng(0)


def one(old, new, kind: Kind = "numeric", monitoring: Monitoring = MONITORING) -> ColumnDrift:
    """Compare a single column."""
    (found,), _ = compare(pl.DataFrame({"x": old}), pl.DataFrame({"x": new}), [DriftColumn("x", kind)], monitoring)
    return found


def result_of(found: ColumnDrift, name: str) -> JudgedTest:
    return next(test for test in found.tests if test.name == name)


def test_numbers_are_those_of_scipy(rng: np.random.Generator) -> None:
    old, new = rng.normal(size=3000), rng.normal(0.2, 1, size=800)
    distribution = result_of(one(old, new), "distribution")
    theirs = ks_2samp(old, new, method="asymp")
    assert distribution.distance == pytest.approx(theirs.statistic)
    assert distribution.p_value == pytest.approx(theirs.pvalue)
    assert distribution.drifted


def test_significance_is_shared_by_all_tests(rng: np.random.Generator) -> None:
    old = pl.DataFrame({"x": rng.normal(size=1000), "y": rng.normal(size=1000)}).with_columns(
        y=pl.when(pl.int_range(1000) % 10 > 0).then("y")
    )
    found, tests = compare(old, old, [DriftColumn("x", "numeric"), DriftColumn("y", "numeric")], MONITORING)
    assert tests == 5  # distribution and tails of x and of y, and whether y is missing
    assert [one.p_threshold for one in found] == [pytest.approx(0.01 / 2 / 5)] * 2


def test_significant_but_tiny_is_no_drift(rng: np.random.Generator) -> None:
    old, new = rng.normal(size=50_000), rng.normal(0.05, 1, size=50_000)
    (found,), _ = compare(pl.DataFrame({"x": old}), pl.DataFrame({"x": new}), [DriftColumn("x", "numeric")], MONITORING)
    assert found.p_value is not None
    assert found.p_value < found.p_threshold
    assert not found.drifted


def test_far_but_by_chance_is_no_drift(rng: np.random.Generator) -> None:
    old, new = rng.normal(size=5000), rng.normal(size=30)
    (found,), _ = compare(pl.DataFrame({"x": old}), pl.DataFrame({"x": new}), [DriftColumn("x", "numeric")], MONITORING)
    assert found.distance is not None
    assert found.distance_threshold is not None
    assert found.distance > found.distance_threshold
    assert not found.drifted


@pytest.mark.parametrize(
    ("name", "shift"),
    [
        ("normal", 0.25),
        ("tiny", 0.25e-5),
        ("large_offset", 0.25),
        ("cauchy", 0.4),
        ("sentinel", 0.25),
        ("sentinel_rare", 0.25),
        ("missing", 0.25),
        ("infinite", 0.25),
        ("rounded", 0.25),
    ],
)
def test_a_shift_is_found_in_any_unit_and_beside_outliers(rng: np.random.Generator, name: str, shift: float) -> None:
    old, new = NUMERIC[name](rng, 20_000), NUMERIC[name](rng, 2_000)
    whole = (new != -999) & (new != 1e6)
    assert not one(old, new).drifted
    assert one(old, np.where(whole, new + shift, new)).drifted


@pytest.mark.parametrize("shares", [(0.001, 0.02), (0.01, 0.03), (0.02, 0.05)])
@pytest.mark.parametrize("value", [1.0, -999.0, 1e6, 0.0])
@pytest.mark.parametrize("others", ["flag", "normal", "tiny"])
def test_a_flag_or_sentinel_that_more_than_doubles_has_drifted(
    shares: tuple[float, float], value: float, others: str
) -> None:
    rng = np.random.default_rng(0)

    def side(rows: int, share: float) -> np.ndarray:
        scale = {"flag": 0.0, "normal": 1.0, "tiny": 1e-5}[others]
        rest = rng.normal(0, 1, rows) * scale + (0.5 if others == "flag" else 0)
        rest[: round(rows * share)] = value
        return rest

    assert one(side(20_000, shares[0]), side(1_000, shares[1])).drifted
    assert not one(side(20_000, shares[0]), side(1_000, shares[0])).drifted


def test_a_boolean_is_a_flag() -> None:
    old, new = [True] * 20 + [False] * 19_980, [True] * 20 + [False] * 980
    assert one(old, new).drifted
    assert one(old, new).kind == "numeric"


@pytest.mark.parametrize(
    "values",
    [
        [0.3] * 9 + [0.1 + 0.2],
        [0.0, -0.0],
        [2**60 + 1, 2**60 + 2],  # one float64, as the model sees them
        [5e-324, 5e-324],
        [1e308, -1e308],
        [float("inf"), float("-inf"), float("nan"), 1.0],
        [True, False, None],
        [datetime(2024, 1, day, tzinfo=UTC) for day in range(1, 31)],
        [None, 1.5],
        ["7"],
    ],
)
def test_the_same_values_in_another_order_are_no_drift(values: list) -> None:
    found = one(pl.Series(values * 300, strict=False), pl.Series(values[::-1] * 100, strict=False))
    assert (found.judged, found.drifted, found.severity) == (True, False, pytest.approx(0, abs=0.1))


def test_infinite_is_not_missing(rng: np.random.Generator) -> None:
    old, new = rng.normal(size=2000), rng.normal(size=1000)
    new[:50], new[50:100] = np.inf, -np.inf
    found = one(old, new)
    assert (found.missing_share, result_of(found, "infinite").drifted) == (0.0, True)
    assert result_of(found, "negative infinite").text == "negative infinite 0.00% → 5.00%"
    missing = one(old, np.where(np.isinf(new), np.nan, new))
    assert (missing.missing_share, [test.name for test in missing.tests if test.drifted]) == (0.1, ["missing"])


def test_categories_that_hardly_repeat_are_judged(rng: np.random.Generator) -> None:
    def texts(low: int, high: int, rows: int) -> list[str]:
        return [f"c{number}" for number in rng.integers(low, high, rows)]

    old = texts(0, 5_000, 20_000)
    assert not one(old, texts(0, 5_000, 2_000), "categorical").drifted
    replaced = one(old, texts(2_500, 7_500, 2_000), "categorical")
    assert "unseen categories" in replaced.reason
    assert replaced.drifted
    common = one(old, [*texts(0, 5_000, 1_700), *["c1"] * 300], "categorical")
    assert "c1 0.0" in common.reason
    assert common.drifted


def test_ids_that_never_repeat_are_no_drift() -> None:
    old = [f"order-{number}" for number in range(20_000)]
    fresh = one(old, [f"order-{number}" for number in range(20_000, 22_000)], "categorical")
    assert (fresh.judged, fresh.drifted, fresh.new_categories) == (True, False, "")
    assert not one(old, old[:2_000], "categorical").drifted  # rows of the training set, scored again
    assert one(old, ["order-x"] * 2_000, "categorical").drifted


DTYPES = [
    pl.Series(["a", "b", ""] * 100, dtype=pl.Categorical),
    pl.Series([Decimal("1.1"), None] * 100),
    pl.Series([date(2024, 1, 1), date(1, 1, 1)] * 100),
    pl.Series([timedelta(1)] * 200),
    pl.Series([2**64 - 1, 0] * 50, dtype=pl.UInt64),
    pl.Series([None] * 100),
    pl.Series([], dtype=pl.String),
    pl.Series([1e308, -1e308, 5e-324, float("nan"), float("inf")] * 50),
    pl.Series([b"x"] * 100),
    pl.Series([{"a": 1}] * 50),
    pl.Series([True, None] * 50),
    pl.Series(np.random.default_rng(0).normal(size=1000) * 1e300),
    pl.Series([1]),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["numeric", "categorical"])
def test_values_of_any_type_are_judged_or_the_reason_is_said(kind: Kind) -> None:
    for old, new in itertools.product(DTYPES, DTYPES):
        found = one(old, new, kind)
        assert found.judged or found.not_judged, (old.dtype, new.dtype)
        assert all(0 <= test.p_value <= 1 and np.isfinite(test.distance) for test in found.tests)
        assert not (old is new and found.drifted), old.dtype


def test_what_is_not_judged_says_why() -> None:
    nothing = pl.Series([None] * 10, dtype=pl.Float64)
    empty = one(nothing, nothing)
    assert (empty.judged, empty.drifted, empty.severity) == (False, False, 0.0)
    assert empty.not_judged == "no values in the training data and the window"
    gone = one([1.0, 2.0] * 500, pl.Series([None] * 500, dtype=pl.Float64))
    assert (gone.drifted, gone.not_judged) == (True, "no values in the window")
    text = one([1.0] * 10, ["a"] * 10)
    assert (text.judged, text.not_judged) == (False, "in the window its values are String and not all numbers")
    nested = one([["a"]] * 10, ["a"] * 10, "categorical")
    assert (nested.judged, "List(String)" in nested.not_judged) == (False, True)
    no_rows = one([1.0] * 10, pl.Series([], dtype=pl.Float64))
    assert (no_rows.judged, no_rows.not_judged) == (False, "no values in the window")


@pytest.mark.parametrize("rows", [1, 2, 10, 30])
def test_tiny_windows_raise_no_alarm(rows: int) -> None:
    alarms = 0
    for seed in range(10):
        rng = np.random.default_rng([seed, rows])
        found, _ = compare(draw(rng, 2_000), draw(rng, rows), COLUMNS, MONITORING)
        alarms += any(column.drifted for column in found)
    assert alarms <= 1


def test_two_sample_chi_square_keeps_its_level(rng: np.random.Generator) -> None:
    """Of 400 undrifted pairs of samples with 40 categories about 5 % are significant at 0.05."""
    shares = rng.dirichlet(np.ones(40))
    rejected = sum(
        two_sample_chi_square(*(dict(enumerate(rng.multinomial(1000, shares))) for _ in range(2))) < 0.05
        for _ in range(400)
    )
    assert 5 <= rejected <= 40


def weekly(weeks: int, rng: np.random.Generator) -> pl.DataFrame:
    """Rows whose mean changes from week to week, as weather does."""
    means = np.random.default_rng(1).normal(size=weeks)
    rows = weeks * 700
    at = [datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=number / 100) for number in range(rows)]
    return pl.DataFrame({"at": at, "x": np.repeat(means, 700) + rng.normal(size=rows)})


@pytest.mark.parametrize("share", [0.006, 0.01, 0.05])
def test_two_categories_keep_the_small_level_that_many_tests_leave_them(share: float) -> None:
    """Exactly: the probability of all counts of 1,000 rows that are called different from 10,000 of that share."""
    level, old, counts = 2e-4, round(share * 10_000), range(round(share * 1_000) * 6)
    called = [two_sample_chi_square({0: 10_000 - old, 1: old}, {0: 1_000 - new, 1: new}) < level for new in counts]
    assert any(called)
    assert binom.pmf(counts, 1_000, share)[called].sum() <= level


def test_an_ordinary_week_is_no_drift(rng: np.random.Generator) -> None:
    reference, columns = weekly(12, rng), [DriftColumn("x", "numeric")]
    baseline = baseline_distances(reference, columns, timestamp="at", window=timedelta(days=7), min_rows=500)
    typical = reference.slice(7 * 700, 700)
    (blind,), _ = compare(reference, typical, columns, MONITORING)
    (seeing,), _ = compare(reference, typical, columns, MONITORING, baseline=baseline)
    assert blind.drifted
    assert not seeing.drifted
    beyond = typical.with_columns(pl.col("x") + 5)
    (found,), _ = compare(reference, beyond, columns, MONITORING, baseline=baseline)
    assert found.drifted
    thresholds = {full_name("x", test.name): test.distance_threshold for test in found.tests}
    assert thresholds["x: distribution"] == baseline["x: distribution"] > MONITORING.distance


def test_few_windows_say_nothing_of_the_ordinary(rng: np.random.Generator) -> None:
    columns = [DriftColumn("x", "numeric")]
    for window, weeks in ((timedelta(days=7), 3), (timedelta.max, 9)):
        assert baseline_distances(weekly(weeks, rng), columns, timestamp="at", window=window, min_rows=500) == {}


def test_a_common_value_is_told_as_it_is() -> None:
    random = np.random.default_rng(5)
    old = np.where(random.random(4000) < 0.3, 0.0, random.exponential(0.16, 4000))
    new = np.where(random.random(4000) < 0.1, 0.0, random.exponential(0.16, 4000))
    (judged,), _ = compare(
        pl.DataFrame({"x": old}), pl.DataFrame({"x": new}), [DriftColumn("x", "numeric")], MONITORING
    )
    assert "value 0 3" in judged.reason


def test_values_that_are_common_in_one_week_only_are_ordinary_and_a_growing_sentinel_is_not(
    rng: np.random.Generator,
) -> None:
    """Hours of weather: half of a week's rows have one of a few temperatures, which other weeks have rarely."""
    at = pl.datetime_range(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 25, tzinfo=UTC), "15m", eager=True)
    week = (np.arange(len(at)) // 672).astype(int)
    of_week = rng.integers(0, 4000, (week.max() + 1, 8))
    values = np.where(
        rng.random(len(at)) < 0.5, of_week[week, rng.integers(0, 8, len(at))], rng.integers(0, 4000, len(at))
    )
    values = np.where(rng.random(len(at)) < 0.01, -999, values)
    frame = pl.DataFrame({"at": at, "x": values.astype(float)})
    reference, fresh = frame.head(10 * 672), frame.slice(10 * 672, 672)
    columns = [DriftColumn("x", "numeric")]
    baseline = baseline_distances(reference, columns, timestamp="at", window=timedelta(days=7), min_rows=500)
    (blind,), _ = compare(reference, fresh, columns, MONITORING)
    (seeing,), _ = compare(reference, fresh, columns, MONITORING, baseline=baseline)
    assert (blind.drifted, seeing.drifted) == (True, False)
    more = fresh.with_columns(x=pl.when(pl.int_range(pl.len()) % 16 == 0).then(-999.0).otherwise("x"))
    (found,), _ = compare(reference, more, columns, MONITORING, baseline=baseline)
    assert [test.name for test in found.tests if test.drifted] == ["value -999"]


@pytest.mark.parametrize("constant", [0.0, 0.3, 1e6])
@pytest.mark.parametrize("value", [-999.0, 1e300, -1e-5, 12.5])
def test_values_far_from_a_nearly_constant_reference_are_told_as_they_are(constant: float, value: float) -> None:
    old = np.full(4_000, constant)
    new = np.where(np.arange(1_000) % 10 == 0, value, constant)
    text = f"{value:.6g}"
    assert result_of(one(old, new), "values").text in {
        f"{constant:.6g} 100.00% → 90.00%",
        f"{text} 0.00% → 10.00%",
    }
    rare = np.where(np.arange(4_000) % 400 == 0, value, constant)
    assert f"{text} 0.25% → 10.00%" in one(rare, new).reason


def test_values_far_from_a_nearly_constant_reference_are_not_one_value() -> None:
    old = np.where(np.arange(4_000) % 50 == 0, 3.0, 1e-300)
    new = np.where(np.arange(1_000) % 50 == 0, 4.0, 1e-300)
    assert {"3 2.00% → 0.00%", "4 0.00% → 2.00%"} & {test.text for test in one(old, new).tests}
    assert one(old, new).drifted


def test_values_that_cancel_out_to_nothing_are_told_as_zero_whatever_the_median() -> None:
    """What is left of a rolling sum: 1e-17 beside 0, in a column whose median is no multiple of the grid."""
    random = np.random.default_rng(3)
    for centre in (0.137, 0.4711, 1 / 3):
        sides = []
        for zeros in (0.47, 0.2):
            values = random.gamma(2.0, centre, 4_000)
            values[: int(4_000 * zeros)] = np.where(random.random(int(4_000 * zeros)) < 0.9, 0.0, 1.4e-17)
            sides.append(values)
        names = [
            test.name for test in one(sides[0], sides[1]).tests if test.drifted and test.method == "two proportions"
        ]
        assert names == ["value 0"]


def test_medians_and_bounds_are_told_with_the_digits_that_tell_them_apart(rng: np.random.Generator) -> None:
    old, new = 1_385_000_000 + rng.normal(0, 100, 4_000), 1_385_000_200 + rng.normal(0, 100, 2_000)
    first, last = result_of(one(old, new), "distribution").text.removeprefix("median ").split(" → ")
    assert abs(float(last) - float(first) - 200) < 20
    low, high = result_of(one(old, new), "tails").text.removeprefix("outside ").partition(":")[0].split(" to ")
    assert 400 < float(high) - float(low) < 700


def test_which_values_are_tested_does_not_depend_on_which_side_has_them(rng: np.random.Generator) -> None:
    """Else those would be tested that chance has driven apart, and share the significance with no others."""
    whole = rng.normal(size=4_800)
    for value in np.arange(-1.5, 1.5, 0.25):
        whole[rng.random(len(whole)) < 0.004] = value
    tested = set()
    for seed in range(4):
        dealt = np.random.default_rng(seed).permutation(whole)
        found = one(dealt[:4_000], dealt[4_000:])
        tested.add(frozenset(test.name for test in found.tests if test.name.startswith("value ")))
    assert len(tested) == 1
    assert len(tested.pop()) >= 6


def test_how_far_a_median_moved_is_told_however_far() -> None:
    old = np.linspace(0, 1e-3, 1_000)
    moved = one(old, old + 1e13).shift
    assert moved == pytest.approx(1e13 / (0.5e-3 / 1.349), rel=0.01)
    overflow = one(old * 1e-300, old * 1e300).shift
    assert overflow == np.finfo(float).max
