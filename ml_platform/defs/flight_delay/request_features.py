"""Features derived from the request, by Polars offline and by the same expressions compiled for serving online."""

from datetime import timedelta

import polars as pl

from ml_platform.features import RequestFeature

departure = pl.col("scheduled_departure")
new_york = departure.dt.convert_time_zone("America/New_York")
minute_of_day = new_york.dt.hour().cast(pl.Int64) * 60 + new_york.dt.minute().cast(pl.Int64)

REQUEST_FEATURES = {
    "prediction_time": RequestFeature(
        departure - timedelta(hours=1), "Instant of the prediction: one hour before departure."
    ),
    "departure_minute": RequestFeature(
        minute_of_day, "Scheduled departure, minutes after midnight in New York.", "minute"
    ),
    "departure_weekday": RequestFeature(new_york.dt.weekday().cast(pl.Int64), "Weekday in New York, Monday = 1."),
    "departure_hour_utc": RequestFeature(
        departure.dt.hour().cast(pl.Float64) + departure.dt.minute().cast(pl.Float64) / 60,
        "Scheduled departure, hour of the UTC day, to set against when the aircraft can be back.",
        "hour",
    ),
    "scheduled_minutes": RequestFeature(
        (pl.col("scheduled_arrival") - departure).dt.total_minutes(), "Scheduled duration, gate to gate.", "minute"
    ),
}
