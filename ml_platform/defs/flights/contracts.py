"""What the flights' tables promise, and what their CSV files must look like before anything is computed from them."""

from datetime import timedelta

import dataframely as dy
import polars as pl

from ml_platform.lake import one_of

_ORIGIN = one_of("EWR", "JFK", "LGA")
_CODE = r"^[A-Z0-9]{2}$"
_AIRPORT = r"^[A-Z0-9]{3}$"
_MINUTES = {"unit": "minutes"}
_UTC = {"unit": "UTC"}


def _written_date(year: pl.Expr, month: pl.Expr, day: pl.Expr) -> pl.Expr:
    """Date of three numbers; null if there is no such day, where `pl.date` would raise."""
    return pl.format("{}-{}-{}", year, month, day).str.to_date("%Y-%m-%d", strict=False)


class FlightsFile(dy.Schema):
    """Columns of `flights.csv`; clock times are local, written hmm (`517` is 05:17)."""

    year = dy.Int64(min=1987, max=2100)
    month = dy.Int64(min=1, max=12)
    day = dy.Int64(min=1, max=31)
    dep_time = dy.Int64(nullable=True, min=0, max=2400)
    sched_dep_time = dy.Int64(min=0, max=2400)
    dep_delay = dy.Int64(nullable=True)
    arr_time = dy.Int64(nullable=True, min=0, max=2400)
    sched_arr_time = dy.Int64(min=0, max=2400)
    arr_delay = dy.Int64(nullable=True)
    carrier = dy.String()
    flight = dy.Int64()
    tailnum = dy.String(nullable=True)
    origin = dy.String()
    dest = dy.String()
    air_time = dy.Int64(nullable=True)
    distance = dy.Int64()
    hour = dy.Int64(min=0, max=24)
    minute = dy.Int64(min=0, max=59)
    time_hour = dy.Datetime(time_zone="UTC")

    @dy.rule()
    def clock_times_have_sixty_minutes(cls) -> pl.Expr:
        """A clock time ends in 00 to 59."""
        clocks = [cls.dep_time.col, cls.sched_dep_time.col, cls.arr_time.col, cls.sched_arr_time.col]
        return pl.all_horizontal([(clock % 100 < 60).fill_null(True) for clock in clocks])

    @dy.rule()
    def date_exists(cls) -> pl.Expr:
        """Rules out 30 February."""
        return _written_date(cls.year.col, cls.month.col, cls.day.col).is_not_null()


class Flights(dy.Schema):
    """`raw/flights`: one row per scheduled departure from New York."""

    flight_id = dy.String(primary_key=True, description="Local date, carrier and number, origin, local scheduled time.")
    flight_date = dy.Date(description="Day of the scheduled departure in New York; the partition.")
    carrier = dy.String(regex=_CODE, description="IATA code of the airline.")
    flight = dy.Int64(min=1, max=9999, description="Flight number.")
    tailnum = dy.String(nullable=True, description="Registration of the plane; null where none was assigned.")
    origin = dy.String(check=_ORIGIN, description="Airport of departure.")
    dest = dy.String(regex=_AIRPORT, description="Airport of destination.")
    scheduled_departure = dy.Datetime(
        time_zone="UTC",
        description="Scheduled departure.",
        metadata={**_UTC, "when_missing": "no such local time in New York on that day"},
    )
    scheduled_arrival = dy.Datetime(
        time_zone="UTC",
        description="Scheduled arrival, by the destination's time zone.",
        metadata={**_UTC, "when_missing": "no such local time, or no time zone known for the destination"},
    )
    actual_departure = dy.Datetime(
        time_zone="UTC", nullable=True, description="Departure; null if cancelled.", metadata=_UTC
    )
    actual_arrival = dy.Datetime(
        time_zone="UTC", nullable=True, description="Arrival; null if cancelled or diverted.", metadata=_UTC
    )
    dep_delay = dy.Int64(
        nullable=True, min=-120, max=2880, description="Departure after schedule; negative is early.", metadata=_MINUTES
    )
    arr_delay = dy.Int64(
        nullable=True, min=-180, max=2880, description="Arrival after schedule; negative is early.", metadata=_MINUTES
    )
    air_time = dy.Int64(nullable=True, min=1, max=1200, description="Time in the air.", metadata=_MINUTES)
    distance = dy.Int64(min=1, max=12000, description="Between the airports.", metadata={"unit": "miles"})

    @dy.rule()
    def lands_somewhere_else(cls) -> pl.Expr:
        """Origin and destination differ."""
        return cls.origin.col != cls.dest.col

    @dy.rule()
    def scheduled_to_take_less_than_a_day(cls) -> pl.Expr:
        """The arrival is after the departure, by less than 18 hours."""
        span = cls.scheduled_arrival.col - cls.scheduled_departure.col
        return (span > timedelta(0)) & (span < timedelta(hours=18))

    @dy.rule()
    def arrives_after_departing(cls) -> pl.Expr:
        """Nothing lands before it took off."""
        return cls.actual_arrival.col > cls.actual_departure.col

    @dy.rule()
    def arrived_only_if_departed(cls) -> pl.Expr:
        """An arrival without a departure is a contradiction."""
        return cls.arr_delay.col.is_null() | cls.dep_delay.col.is_not_null()


class WeatherFile(dy.Schema):
    """Columns of `weather.csv`; date and hour are local, `time_hour` is UTC."""

    origin = dy.String()
    year = dy.Int64(min=1987, max=2100)
    month = dy.Int64(min=1, max=12)
    day = dy.Int64(min=1, max=31)
    hour = dy.Int64(min=0, max=23)
    temp = dy.Float64(nullable=True)
    dewp = dy.Float64(nullable=True)
    humid = dy.Float64(nullable=True)
    wind_dir = dy.Float64(nullable=True)
    wind_speed = dy.Float64(nullable=True)
    wind_gust = dy.Float64(nullable=True)
    precip = dy.Float64(nullable=True)
    pressure = dy.Float64(nullable=True)
    visib = dy.Float64(nullable=True)
    time_hour = dy.Datetime(time_zone="UTC")

    @dy.rule()
    def date_exists(cls) -> pl.Expr:
        """Rules out 30 February."""
        return _written_date(cls.year.col, cls.month.col, cls.day.col).is_not_null()

    @dy.rule()
    def clock_agrees_with_time_hour(cls) -> pl.Expr:
        """Local date and hour are `time_hour` seen in New York."""
        local = cls.time_hour.col.dt.convert_time_zone("America/New_York")
        return (local.dt.date() == _written_date(cls.year.col, cls.month.col, cls.day.col)) & (
            local.dt.hour() == cls.hour.col
        )


class Weather(dy.Schema):
    """`raw/weather`: hourly observations at the three airports."""

    origin = dy.String(primary_key=True, check=_ORIGIN, description="Airport of the station.")
    observed_at = dy.Datetime(
        time_zone="UTC", primary_key=True, resolution="1h", description="Hour of the observation.", metadata=_UTC
    )
    date = dy.Date(description="Day of the observation in New York; the partition.")
    temp = dy.Float64(nullable=True, min=-60, max=130, description="Temperature.", metadata={"unit": "°F"})
    dewp = dy.Float64(nullable=True, min=-80, max=100, description="Dew point.", metadata={"unit": "°F"})
    humid = dy.Float64(nullable=True, min=0, max=100, description="Relative humidity.", metadata={"unit": "%"})
    wind_dir = dy.Float64(nullable=True, min=0, max=360, description="Wind direction.", metadata={"unit": "degrees"})
    wind_speed = dy.Float64(nullable=True, min=0, max=200, description="Wind speed.", metadata={"unit": "mph"})
    wind_gust = dy.Float64(nullable=True, min=0, max=250, description="Wind gusts.", metadata={"unit": "mph"})
    precip = dy.Float64(nullable=True, min=0, max=20, description="Precipitation.", metadata={"unit": "inches"})
    pressure = dy.Float64(
        nullable=True, min=850, max=1100, description="Sea level pressure.", metadata={"unit": "mbar"}
    )
    visib = dy.Float64(nullable=True, min=0, max=100, description="Visibility.", metadata={"unit": "miles"})


class Planes(dy.Schema):
    """`raw/planes`: what is known of the planes by their registration."""

    tailnum = dy.String(primary_key=True, description="Registration.")
    year = dy.Int64(nullable=True, min=1940, max=2013, description="Year of manufacture.")
    type = dy.String(description="Kind of aircraft.")
    manufacturer = dy.String(description="Manufacturer.")
    model = dy.String(description="Model.")
    engines = dy.Int64(min=1, max=8, description="Number of engines.")
    seats = dy.Int64(min=1, max=900, description="Number of seats.")
    speed = dy.Int64(nullable=True, min=1, max=1500, description="Average cruising speed.", metadata={"unit": "mph"})
    engine = dy.String(description="Kind of engine.")


class Airports(dy.Schema):
    """`raw/airports`: where the airports are."""

    faa = dy.String(primary_key=True, regex=_AIRPORT, description="FAA code.")
    name = dy.String(description="Name.")
    lat = dy.Float64(min=-90, max=90, description="Latitude.", metadata={"unit": "degrees"})
    lon = dy.Float64(min=-180, max=180, description="Longitude.", metadata={"unit": "degrees"})
    alt = dy.Float64(min=-1500, max=30000, description="Altitude.", metadata={"unit": "feet"})
    tz = dy.Int64(min=-12, max=14, description="Offset of standard time from UTC.", metadata={"unit": "hours"})
    dst = dy.String(check=one_of("A", "U", "N"), description="Summer time: A by US rules, N none, U unknown.")
    tzone = dy.String(nullable=True, description="IANA time zone; null where the source has none.")


class Airlines(dy.Schema):
    """`raw/airlines`: the airlines' names."""

    carrier = dy.String(primary_key=True, regex=_CODE, description="IATA code.")
    name = dy.String(description="Name.")
