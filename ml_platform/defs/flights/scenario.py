"""What `make demo` plays: half a year of flights, the models on them, and the first flight of the day after."""

from datetime import date, timedelta
from typing import Any

from ml_platform.lake import DAY, apply_contract

from .contracts import FlightsFile
from .sources import airport_zones, dated_rows, flights_table, source_folder

MODELS = ("flight_delay",)
TRAINED_AS_OF = "2013-06-01T00:00:00+00:00"  # so that there is something to be learned since
FIRST_DAY, LAST_DAY = "2013-01-01", "2013-06-30"
SCORED_DAYS = ("2013-06-24", "2013-06-30")

_ASKED = ("flight_id", "carrier", "origin", "dest", "tailnum", "scheduled_departure", "scheduled_arrival", "distance")


def request() -> tuple[dict[str, Any], str]:
    """Give the request for the first flight after the days that were loaded, and what became of it."""
    folder, day = source_folder(), date.fromisoformat(LAST_DAY) + timedelta(days=1)
    rows = dated_rows(folder, "flights", day, day + timedelta(days=1)).drop(DAY)
    typed = apply_contract(rows, FlightsFile, where="flights.csv").accepted
    flight = flights_table(typed, airport_zones(folder)).sort("scheduled_departure", "flight_id").row(0, named=True)
    delay = flight["arr_delay"]
    truth = (
        "it never arrived as scheduled"
        if delay is None
        else f"it landed {abs(delay)} minutes {'late' if delay > 0 else 'early'}"
    )
    body = {name: flight[name] for name in _ASKED}
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in body.items()}, truth
