"""The flights' feature views: recomputed naively from the raw flights, and blind to the future."""

from bisect import bisect_right
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from ml_platform import defs
from ml_platform.features.training_sets.build import build_training_set, feature_rows
from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.features.training_sets.feature_definitions import FeatureDefinitions
from ml_platform.features.training_sets.leakage import find_leakage
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.load import load_views
from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.spec.model import ModelSpec

DEFS = Path(defs.__path__[0])
QUARTER, HOUR = timedelta(minutes=15), timedelta(hours=1)
MODELS = ("flight_delay", "arrival_minutes")


def load_spec(model: str) -> ModelSpec:
    return ModelSpec.model_validate(yaml.safe_load((DEFS / model / "defs.yaml").read_text())["attributes"])


def copy_of(source: Lake, folder: Path, first: date, last: date) -> Lake:
    """A lake of its own with the raw rows of some days."""
    lake = Lake(str(folder / "lake"))
    for table, day in (("raw/flights", "flight_date"), ("raw/weather", "date")):
        lake.replace(table, source.read(table).filter(pl.col(day).is_between(first, last)).collect())
    return lake


def known_until(source: Lake, folder: Path, now: datetime, first: date, last: date) -> Lake:
    """The lake as it was at an instant: flights are there by their schedule, what happened to them later is not."""
    lake = copy_of(source, folder, first, last)
    future = pl.col("actual_departure").fill_null(now + HOUR) > now
    unlanded = pl.col("actual_arrival").fill_null(now + HOUR) > now
    flights = lake.read("raw/flights").with_columns(
        pl.when(~future).then(pl.col(name)).alias(name) for name in ("actual_departure", "dep_delay")
    )
    flights = flights.with_columns(
        pl.when(~unlanded).then(pl.col(name)).alias(name) for name in ("actual_arrival", "arr_delay", "air_time")
    )
    lake.replace("raw/flights", flights.collect())
    lake.replace("raw/weather", lake.read("raw/weather").filter(pl.col("observed_at") + HOUR <= now).collect())
    return lake


@pytest.fixture(scope="module")
def views() -> dict[str, FeatureView]:
    return load_views(DEFS / "features")


@pytest.fixture(scope="module")
def weeks(flights_lake: Lake, views: dict[str, FeatureView], tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Three weeks around the change to daylight saving time, with every view computed."""
    folder = tmp_path_factory.mktemp("weeks")
    lake = copy_of(flights_lake, folder, date(2013, 2, 25), date(2013, 3, 17))
    for view in views.values():
        compute_view(lake, view)
    return lake


@pytest.fixture(scope="module")
def sample(weeks: Lake, views: dict[str, FeatureView]) -> list[dict[str, Any]]:
    """Some hundred real rows with their features, spread over two weeks."""
    start = datetime(2013, 3, 3, tzinfo=UTC)
    spec = load_spec("flight_delay")
    folder = DEFS / "flight_delay"
    rows = feature_rows(
        weeks, spec, folder, views, FeatureDefinitions.of_spec(spec, folder), start, start + timedelta(days=14)
    )
    return rows.gather_every(31).to_dicts()


@pytest.fixture(scope="module")
def flights(weeks: Lake) -> list[dict[str, Any]]:
    return weeks.read("raw/flights").collect().to_dicts()


def mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def share_late(delays: list[float]) -> float | None:
    return mean([float(delay >= 15) for delay in delays])


def test_origin_traffic_by_brute_force(sample, flights):
    assert len(sample) > 300
    scheduled = defaultdict(list)
    for flight in flights:
        scheduled[flight["origin"], flight["scheduled_departure"].date()].append(flight)
    for row in sample:
        # What is known at a quarter of an hour is what the row may know until the next one.
        now = datetime.fromtimestamp(row["prediction_time"].timestamp() // 900 * 900, UTC)
        # No flight of 2013 left more than 22 hours late: two days of schedule hold all that can matter.
        near = (now - timedelta(days=2), now + timedelta(days=1))
        days = {near[0].date() + timedelta(days=day) for day in range(4)}
        mine = [
            f for day in days for f in scheduled[row["origin"], day] if near[0] < f["scheduled_departure"] < near[1]
        ]  # fmt: skip

        def left(span: timedelta, mine=mine, now=now) -> list[float]:
            return [
                f["dep_delay"] for f in mine
                if f["actual_departure"] is not None and now - span < f["actual_departure"] <= now
            ]  # fmt: skip

        def landed(span: timedelta, mine=mine, now=now) -> list[float]:
            return [
                f["arr_delay"] for f in mine
                if f["arr_delay"] is not None and now - span < f["actual_arrival"] <= now
            ]  # fmt: skip

        past_schedule = [
            (now - f["scheduled_departure"]).total_seconds() / 60 for f in mine
            if f["scheduled_departure"] + QUARTER <= now < f["scheduled_departure"] + 6 * HOUR
            and (f["actual_departure"] is None or f["actual_departure"] > now)
        ]  # fmt: skip
        wanted = {
            "departures_1h": len(left(HOUR)),
            "dep_delay_1h": mean(left(HOUR)),
            "dep_late_share_1h": share_late(left(HOUR)),
            "dep_delay_3h": mean(left(3 * HOUR)),
            "dep_late_share_3h": share_late(left(3 * HOUR)),
            "arr_delay_3h": mean(landed(3 * HOUR)),
            "arr_late_share_24h": share_late(landed(24 * HOUR)),
            "overdue": len(past_schedule),
            "overdue_minutes": mean(past_schedule),
        }
        found = {name: row[f"origin_traffic__{name}"] for name in wanted}
        assert found == pytest.approx(wanted), (row["flight_id"], now)


def test_aircraft_rotation_by_brute_force(sample, flights):
    events: dict[str, list[tuple[datetime, bool, dict[str, Any]]]] = {}
    for flight in flights:
        if flight["tailnum"] is None or flight["actual_departure"] is None:
            continue
        mine = events.setdefault(flight["tailnum"], [])
        mine.append((flight["actual_departure"], True, flight))
        if flight["actual_arrival"] is not None:
            mine.append((flight["actual_arrival"], False, flight))
    seen = 0
    for mine in events.values():
        mine.sort(key=lambda event: (event[0], not event[1]))
    for row in sample:
        now = row["prediction_time"]
        mine = events.get(row["tailnum"], [])
        position = bisect_right([event[0] for event in mine], now)
        found = {name: row[f"aircraft_rotation__{name}"] for name in ("airborne", "dep_delay", "arr_delay", "distance")}
        if position == 0 or mine[position - 1][0] < now - timedelta(days=2):
            assert set(found.values()) == {None}, row["flight_id"]
            continue
        _, airborne, leg = mine[position - 1]
        seen += 1
        wanted = {
            "airborne": airborne,
            "dep_delay": leg["dep_delay"],
            "arr_delay": None if airborne else leg["arr_delay"],
        }
        assert found == wanted | {"distance": leg["distance"]}, row["flight_id"]
    assert seen > 100


def test_carrier_and_route_and_destination_by_brute_force(sample, flights):
    for row in sample[::3]:
        now = row["prediction_time"]
        hour = datetime.fromtimestamp(now.timestamp() // 3600 * 3600, UTC)

        def landed(column: str, span: timedelta, until: datetime, row=row) -> list[float]:
            return [
                f["arr_delay"] for f in flights
                if f[column] == row[column] and f["actual_arrival"] is not None and f["arr_delay"] is not None
                and until - span < f["actual_arrival"] <= until
            ]  # fmt: skip

        on_route = [
            f for f in flights
            if (f["origin"], f["dest"]) == (row["origin"], row["dest"]) and f["arr_delay"] is not None
            and f["actual_arrival"] is not None and f["actual_arrival"] <= now
        ]  # fmt: skip
        wanted = {
            "carrier_reliability__arr_delay_6h": mean(landed("carrier", 6 * HOUR, hour)),
            "carrier_reliability__arr_late_share_24h": share_late(landed("carrier", 24 * HOUR, hour)),
            "destination_traffic__arr_delay_3h": mean(landed("dest", 3 * HOUR, hour)),
            "destination_traffic__arr_delay_24h": mean(landed("dest", 24 * HOUR, hour)),
        }
        if on_route and max(f["actual_arrival"] for f in on_route) >= now - timedelta(days=7):
            # Less than 30 days of flights are there, so that all of them count.
            wanted["route_reliability__arr_late_share_30d"] = share_late([f["arr_delay"] for f in on_route])
        assert {name: row[name] for name in wanted} == pytest.approx(wanted), row["flight_id"]


def test_weather_counts_from_the_hour_after_its_stamp(sample, weeks):
    reports = {
        (report["origin"], report["observed_at"]): report for report in weeks.read("raw/weather").collect().to_dicts()
    }
    for row in sample:
        now = row["prediction_time"]
        hours = [datetime.fromtimestamp(now.timestamp() // 3600 * 3600, UTC) - n * HOUR for n in range(1, 6)]
        newest = next((reports[row["origin"], h] for h in hours if (row["origin"], h) in reports), None)
        if newest is not None and now - newest["observed_at"] - HOUR <= 4 * HOUR:
            assert row["origin_weather__temp"] == newest["temp"]
            assert row["origin_weather__visib"] == newest["visib"]


def test_what_happens_later_changes_no_past_training_row(flights_lake, views, tmp_path):
    now = datetime(2013, 1, 12, 17, 20, tzinfo=UTC)
    spec, folder = load_spec("flight_delay"), DEFS / "flight_delay"
    first = date(2013, 1, 1)
    then = known_until(flights_lake, tmp_path / "then", now, first, date(2013, 1, 13))
    later = copy_of(flights_lake, tmp_path / "later", first, date(2013, 1, 20))
    frames = []
    for lake in (then, later):
        for view in views.values():
            compute_view(lake, view)
        ref = build_training_set(lake, spec, folder, views, as_of=now)
        frames.append(lake.read(ref.table).collect())
    assert frames[0].height > 9_000
    assert frames[1].equals(frames[0])


def test_every_label_became_known_after_its_prediction(weeks, views):
    spec = load_spec("flight_delay")
    ref = build_training_set(weeks, spec, DEFS / "flight_delay", views)
    gap = weeks.read(ref.table).select(pl.col(spec.label_available_at) - pl.col(spec.timestamp)).collect().to_series()
    assert gap.min() > timedelta(0)


def test_both_models_learn_from_the_same_features(weeks, views):
    refs = [build_training_set(weeks, load_spec(model), DEFS / model, views) for model in MODELS]
    assert refs[0].features == refs[1].features
    assert refs[0].rows == refs[1].rows
    assert 25 <= len(refs[0].features) <= 45
    assert all(info.description for info in refs[0].features)
    late, minutes = (weeks.read(ref.table).collect() for ref in refs)
    assert late["late"].equals((minutes["arrival_delay"] >= 15).alias("late"))


@pytest.mark.parametrize("model", MODELS)
def test_no_feature_of_the_flights_is_taken_for_a_leak_and_the_arrival_would_be(model, weeks, views):
    spec = load_spec(model)
    ref = build_training_set(weeks, spec, DEFS / model, views)
    frame = weeks.read(ref.table).collect()
    report = find_leakage(frame, ref.features, target=spec.target, task=spec.task, limits=spec.leakage)
    assert report.leaks == ()
    minutes = weeks.read("raw/flights").select("flight_id", known_after=pl.col("arr_delay") * 60.0).collect()
    leaky = frame.join(minutes, on="flight_id")
    info = FeatureInfo(name="known_after", kind="numeric", source="input")
    report = find_leakage(leaky, [*ref.features, info], target=spec.target, task=spec.task, limits=spec.leakage)
    assert [leak.features for leak in report.leaks] == [("known_after",)]


@pytest.mark.parametrize("model", MODELS)
def test_the_models_yaml_is_valid_and_its_examples_fit(model):
    spec = load_spec(model)
    assert spec.name == model
    python = {"string": str, "integer": int, "number": int | float, "boolean": bool, "timestamp": str}
    for field in spec.inputs:
        assert field.description, field.name
        assert isinstance(field.example, python[field.type]), field.name


def test_every_view_is_described(views):
    assert {"origin_weather", "origin_traffic", "carrier_reliability", "aircraft_rotation"} <= set(views)
    for view in views.values():
        assert view.ttl is not None, view.name
        assert view.description.endswith("."), view.name
        assert all(column.description.endswith(".") for column in view.columns.values()), view.name


def test_a_view_that_is_computed_by_days_equals_one_computed_as_a_whole(
    flights_lake: Lake, views: dict[str, FeatureView], tmp_path: Path
) -> None:
    by_days = [view for view in views.values() if view.incremental]
    assert by_days
    lake = copy_of(flights_lake, tmp_path, date(2013, 2, 25), date(2013, 3, 11))
    for view in by_days:
        assert compute_view(lake, view).spans is None
    flights = flights_lake.read("raw/flights").collect()
    lake.append("raw/flights", flights.filter(pl.col("flight_date") == date(2013, 3, 12)))
    corrected = lake.read("raw/flights").with_columns(
        actual_arrival=pl.when(pl.col("flight_id").hash() % 50 == 0)
        .then(pl.col("actual_arrival") + timedelta(hours=30))
        .otherwise("actual_arrival")
    )
    third = corrected.filter(pl.col("flight_date") == date(2013, 3, 3)).collect()
    for change in (None, third):
        if change is not None:
            lake.replace("raw/flights", change, where="flight_date = '2013-03-03'")
        for view in by_days:
            spans = compute_view(lake, view).spans
            assert spans
            assert spans[0][0] == (date(2013, 3, 12) if change is None else date(2013, 3, 3))
            whole = view.model_copy(update={"name": "as_a_whole", "incremental": None})
            compute_view(lake, whole)
            names = [*view.keys, *view.columns]
            found, wanted = (lake.read(one.table).select(names).sort(view.keys).collect() for one in (view, whole))
            assert_frame_equal(found, wanted, check_exact=True)
