"""What the board computes from a request: where the day of New York stands at the scheduled departure."""

import polars as pl

from ml_platform.features import RequestFeature

new_york = pl.col("scheduled_departure").dt.convert_time_zone("America/New_York")

REQUEST_FEATURES = {
    "departure_minute": RequestFeature(
        new_york.dt.hour().cast(pl.Int64) * 60 + new_york.dt.minute().cast(pl.Int64),
        "Scheduled departure, minutes after midnight in New York.",
        "minute",
    ),
}
