"""The point-in-time rules, one hand-made case each."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from ml_platform.features.point_in_time import keyed_instants
from ml_platform.features.point_in_time.join import point_in_time_join
from ml_platform.features.point_in_time.lookup import ResolvedLookup, resolve_lookup
from ml_platform.features.point_in_time.lookup_index import LookupIndex
from ml_platform.features.views.view import FeatureColumn, FeatureView
from ml_platform.spec.model import Lookup

TIME = pl.Datetime("us", "UTC")
NOON = datetime(2013, 7, 4, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def spine(rows: list[tuple[str | None, datetime | None]]) -> pl.LazyFrame:
    return pl.LazyFrame(rows, schema={"shop": pl.String, "at": TIME}, orient="row")


def view(rows: list[tuple[str | None, datetime, int]], *, ttl: timedelta | None = None) -> ResolvedLookup:
    frame = pl.LazyFrame(rows, schema={"shop": pl.String, "event_time": TIME, "sales": pl.Int64}, orient="row")
    return ResolvedLookup("shops", frame, {"shop": "shop"}, ("sales",), ttl=ttl)


def by_index(rows: pl.DataFrame, lookup: ResolvedLookup, timestamp: str = "at") -> pl.DataFrame:
    """What the index of a view gives for each row; rows without an instant are not for it."""
    index = LookupIndex.point_in_time(lookup)
    places = index.find(rows.drop_nulls(timestamp), rows[timestamp].drop_nulls())
    found = np.full(rows.height, -1)
    found[rows[timestamp].is_not_null().to_numpy()] = places
    return index.values[pl.Series([None if place < 0 else place for place in found.tolist()], dtype=pl.UInt32)]


@pytest.fixture(params=["in-memory", "streaming", "duckdb", "index"])
def values(request: pytest.FixtureRequest):
    def collect(rows: pl.LazyFrame, *lookups: ResolvedLookup) -> list[int | None]:
        if request.param == "index":
            return by_index(rows.collect(), lookups[0])["shops__sales"].to_list()
        if request.param == "duckdb":
            joined = point_in_time_join(rows, lookups, timestamp="at", engine="duckdb", memory_limit="200MB").collect()
        else:
            joined = point_in_time_join(rows, lookups, timestamp="at").collect(engine=request.param)
        assert joined.select("shop", "at").equals(rows.collect()), "the spine's rows, order and number must stay"
        return joined["shops__sales"].to_list()

    return collect


def test_an_event_at_the_very_instant_counts_and_one_after_it_does_not(values):
    lookup = view([("a", NOON, 1), ("a", NOON + MICROSECOND, 2)])
    assert values(spine([("a", NOON), ("a", NOON - MICROSECOND), ("a", NOON + MICROSECOND)]), lookup) == [1, None, 2]


def test_ttl_is_inclusive_to_the_microsecond(values):
    lookup = view([("a", NOON, 1)], ttl=timedelta(hours=2))
    bound = NOON + timedelta(hours=2)
    assert values(spine([("a", bound), ("a", bound + MICROSECOND)]), lookup) == [1, None]


def test_an_expired_newest_row_does_not_bring_back_an_older_one(values):
    lookup = view([("a", NOON - timedelta(hours=1), 1), ("a", NOON, 2)], ttl=timedelta(minutes=1))
    assert values(spine([("a", NOON + timedelta(hours=1))]), lookup) == [None]


@pytest.mark.parametrize("reverse", [False, True])
def test_ties_go_to_the_latest_created(values, reverse):
    rows = [("a", NOON, NOON + timedelta(hours=h), h) for h in (1, 3, 2)]
    frame = pl.LazyFrame(
        rows[::-1] if reverse else rows,
        schema={"shop": pl.String, "event_time": TIME, "created": TIME, "sales": pl.Int64},
        orient="row",
    )
    lookup = ResolvedLookup("shops", frame, {"shop": "shop"}, ("sales",), created="created")
    assert values(spine([("a", NOON)]), lookup) == [3]


def test_null_keys_and_null_timestamps_find_nothing_but_stay(values):
    lookup = view([(None, NOON, 1), ("a", NOON, 2)])
    assert values(spine([(None, NOON), ("a", None), (None, None), ("a", NOON)]), lookup) == [None, None, None, 2]


def test_an_unknown_entity_stays_with_nulls(values):
    assert values(spine([("b", NOON)]), view([("a", NOON, 1)])) == [None]


def test_an_empty_view_gives_nulls(values):
    assert values(spine([("a", NOON), ("b", NOON)]), view([])) == [None, None]


def test_an_empty_spine_stays_empty(values):
    assert values(spine([]), view([("a", NOON, 1)])) == []


def test_duplicates_in_an_unsorted_spine_keep_order_and_number(values):
    lookup = view([("a", NOON, 1), ("a", NOON + timedelta(hours=2), 2), ("b", NOON, 3)])
    late, early = NOON + timedelta(hours=3), NOON + timedelta(hours=1)
    rows = spine([("a", late), ("b", early), ("a", early), ("a", late), ("a", late)])
    assert values(rows, lookup) == [2, 3, 1, 2, 2]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_two_keys_must_both_match_under_the_spines_own_names(engine):
    frame = pl.LazyFrame(
        {"origin": ["EWR", "EWR", "JFK"], "dest": ["IAH", "LAX", "IAH"], "event_time": [NOON] * 3, "late": [1, 2, 3]},
        schema_overrides={"event_time": TIME},
    )
    lookup = ResolvedLookup("route", frame, {"origin": "from", "dest": "dest"}, ("late",))
    rows = pl.LazyFrame(
        {"from": ["EWR", "JFK", "JFK", None], "dest": ["LAX", "IAH", "LAX", "IAH"], "at": [NOON] * 4},
        schema_overrides={"at": TIME},
    )
    joined = point_in_time_join(rows, [lookup], timestamp="at", engine=engine).collect()
    assert joined["route__late"].to_list() == [2, 3, None, None]
    assert joined.columns == ["from", "dest", "at", "route__late"]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_several_views_are_joined_independently(engine):
    lookups = [
        view([("a", NOON, 1)]),
        ResolvedLookup(
            "stock",
            pl.LazyFrame({"shop": ["b"], "event_time": [NOON], "sales": [9]}, schema_overrides={"event_time": TIME}),
            {"shop": "shop"},
            ("sales",),
        ),
    ]
    joined = point_in_time_join(spine([("b", NOON), ("a", NOON)]), lookups, timestamp="at", engine=engine).collect()
    assert joined.select("shops__sales", "stock__sales").rows() == [(None, 9), (1, None)]


def written(rows: list[tuple[str, datetime, datetime | None, int]], *, ttl: timedelta | None = None) -> ResolvedLookup:
    frame = pl.LazyFrame(
        rows, schema={"shop": pl.String, "event_time": TIME, "created": TIME, "sales": pl.Int64}, orient="row"
    )
    return ResolvedLookup("shops", frame, {"shop": "shop"}, ("sales",), created="created", ttl=ttl, knowledge_time=True)


def test_by_knowledge_time_a_later_backfill_is_not_seen_before_it_was_written(values):
    hour = timedelta(hours=1)
    lookup = written(
        [
            ("a", NOON, NOON, 1),
            ("a", NOON - hour, NOON + 3 * hour, 2),  # an older event, written late: never the newest
            ("a", NOON, NOON + 4 * hour, 3),  # a correction
            ("a", NOON + 2 * hour, NOON + 6 * hour, 4),  # a backfill
            ("a", NOON + 9 * hour, NOON + 5 * hour, 5),  # written ahead of its event
            ("a", NOON, None, 6),  # nobody knows when
        ]
    )
    asked = [NOON + n * hour for n in (-1, 0, 3, 4, 5, 6, 8, 9)]
    assert values(spine([("a", at) for at in asked]), lookup) == [None, 1, 1, 3, 3, 4, 4, 5]


def test_by_knowledge_time_the_ttl_still_counts_from_the_event(values):
    lookup = written([("a", NOON, NOON + timedelta(hours=3), 1)], ttl=timedelta(hours=4))
    asked = [NOON + timedelta(hours=4), NOON + timedelta(hours=4) + MICROSECOND]
    assert values(spine([("a", at) for at in asked]), lookup) == [1, None]


def test_knowledge_time_needs_a_created_column():
    with pytest.raises(ValueError, match="knowledge_time of 'shops' needs a view with a `created` column"):
        ResolvedLookup("shops", pl.LazyFrame(), {"shop": "shop"}, ("sales",), knowledge_time=True)


@pytest.mark.parametrize("knowledge_time", [False, True])
@pytest.mark.parametrize("places", [2**62, 2**20])  # the latter for instants by rank, as of many keys over a long time
def test_both_engines_give_the_same_rows_of_a_random_world(knowledge_time, places, monkeypatch):
    monkeypatch.setattr(keyed_instants, "_PLACES", places)
    random = np.random.default_rng(29)

    def instants(rows: int) -> pl.Series:
        return pl.Series(random.integers(0, 2000, rows) * 60_000_000).cast(pl.Datetime("us", "UTC"))

    def shops(rows: int) -> pl.Series:
        return pl.Series(random.integers(0, 20, rows)).replace_strict(
            {0: None}, default=pl.first(), return_dtype=pl.Int64
        )

    rows = pl.DataFrame({"shop": shops(3000), "at": instants(3000), "n": range(3000)})
    events = pl.DataFrame(
        {"shop": shops(4000), "event_time": instants(4000), "created": instants(4000), "sales": range(4000)}
    ).unique(["shop", "event_time", "created"], maintain_order=True)
    lookup = ResolvedLookup(
        "shops", events.lazy(), {"shop": "shop"}, ("sales",), created="created", ttl=timedelta(minutes=40),
        knowledge_time=knowledge_time,
    )  # fmt: skip
    polars, duckdb = (
        point_in_time_join(rows.lazy(), [lookup], timestamp="at", engine=engine).collect()
        for engine in ("polars", "duckdb")
    )
    assert polars.equals(duckdb)
    assert polars.schema == duckdb.schema
    assert by_index(rows, lookup)["shops__sales"].equals(polars["shops__sales"])
    by_hand = []
    for shop, at, _ in rows.head(200).iter_rows():
        seen = [
            e for e in events.iter_rows(named=True)
            if shop is not None and e["shop"] == shop and e["event_time"] <= at
            and (not knowledge_time or e["created"] <= at)
        ]  # fmt: skip
        newest = max(seen, key=lambda e: (e["event_time"], e["created"]), default=None)
        if newest is not None and newest["event_time"] < at - timedelta(minutes=40):
            newest = None
        by_hand.append(newest["sales"] if newest else None)
    assert polars["shops__sales"].head(200).to_list() == by_hand
    assert 20 < sum(value is not None for value in by_hand) < 195


def feast_rows(spine: pl.DataFrame, lookup: ResolvedLookup) -> list[tuple[int | None, ...]]:
    """Feast's `get_historical_features` (0.67, `point_in_time_join` of its Ibis store) by brute force.

    Its words: every row of the view of that key with time ≤ timestamp ≤ time + TTL, ordered by time and then created,
    both descending, and of these the first; a row of the spine that has none keeps nulls.
    """
    events, found = lookup.frame.collect().to_dicts(), []
    for row in spine.to_dicts():
        matches = [
            e for e in events
            if all(e[own] is not None and e[own] == row[other] for own, other in lookup.on.items())
            and e["event_time"] <= row["at"]
            and (lookup.ttl is None or e["event_time"] + lookup.ttl >= row["at"])
        ]  # fmt: skip
        first = max(matches, key=lambda e: (e["event_time"], e["created"]), default={})
        found.append(tuple(first.get(name) for name in lookup.features))
    return found


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_the_rows_are_feasts(engine):
    random = np.random.default_rng(31)

    def world(rows: int, hours: int) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "shop": [("a", "b", "c", None)[n] for n in random.integers(0, 4, rows)],
                "till": random.integers(0, 2, rows),
                "event_time": pl.Series(random.integers(0, hours, rows) * 3_600_000_000).cast(TIME),
            }
        )

    rows = world(300, 60).rename({"event_time": "at", "till": "desk"})
    lookups = []
    for name, ttl in (("brief", timedelta(hours=2)), ("long", timedelta(days=1)), ("ever", None)):
        events = world(120, 50).with_columns(
            created=pl.Series(random.permutation(120) * 1_000_000).cast(TIME),
            sales=pl.Series(range(120)),
            late=pl.Series([None if n % 5 == 0 else n for n in range(120)]),
        )
        on = {"shop": "shop", "till": "desk"}
        lookups.append(ResolvedLookup(name, events.lazy(), on, ("late", "sales"), created="created", ttl=ttl))
    joined = point_in_time_join(rows.lazy(), lookups, timestamp="at", engine=engine).collect()
    for lookup in lookups:
        wanted = feast_rows(rows, lookup)
        assert joined.select(f"{lookup.view}__late", f"{lookup.view}__sales").rows() == wanted
        hits = sum(sales is not None for _, sales in wanted)
        assert 0 < hits < rows.height


ENGINES = pytest.mark.parametrize("engine", ["polars", "duckdb"])


@ENGINES
@pytest.mark.parametrize(
    "dtype", [pl.Datetime("ns", "UTC"), pl.Datetime("ms", "UTC"), pl.Datetime("us", "America/New_York")]
)
def test_instants_may_be_of_another_unit_or_time_zone(engine, dtype):
    rows = spine([("A", NOON), ("A", NOON - timedelta(hours=1))]).with_columns(pl.col("at").cast(dtype))
    known = view([("A", NOON, 1)], ttl=timedelta(0))
    joined = point_in_time_join(rows, [known], timestamp="at", engine=engine).collect()
    assert joined["shops__sales"].to_list() == [1, None]
    assert joined.schema["at"] == dtype, "the spine stays as it is"


@ENGINES
@pytest.mark.parametrize("dtype", [pl.Datetime("us"), pl.Date, pl.String])
def test_what_is_no_instant_is_refused_with_a_way_to_make_it_one(engine, dtype):
    rows = spine([("A", NOON)]).with_columns(pl.col("at").cast(dtype))
    with pytest.raises(ValueError, match=r"'at' of the spine is .*'event_time' of 'shops' is .*replace_time_zone"):
        point_in_time_join(rows, [view([("A", NOON, 1)])], timestamp="at", engine=engine)


@ENGINES
def test_whole_numbers_of_any_width_and_categories_meet_the_views_keys(engine):
    frame = pl.LazyFrame(
        {"till": [1, 2], "shop": ["A", "A"], "event_time": [NOON, NOON], "sales": [10, 20]},
        schema_overrides={"till": pl.Int16, "event_time": TIME},
    )
    lookup = ResolvedLookup("tills", frame, {"till": "till", "shop": "shop"}, ("sales",))
    rows = pl.LazyFrame(
        {"till": [2, 70_000, None], "shop": ["A"] * 3, "at": [NOON] * 3},
        schema_overrides={"till": pl.UInt64, "shop": pl.Categorical, "at": TIME},
    )
    joined = point_in_time_join(rows, [lookup], timestamp="at", engine=engine).collect()
    assert joined["tills__sales"].to_list() == [20, None, None]


@ENGINES
@pytest.mark.parametrize("dtype", [pl.Float64, pl.String])
def test_keys_of_another_type_are_refused_with_both(engine, dtype):
    frame = pl.LazyFrame({"till": [1], "event_time": [NOON], "sales": [1]}, schema_overrides={"event_time": TIME})
    rows = pl.LazyFrame({"desk": ["1"], "at": [NOON]}, schema_overrides={"at": TIME}).cast({"desk": dtype})
    lookup = ResolvedLookup("tills", frame, {"till": "desk"}, ("sales",))
    with pytest.raises(ValueError, match=rf"'desk' of the spine is {dtype}, 'till' of 'tills' is Int64; cast one"):
        point_in_time_join(rows, [lookup], timestamp="at", engine=engine)


def test_a_name_that_would_be_there_twice_is_named():
    known = view([("A", NOON, 1)])
    with pytest.raises(ValueError, match=r"\['shops__sales'\] would appear twice; rename the spine's column, or give"):
        point_in_time_join(spine([("A", NOON)]), [known, known], timestamp="at")
    with pytest.raises(ValueError, match=r"\['shops__sales'\] would appear twice"):
        point_in_time_join(spine([("A", NOON)]).with_columns(shops__sales=1), [known], timestamp="at")


def test_instants_before_1970_and_far_apart_keep_their_order():
    long_ago, far = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
    rows = spine([("A", NOON), ("B", long_ago), ("A", far), ("B", far)])
    events: list[tuple[str | None, datetime, int]] = [
        ("A", long_ago, 1),
        ("A", NOON + MICROSECOND, 2),
        ("B", long_ago + MICROSECOND, 3),
    ]
    joined = point_in_time_join(rows, [view(events)], timestamp="at").collect()
    assert joined["shops__sales"].to_list() == [1, None, 2, 3]


def test_a_missing_key_column_is_named():
    with pytest.raises(ValueError, match=r"the spine has no column \['shop'\]; it has \['at'\]"):
        point_in_time_join(pl.LazyFrame({"at": [NOON]}), [view([])], timestamp="at")


def test_a_lookup_may_only_name_features_and_keys_of_the_view():
    shops = FeatureView(
        name="shops",
        description="Sales.",
        owner="a@b",
        entity=("shop",),
        columns={"sales": FeatureColumn(type="integer", description="Sales.")},
        sql="SELECT 1",
    )
    with pytest.raises(ValueError, match=r"no feature \['sale'\]; it has \['sales'\]"):
        resolve_lookup(Lookup(view="shops", features=("sale",)), shops, pl.LazyFrame())
    with pytest.raises(ValueError, match=r"keys \['store'\] are no entity columns of 'shops'; those are \['shop'\]"):
        resolve_lookup(Lookup(view="shops", keys={"store": "shop"}), shops, pl.LazyFrame())


FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
ENDS = [-(2**63) + 1, 2**63 - 1]  # what DuckDB calls -infinity and infinity


@pytest.mark.parametrize(
    "ttl", [None, timedelta(0), timedelta(days=2), timedelta.max, timedelta(days=-1), timedelta.min]
)
def test_no_instant_is_too_early_or_late_and_no_ttl_too_long(values, ttl):
    lookup = view([("a", FIRST, 1), ("a", NOON, 2), ("a", LAST, 3)], ttl=ttl)
    rows = spine([("a", FIRST), ("a", NOON), ("a", NOON + timedelta(days=3)), ("a", LAST)])
    is_negative = ttl is not None and ttl < timedelta(0)
    exact = [None, None, None, None] if is_negative else [1, 2, None, 3]
    assert values(rows, lookup) == (exact if ttl is not None and ttl <= timedelta(days=2) else [1, 2, 2, 3])


@pytest.mark.parametrize("ttl", [None, timedelta(days=2), timedelta.max])
@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_infinite_instants_come_after_and_before_all_others(engine, ttl):
    rows = pl.LazyFrame({"shop": ["a", "a", "a"], "at": pl.Series([*ENDS, 0]).cast(TIME)})
    lookup = view([("a", datetime(1970, 1, 1, tzinfo=UTC), 1)], ttl=ttl)
    joined = point_in_time_join(rows, [lookup], timestamp="at", engine=engine).collect()
    assert joined["shops__sales"].to_list() == [None, None if ttl == timedelta(days=2) else 1, 1]
    events = pl.LazyFrame({"shop": ["a"] * 3, "event_time": pl.Series([*ENDS, 5]).cast(TIME), "sales": [7, 8, 9]})
    lookup = ResolvedLookup("shops", events, {"shop": "shop"}, ("sales",), ttl=ttl)
    joined = point_in_time_join(rows, [lookup], timestamp="at", engine=engine).collect()
    assert joined["shops__sales"].to_list() == [7, 8, None if ttl == timedelta(days=2) else 7]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
@pytest.mark.parametrize("clock", ["ns", "us", "ms"])
@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
def test_clocks_of_other_units_do_not_round_or_wrap(engine, clock, unit):
    at = [NOON, NOON + timedelta(hours=2), NOON + timedelta(hours=2, milliseconds=1), datetime(2200, 1, 1, tzinfo=UTC)]
    at += [] if unit == "ns" else [LAST.replace(microsecond=0), FIRST]
    rows = pl.LazyFrame({"shop": ["a"] * len(at), "at": at}).cast({"at": pl.Datetime(unit, "UTC")})
    events = pl.LazyFrame({"shop": ["a"], "event_time": [NOON], "sales": [1]})
    events = events.cast({"event_time": pl.Datetime(clock, "Europe/Berlin")})
    lookup = ResolvedLookup("shops", events, {"shop": "shop"}, ("sales",), ttl=timedelta(hours=2))
    joined = point_in_time_join(rows, [lookup], timestamp="at", engine=engine).collect()
    assert joined["shops__sales"].to_list() == [1, 1, *[None] * (len(at) - 2)]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_days_are_instants_of_a_clock_of_days(engine):
    rows = pl.LazyFrame({"shop": ["a"] * 3, "at": [NOON.date(), NOON.date() + timedelta(days=2), LAST.date()]})
    events = pl.LazyFrame({"shop": ["a"], "event_time": [NOON.date()], "sales": [1]})
    lookup = ResolvedLookup("shops", events, {"shop": "shop"}, ("sales",), ttl=timedelta(days=1))
    joined = point_in_time_join(rows, [lookup], timestamp="at", engine=engine).collect()
    assert joined["shops__sales"].to_list() == [1, None, None]
