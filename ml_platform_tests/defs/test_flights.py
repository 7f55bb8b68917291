"""The flights' sources: real files, real clock changes, and files as bad as they come."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ml_platform.defs.flights.sources import FOLDER_VARIABLE, airport_zones, dated_rows, read_csv, source_folder
from ml_platform.defs.flights.tables import RAW_TABLES
from ml_platform.lake.errors import EmptyInput, SchemaMismatch
from ml_platform.lake.ingestion.raw_table import RawTable
from ml_platform.lake.storage.tables import Lake

TABLES = {table.name: table for table in RAW_TABLES}
FLIGHTS, WEATHER = TABLES["raw/flights"], TABLES["raw/weather"]
HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,origin,"
    "dest,air_time,distance,hour,minute,time_hour"
)


def _line(
    *,
    day: str = "2013,1,1",
    departs: str = "515",
    arrives: str = "819",
    dest: str = "IAH",
    number: int = 1,
    delay: str = "2",
) -> str:
    hour, minute = int(departs) // 100, int(departs) % 100
    clock = f"{hour},{minute},2013-01-01T10:00:00Z"
    return f"{day},517,{departs},{delay},830,{arrives},11,UA,{number},N1,EWR,{dest},227,1400,{clock}"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put CSV files into a folder that the sources read instead of the package."""
    airports = read_csv(source_folder(), "airports")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    airports.write_csv(tmp_path / "airports.csv", null_value="NA")

    def write(name: str, *lines: str) -> None:
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n" if lines else "")

    return write


def _flights(lake: Lake) -> pl.DataFrame:
    return lake.read("raw/flights").sort("flight").collect()


def test_every_real_row_is_accepted_or_quarantined_with_a_reason(flights_lake: Lake) -> None:
    counts = {name: flights_lake.read(name).select(pl.len()).collect().item() for name in flights_lake.tables()}
    assert counts == {
        "raw/flights": 336_776,
        "raw/weather": 26_114,
        "quarantine/raw/weather": 1,
        "raw/planes": 3_322,
        "raw/airports": 1_458,
        "raw/airlines": 16,
    }
    row, reasons = flights_lake.read("quarantine/raw/weather").select("row", "reasons").collect().row(0)
    assert reasons == ["wind_speed: above 200"]
    assert json.loads(row)["wind_speed"] == "1048.36058"  # miles per hour


def test_scheduled_departures_agree_with_time_hour_in_every_row(flights_lake: Lake) -> None:
    rows = dated_rows(source_folder(), "flights")
    key = ["flight_date", "carrier", "flight", "origin"]
    expected = rows.select(
        pl.date(pl.col("year").cast(pl.Int64), pl.col("month").cast(pl.Int64), pl.col("day").cast(pl.Int64)).alias(
            "flight_date"
        ),
        "carrier",
        pl.col("flight").cast(pl.Int64),
        "origin",
        instant=pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC")
        + pl.duration(minutes=pl.col("minute").cast(pl.Int64)),
    )
    joined = flights_lake.read("raw/flights").collect().join(expected, on=key, validate="1:1")
    assert joined.height == 336_776
    assert joined.filter(pl.col("scheduled_departure") != pl.col("instant")).is_empty()


def test_schedules_agree_with_what_the_planes_did(flights_lake: Lake) -> None:
    """An arrival in the wrong zone or day would make the time on the ground negative or hours long."""
    ground = (
        (pl.col("actual_arrival") - pl.col("actual_departure")).dt.total_minutes() - pl.col("air_time")
    ).drop_nulls()
    shortest, longest, n = (
        flights_lake.read("raw/flights")
        .select(ground.min(), ground.max().alias("max"), ground.len().alias("n"))
        .collect()
    ).row(0)
    assert n == 327_346
    assert shortest >= 0
    assert longest < 4 * 60


def test_actual_departures_show_the_clock_time_of_the_file(flights_lake: Lake) -> None:
    rows = dated_rows(source_folder(), "flights").select(
        pl.date(pl.col("year").cast(pl.Int64), pl.col("month").cast(pl.Int64), pl.col("day").cast(pl.Int64)).alias(
            "flight_date"
        ),
        "carrier",
        pl.col("flight").cast(pl.Int64),
        "origin",
        clock=pl.col("dep_time").cast(pl.Int64) % 2400,
    )
    seen = pl.col("actual_departure").dt.convert_time_zone("America/New_York")
    joined = (
        flights_lake.read("raw/flights")
        .filter(pl.col("actual_departure").is_not_null())
        .with_columns(seen=seen.dt.hour().cast(pl.Int64) * 100 + seen.dt.minute())
        .collect()
        .join(rows, on=["flight_date", "carrier", "flight", "origin"])
    )
    assert joined.height == 328_521
    assert joined.filter(pl.col("seen") != pl.col("clock")).is_empty()


def test_weather_has_both_hours_of_the_clock_change(flights_lake: Lake) -> None:
    night = (
        flights_lake.read("raw/weather")
        .filter((pl.col("date") == date(2013, 11, 3)) & (pl.col("origin") == "EWR"))
        .sort("observed_at")
        .collect()
    )
    assert night["observed_at"].to_list()[:2] == [datetime(2013, 11, 3, hour, tzinfo=UTC) for hour in (5, 6)]
    assert night["temp"].to_list()[:2] == [51.98, 50.0]


@pytest.mark.parametrize(
    ("day", "departs", "expected"),
    [
        ("2013,3,9", "2330", datetime(2013, 3, 10, 4, 30, tzinfo=UTC)),
        ("2013,3,10", "159", datetime(2013, 3, 10, 6, 59, tzinfo=UTC)),
        ("2013,3,10", "300", datetime(2013, 3, 10, 7, 0, tzinfo=UTC)),
        ("2013,11,3", "59", datetime(2013, 11, 3, 4, 59, tzinfo=UTC)),
        ("2013,11,3", "130", datetime(2013, 11, 3, 5, 30, tzinfo=UTC)),  # occurs twice: the first
        ("2013,11,3", "200", datetime(2013, 11, 3, 7, 0, tzinfo=UTC)),
    ],
)
def test_departures_around_clock_changes(
    lake: Lake, files: Callable[..., None], day: str, departs: str, expected: datetime
) -> None:
    files("flights", HEADER, _line(day=day, departs=departs, arrives="900"))
    FLIGHTS.load(lake)
    assert _flights(lake)["scheduled_departure"].item() == expected


def test_a_departure_in_the_hour_that_the_clocks_skip_is_quarantined(lake: Lake, files: Callable[..., None]) -> None:
    files("flights", HEADER, _line(day="2013,3,10", departs="230", arrives="900"))
    report = FLIGHTS.load(lake)
    assert report.reasons == {"scheduled_departure: no such local time in New York on that day": 1}


@pytest.mark.parametrize(
    ("schedule", "hours"),
    [
        (("BOS", "800", "910"), 1 + 10 / 60),  # same zone
        (("ORD", "600", "730"), 2.5),  # one hour behind
        (("HNL", "1000", "1530"), 10.5),  # five hours behind
        (("SJU", "2359", "440"), 3 + 41 / 60),  # not in airports.csv, an hour ahead in winter, overnight
        (("LAX", "2200", "115"), 6.25),  # past midnight in both zones
        (("BOS", "2250", "2400"), 1 + 10 / 60),  # midnight written as 24:00
    ],
)
def test_arrivals_follow_the_destination_s_clock(
    lake: Lake, files: Callable[..., None], schedule: tuple[str, str, str], hours: float
) -> None:
    dest, departs, arrives = schedule
    files("flights", HEADER, _line(dest=dest, departs=departs, arrives=arrives))
    FLIGHTS.load(lake)
    row = _flights(lake).row(0, named=True)
    assert row["scheduled_arrival"] - row["scheduled_departure"] == timedelta(minutes=round(hours * 60))
    assert row["actual_arrival"] - row["scheduled_arrival"] == timedelta(minutes=11)


def test_airports_without_a_zone_in_the_file_have_one() -> None:
    zones = airport_zones(source_folder())
    wanted = {"BQN", "SJU", "STT", "PSE", "EEN", "LRO", "YAK"}
    assert {airport: zones[airport] for airport in ("SJU", "EEN", "YAK")} == {
        "SJU": "America/Puerto_Rico",
        "EEN": "America/New_York",
        "YAK": "America/Anchorage",
    }
    assert wanted | set(read_csv(source_folder(), "airports")["faa"]) == zones.keys()


def test_an_unknown_destination_is_quarantined(lake: Lake, files: Callable[..., None]) -> None:
    files("flights", HEADER, _line(dest="XXX"), _line(number=2))
    report = FLIGHTS.load(lake)
    assert report.rows_written == 1
    assert report.reasons == {"scheduled_arrival: no such local time, or no time zone known for the destination": 1}


def test_a_missing_column_is_named_with_what_was_wanted(lake: Lake, files: Callable[..., None]) -> None:
    lines = [HEADER, _line()]
    files("flights", *[",".join(line.split(",")[:-4] + line.split(",")[-3:]) for line in lines])
    with pytest.raises(
        SchemaMismatch, match=r"flights.csv for 'raw/flights': column 'distance': wanted Int64, found no"
    ):
        FLIGHTS.load(lake)
    files("flights", HEADER.replace("month,", "mon,", 1), _line())
    with pytest.raises(SchemaMismatch, match="column 'month': wanted Int64, found no such column"):
        FLIGHTS.load(lake)
    assert lake.tables() == []


def test_an_unexpected_column_is_named(lake: Lake, files: Callable[..., None]) -> None:
    files("flights", f"{HEADER},gate", f"{_line()},A1")
    with pytest.raises(SchemaMismatch, match="column 'gate': not wanted, found String"):
        FLIGHTS.load(lake)


def test_text_in_a_number_quarantines_the_row(lake: Lake, files: Callable[..., None]) -> None:
    files("flights", HEADER, _line(), _line(number=2, delay="late"))
    report = FLIGHTS.load(lake)
    assert (report.rows_written, report.reasons) == (1, {"dep_delay: not an integer": 1})
    assert json.loads(lake.read("quarantine/raw/flights").collect()["row"].item())["dep_delay"] == "late"


def test_of_a_duplicate_key_the_first_row_is_kept(lake: Lake, files: Callable[..., None]) -> None:
    files("flights", HEADER, _line(delay="1"), _line(delay="2"), _line(number=2))
    report = FLIGHTS.load(lake)
    assert report.reasons == {"duplicate of flight_id (the first is kept)": 1}
    assert _flights(lake)["dep_delay"].to_list() == [1, 2]


def test_rows_out_of_order_reach_their_own_day(lake: Lake, files: Callable[..., None]) -> None:
    days = ["2013,5,2", "2013,5,1", "2013,12,31", "2013,5,2"]
    files("flights", HEADER, *[_line(day=day, number=number) for number, day in enumerate(days, start=1)])
    FLIGHTS.load(lake, date(2013, 5, 2), date(2013, 5, 3))
    assert _flights(lake)["flight"].to_list() == [1, 4]
    FLIGHTS.load(lake)
    assert _flights(lake)["flight_date"].to_list() == [
        date(2013, 5, 2),
        date(2013, 5, 1),
        date(2013, 12, 31),
        date(2013, 5, 2),
    ]


@pytest.mark.parametrize(
    ("day", "reason"),
    [
        ("2031,1,1", "flight_date: outside of the ingested days"),
        ("2013,2,30", "breaks the rule 'date exists'"),
        ("2013,13,1", "month: above 12"),
        ("2013,May,1", "month: not an integer"),
    ],
)
def test_a_date_out_of_place_is_filed_under_the_row_above(
    lake: Lake, files: Callable[..., None], day: str, reason: str
) -> None:
    files("flights", HEADER, _line(day="2013,5,1"), _line(day=day, number=2), _line(day="2013,5,3", number=3))
    for first in (date(2013, 5, 1), date(2013, 5, 2), date(2013, 5, 3)):
        FLIGHTS.load(lake, first, first + timedelta(days=1))
    assert _flights(lake)["flight"].to_list() == [1, 3]
    quarantined = lake.read("quarantine/raw/flights").collect()
    assert quarantined["day"].to_list() == [date(2013, 5, 1)]
    assert reason in quarantined["reasons"].item()


@pytest.mark.parametrize(
    ("lines", "message"),
    [((), "flights.csv is empty: a header and rows"), ((HEADER,), "has a header but no rows")],
)
def test_an_empty_file_says_so(lake: Lake, files: Callable[..., None], lines: tuple[str, ...], message: str) -> None:
    files("flights", *lines)
    with pytest.raises(EmptyInput, match=message):
        FLIGHTS.load(lake)


def test_a_line_with_too_many_fields_names_the_file(lake: Lake, files: Callable[..., None]) -> None:
    files("flights", HEADER, _line() + ",1,2")
    with pytest.raises(SchemaMismatch, match=r"flights\.csv"):
        FLIGHTS.load(lake)


def test_a_line_with_too_few_fields_is_quarantined(lake: Lake, files: Callable[..., None]) -> None:
    files("flights", HEADER, _line(), "2013,1,1,517")
    assert FLIGHTS.load(lake).rows_quarantined == 1


def test_weather_whose_clocks_disagree_is_quarantined(lake: Lake, files: Callable[..., None]) -> None:
    header = "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour"
    files("weather", header, "EWR,2013,7,1,5,70,60,70,10,5,NA,0,1012,10,2013-07-01T10:00:00Z")
    assert WEATHER.load(lake).reasons == {"breaks the rule 'clock agrees with time hour'": 1}


def test_a_missing_file_and_folder_say_what_to_do(
    lake: Lake, files: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither flights.csv nor flights.csv.zip"):
        FLIGHTS.load(lake)
    monkeypatch.setenv(FOLDER_VARIABLE, "/nowhere/at/all")
    with pytest.raises(FileNotFoundError, match=FOLDER_VARIABLE):
        FLIGHTS.load(lake)


@pytest.mark.parametrize("table", RAW_TABLES, ids=lambda table: table.name)
def test_every_column_is_described(table: RawTable) -> None:
    assert [name for name, column in table.contract.columns().items() if not column.description] == []


def test_days_of_a_table_without_calendar_are_refused(lake: Lake) -> None:
    with pytest.raises(ValueError, match="no calendar"):
        TABLES["raw/planes"].load(lake, date(2013, 1, 1), date(2013, 1, 2))
