"""Training sets by hand, from frames and from SQL."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from ml_platform.features.training_sets.notebook_api import create_training_set
from ml_platform.features.training_sets.sampling import sample_filter
from ml_platform.features.views.load import load_views
from ml_platform.lake.errors import TableNotFound
from ml_platform.spec.model import Lookup

NOON = datetime(2013, 7, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TIME = pl.Datetime("us", "UTC")
VIEW = """/*
description: Weather.
owner: a@b
entity: [origin]
ttl: 5 hours
created: written
columns:
  temp: {type: number, description: Temperature.}
  wind: {type: number, description: Wind.}
*/
SELECT origin, "at" AS event_time, written, temp, wind FROM raw.weather
"""


@pytest.fixture
def views(lake, tmp_path):
    (tmp_path / "weather.sql").write_text(VIEW)
    rows = [
        ("EWR", NOON - HOUR, NOON - HOUR, 30.0, 1.0),
        ("EWR", NOON, NOON + 24 * HOUR, 99.0, 2.0),  # backfilled a day later
        ("JFK", NOON - 9 * HOUR, NOON - 9 * HOUR, 10.0, 3.0),  # too old
    ]
    frame = pl.DataFrame(
        rows,
        schema={"origin": pl.String, "at": TIME, "written": TIME, "temp": pl.Float64, "wind": pl.Float64},
        orient="row",
    )
    lake.append("raw/weather", frame)
    found = load_views(tmp_path)
    lake.append("features/weather", frame.rename({"at": "event_time"}))
    return found


def flights() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "id": [1, 2, 3, 4],
            "airport": ["EWR", "JFK", "EWR", "EWR"],
            "now": [NOON + HOUR, NOON, NOON + 2 * HOUR, NOON - 3 * HOUR],
            "known_at": [NOON + 5 * HOUR, NOON + 6 * HOUR, NOON + 30 * HOUR, NOON],
            "late": [True, False, True, None],
        },
        schema_overrides={"now": TIME, "known_at": TIME},
    )


AIRPORT = {"origin": "airport"}


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_features_are_joined_to_a_frame(lake, views, engine):
    found = create_training_set(
        flights(),
        [Lookup(view="weather", keys=AIRPORT)],
        "late",
        timestamp="now",
        lake=lake,
        views=views,
        engine=engine,
    )
    assert found.frame.select("id", "weather__temp", "weather__wind").rows() == [
        (1, 99.0, 2.0), (2, None, None), (3, 99.0, 2.0),
    ]  # fmt: skip
    assert found.tables == {"features/weather": 0}
    assert found.view_hashes == {"weather": views["weather"].hash}


def test_by_knowledge_time_the_backfill_does_not_leak(lake, views):
    lookup = Lookup(view="weather", keys=AIRPORT, features=("temp",), knowledge_time=True)
    found = create_training_set(flights(), [lookup], "late", timestamp="now", lake=lake, views=views)
    assert found.frame.select("id", "weather__temp").rows() == [(1, 30.0), (2, None), (3, 30.0)]


def test_a_spine_in_sql_is_pinned_with_the_views(lake, views):
    lake.append("raw/flights", flights().rename({"airport": "origin"}))
    query = "SELECT id, origin, now AS event_time, late FROM raw.flights ORDER BY id"
    first = create_training_set(query, ["weather"], "late", lake=lake, views=views)
    assert first.tables == {"features/weather": 0, "raw/flights": 0}
    lake.append("raw/flights", flights().rename({"airport": "origin"}).with_columns(id=pl.col("id") + 10))
    assert create_training_set(query, ["weather"], "late", lake=lake, views=views).frame.height == 6
    again = create_training_set(query, ["weather"], "late", lake=lake, views=views, versions=first.tables)
    assert again.frame.equals(first.frame)


@pytest.mark.parametrize("as_of", [NOON + 6 * HOUR, "2013-07-04T18:00"])
def test_only_labels_known_by_as_of_are_used(lake, views, as_of):
    asked = {"timestamp": "now", "lake": lake, "views": views, "as_of": as_of}
    lookups = [Lookup(view="weather", keys=AIRPORT)]
    found = create_training_set(flights(), lookups, "late", label_available_at="known_at", **asked)
    assert found.frame["id"].to_list() == [1, 2]
    with pytest.raises(ValueError, match="say in `label_available_at`"):
        create_training_set(flights(), lookups, "late", **asked)


def test_sampling_by_label_keeps_the_others_whole_and_draws_the_same_again(lake, views):
    many = pl.concat([flights().filter(id=n % 3 + 1).with_columns(id=pl.lit(n, pl.Int64)) for n in range(300)])
    asked = {"timestamp": "now", "lake": lake, "views": views, "sample": {True: 0.2}}
    first, second = (
        create_training_set(many, [Lookup(view="weather", keys=AIRPORT)], "late", **asked).frame for _ in range(2)
    )
    assert first.equals(second)
    assert first.filter(~pl.col("late")).height == 100
    assert 20 < first.filter("late").height < 60


@pytest.mark.parametrize("share", [0.0, 1.5, {True: -1.0}])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ValueError, match=r"wanted shares in \(0, 1\]"):
        sample_filter(pl.col("id"), share, "late")


def test_the_sample_does_not_hang_on_the_order_of_the_rows(lake, views):
    many = pl.DataFrame({"id": range(400)}).with_columns(late=pl.col("id") % 2 == 0, event_time=pl.lit(NOON, TIME))
    kept_ids = [
        sorted(create_training_set(frame, [], "late", sample=0.3, lake=lake, views=views).frame["id"])
        for frame in (many, many.reverse(), many.sort("late"))
    ]
    assert kept_ids[0] == kept_ids[1] == kept_ids[2]
    assert 80 < len(kept_ids[0]) < 160


def test_a_value_that_the_label_has_not_cannot_be_sampled(lake, views):
    with pytest.raises(ValueError, match=r"sample: the label 'late' has no value \['no'\]; it has \[.*True"):
        create_training_set(flights(), [], "late", timestamp="now", sample={"no": 0.1}, lake=lake, views=views)


def test_a_view_may_be_looked_up_twice_under_names_of_their_own(lake, views):
    trips = flights().with_columns(dest=pl.Series(["JFK", "EWR", "JFK", "JFK"]))
    lookups = [
        Lookup(view="weather", keys=AIRPORT, features=("temp",)),
        Lookup(view="weather", name="there", keys={"origin": "dest"}, features=("temp",)),
    ]
    found = create_training_set(trips, lookups, "late", timestamp="now", lake=lake, views=views).frame
    assert found["weather__temp"].to_list() == [99.0, None, 99.0]
    assert found["there__temp"].to_list() == [None, 99.0, None]
    with pytest.raises(ValueError, match=r"\['weather'\] more than once: .* give it a `name` of its own"):
        create_training_set(trips, [lookups[0]] * 2, "late", timestamp="now", lake=lake, views=views)
    with pytest.raises(ValueError, match=r"features \['temp'\] of 'weather' more than once"):
        create_training_set(trips, [Lookup(view="weather", features=("temp", "temp"))], "late", lake=lake, views=views)


def test_a_spine_may_be_a_pandas_frame(lake, views):
    lookups = [Lookup(view="weather", keys=AIRPORT)]
    asked = {"timestamp": "now", "lake": lake, "views": views}
    polars, pandas = (
        create_training_set(rows, lookups, "late", **asked) for rows in (flights(), flights().to_pandas())
    )
    assert pandas.frame["weather__temp"].equals(polars.frame["weather__temp"])


def test_instants_without_a_time_zone_are_refused(lake, views):
    naive = flights().with_columns(pl.col("now", "known_at").dt.replace_time_zone(None))
    asked = {"timestamp": "now", "label_available_at": "known_at", "lake": lake, "views": views}
    with pytest.raises(ValueError, match=r"'now' of the spine must be a timestamp with time zone, found .*give it one"):
        create_training_set(naive, [], "late", **asked)
    with pytest.raises(ValueError, match=r"as_of: wanted an instant with time zone, found 2013"):
        create_training_set(flights(), [], "late", as_of=NOON.replace(tzinfo=None), **asked)


def test_what_is_not_there_is_named(lake, views):
    with pytest.raises(ValueError, match=r"no feature view \['wether'\]; there are \['weather'\]"):
        create_training_set(flights(), ["wether"], "late", timestamp="now", lake=lake, views=views)
    with pytest.raises(ValueError, match=r"the spine has no column \['event_time'\]"):
        create_training_set(flights(), ["weather"], "late", lake=lake, views=views)
    asked = {"timestamp": "now", "lake": lake, "views": views}
    with pytest.raises(ValueError, match=r"lookups: wanted a list of them, found one: \['weather'\]"):
        create_training_set(flights(), "weather", "late", **asked)
    with pytest.raises(TableNotFound, match=r"no table 'features/wether'.* Did you mean 'features/weather'"):
        create_training_set(flights(), ["weather"], "late", versions={"features/wether": 0}, **asked)
    with pytest.raises(ValueError, match="there is no engine 'spark'; there are polars, duckdb"):
        create_training_set(flights(), [Lookup(view="weather", keys=AIRPORT)], "late", engine="spark", **asked)  # type: ignore[arg-type]
