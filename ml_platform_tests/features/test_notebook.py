"""Training sets by hand, from frames and from SQL."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from ml_platform.features.notebook import create_training_set
from ml_platform.features.sampling import kept
from ml_platform.features.views import load_views
from ml_platform.spec import Lookup

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
SELECT origin, at AS event_time, written, temp, wind FROM raw.weather
"""


@pytest.fixture
def views(lake, tmp_path):
    (tmp_path / "weather.sql").write_text(VIEW)
    rows = [
        ("EWR", NOON - HOUR, NOON - HOUR, 30.0, 1.0),
        ("EWR", NOON, NOON + 24 * HOUR, 99.0, 2.0),  # backfilled a day later
        ("JFK", NOON - 9 * HOUR, NOON - 9 * HOUR, 10.0, 3.0),  # too old
    ]
    schema = {"origin": pl.String, "at": TIME, "written": TIME, "temp": pl.Float64, "wind": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
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


def test_only_labels_known_by_as_of_are_used(lake, views):
    asked = {"timestamp": "now", "lake": lake, "views": views, "as_of": NOON + 6 * HOUR}
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
        kept(pl.col("id"), share, "late")


def test_what_is_not_there_is_named(lake, views):
    with pytest.raises(ValueError, match=r"no feature view \['wether'\]; there are \['weather'\]"):
        create_training_set(flights(), ["wether"], "late", timestamp="now", lake=lake, views=views)
    with pytest.raises(ValueError, match=r"the spine has no column \['event_time'\]"):
        create_training_set(flights(), ["weather"], "late", lake=lake, views=views)
