"""Catalogues for the tests of search and pages."""

from collections.abc import Sequence
from datetime import UTC, datetime

from ml_platform.catalogue.document import Catalogue, Check, Column, Entry

FLIGHTS = Entry(
    name="raw.flights",
    kind="table",
    description="Every scheduled departure.",
    owner="team:flights",
    columns=(
        Column(name="carrier", type="text", description="Code of the airline.", terms=("airline",)),
        Column(name="arr_delay", type="integer", unit="minutes", description="Arrival after schedule.", tags=("pii",)),
    ),
    rows=166_158,
    version=2,
    table="raw/flights",
    upstream=("source:flights",),
    checks=(Check(name="contract", verdict="failed", at="2024-05-01T00:00:00+00:00", says="3 rows broke it"),),
    how={"SQL": "ml-platform sql 'SELECT * FROM raw.flights LIMIT 5'"},
)
RELIABILITY = Entry(
    name="features.carrier_reliability",
    kind="view",
    description="How late a carrier's flights were.",
    owner="data@example.com",
    tags={"domain": "traffic"},
    columns=(Column(name="arr_delay_30d", type="number", description="Mean arrival delay."),),
    upstream=("raw.flights",),
)
OTHERS = (
    Entry(name="source:flights", kind="source", owner="team:flights", facts={"is read from": "flights.csv"}),
    Entry(name="training_set:flight_delay", kind="training set", upstream=("features.carrier_reliability",)),
    Entry(name="model:flight_delay", kind="model", model="flight_delay", upstream=("training_set:flight_delay",)),
    Entry(name="endpoint:flight_delay", kind="endpoint", model="flight_delay", upstream=("model:flight_delay",)),
    Entry(name="raw.weather", kind="table", description="Hourly weather at the airports."),
    Entry(
        name="term:airline",
        kind="term",
        description="Who flies.",
        facts={"linked with": "raw.flights.carrier, raw.gone"},
    ),
)


def catalogue(entries: Sequence[Entry] = (FLIGHTS, RELIABILITY, *OTHERS), *problems: str) -> Catalogue:
    return Catalogue(made_at=datetime(2024, 5, 2, tzinfo=UTC), entries=tuple(entries), problems=problems)
