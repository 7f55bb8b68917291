"""Decisions of a forecast: periods, season, series, gaps, origins; and what is refused, with what to do."""

from itertools import pairwise

import polars as pl
import pytest

from ml_platform.automl.forecast.plan import LEVEL, SEASONAL
from ml_platform_tests.automl.forecast.tables import decided, planned, sales, starts


def test_days_have_a_season_of_a_week_and_origins_a_horizon_apart() -> None:
    plan = planned(sales(), known_ahead=("promo",))
    own = plan.forecast
    assert own is not None
    assert (own.every, own.season, own.horizon, own.groups) == ("day", 7, 14, ("store",))
    assert (own.lagged, own.known_ahead) == (("visits",), ("promo",))
    origins = [*own.validation, *own.origins]
    assert {later - earlier for earlier, later in pairwise(origins)} == {14}
    assert origins[-1] + 14 == own.last
    said = decided(plan)
    assert said["season"].startswith("7 days: usual for days; correlation with a season before 0.9")
    assert said["periods"].startswith("days: 100 % of neighbours are 1 day apart")
    assert said["metric"].startswith("mae: ")
    names = [column.name for column in plan.columns]
    assert names[:4] == ["store", "step", "promo", "season_position"]
    assert names[-len(SEASONAL) :] == list(SEASONAL)
    assert set(LEVEL) < set(names)
    assert "visits" not in names


@pytest.mark.parametrize(("every", "season", "horizon"), [("hour", 24, 24), ("week", 52, 4), ("month", 12, 3)])
def test_periods_are_inferred_from_distances(every: str, season: int, horizon: int) -> None:
    own = planned(sales(150, "a", every), group=None, drop=("store",), horizon=horizon).forecast
    assert own is not None
    assert (own.every, own.season, own.groups) == (every, season, ())


def test_weeks_have_a_season_of_a_year_where_the_history_allows_one() -> None:
    plan = planned(sales(110, "a", "week"), horizon=4)
    assert decided(plan)["season"] == "1 weeks: 110 weeks are too few for a season of a year, 52 weeks"
    own = planned(sales(110, "a", "week"), horizon=4, season=13).forecast
    assert own is not None
    assert own.season == 13


def test_month_ends_are_months() -> None:
    rows = sales(90, "a", "month").with_columns(pl.col("day").dt.month_end())
    own = planned(rows, horizon=3).forecast
    assert own is not None
    assert (own.every, own.last) == ("month", 2010 * 12 + 89)


def test_gaps_short_and_ended_series_are_named() -> None:
    rows = pl.concat(
        [
            sales().with_row_index().filter(~pl.col("index").is_in([30, 31, 200])).drop("index"),
            sales(3, "c"),
            sales(100, "d"),
        ]
    )
    said = decided(planned(rows))
    assert said["missing periods"].startswith("a: 2 of 150, b: 1 of 150: a missing period is a null")
    assert said["short series"].startswith("c (3 days): fewer than two seasons and the horizon, 28 days")
    assert said["ended series"].startswith("d (last 2024-04-09): no value in the newest periods, up to 2024-05-29")
    assert said["series"].startswith("4: 3 are long enough")


def test_long_tables_are_thinned_by_origins_of_all_places_of_the_season() -> None:
    own = planned(sales(900, "abcdefghij")).forecast
    assert own is not None
    assert own.stride == 3


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("no change", {"horizon": 60}, "wants 254 at least .* Give more history, a shorter --horizon, or"),
        ("text", {}, "'sales' is of type String; a forecast wants numbers"),
        ("uneven", {}, "not equally spaced: .* whole days .*, such as 2024-01-04 05:00:00"),
        ("minutes", {}, "not equally spaced by hours, days, weeks or months: .* 15 minutes apart. Sum or average"),
        ("twice", {}, r"1 times have several rows of one series, e.g. 2 rows of store=a, 2024-01-01.*--group store"),
        ("blank", {"group": "the store"}, r"--group 'the store,'<column>\).*SELECT \"the store\", \"day\", sum"),
        ("no change", {"allow": ("visit",)}, "no column 'visit'; did you mean 'visits'"),
        ("no group", {"group": None}, "several rows of one series.*tell series apart"),
        ("null group", {}, "1 rows have no 'store', so their series is unknown"),
        ("no change", {"metric": "r2"}, "--metric of a forecast is mae or rmse, found r2"),
        ("no change", {"split": "random"}, "--split do not go with --horizon"),
        ("no change", {"time": "store"}, "'store' is of type String, wanted dates or instants; dates .*: day"),
        ("no change", {"known_ahead": ("sales",)}, "sales is target or time"),
        ("month", {"known_ahead": ("month",)}, "month: forecasts have such columns of their own"),
        ("nothing", {}, "no row has a value of the target"),
    ],
)  # fmt: skip
def test_what_cannot_be_forecast_is_refused_with_what_to_do(change: str, options: dict, message: str) -> None:
    rows = sales()
    first = pl.int_range(pl.len()) == 3
    change_of = {
        "no change": rows,
        "no group": rows,
        "text": rows.with_columns(pl.col("sales").cast(pl.String) + " EUR"),
        "uneven": rows.with_columns(pl.when(first).then(pl.col("day").dt.offset_by("5h")).otherwise(pl.col("day"))),
        "minutes": rows.with_columns(
            pl.concat([pl.Series(starts("hour", 150)).dt.epoch("us") // 4] * 2)
            .cast(pl.Datetime("us", "UTC"))
            .alias("day")
        ),
        "twice": pl.concat([rows, rows.head(1)]),
        "blank": pl.concat([rows, rows.head(1)]).rename({"store": "the store"}),
        "null group": rows.with_columns(pl.when(~first).then(pl.col("store"))),
        "month": rows.with_columns(month=pl.col("promo")),
        "nothing": rows.with_columns(sales=pl.lit(None, pl.Float64)),
    }[change]
    with pytest.raises((ValueError, LookupError), match=message):
        planned(change_of, **options)
