"""Views with recorded columns in an online store, and a service of two of them, as publication leaves them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from ml_platform.features.expressions.compile import compile_tree
from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.store import ViewSchema
from ml_platform.registry.feature_services import FeatureService, FeatureServiceStore, ServedView
from ml_platform.registry.manifest import Derived, Input
from ml_platform.registry.releases import ReleaseStore
from ml_platform.settings import Settings

HOUR = timedelta(hours=1)
WEATHER, ROTATION = "weather_here", "rotation_of"
SERVICE = "board"
HASHES = {WEATHER: "1" * 64, ROTATION: "2" * 64}
SCHEMAS = {
    WEATHER: ViewSchema(
        entity=(Input(name="origin", type="string"),),
        event_time="event_time",
        columns=(Input(name="temp", type="number"), Input(name="visib", type="number", unit="mile")),
        ttl_seconds=6 * 3600.0,
        description="Weather at the origin.",
    ),
    ROTATION: ViewSchema(
        entity=(Input(name="tailnum", type="string"), Input(name="day", type="integer")),
        event_time="event_time",
        columns=(Input(name="legs", type="integer"), Input(name="temp", type="number")),
        ttl_seconds=None,
        description="What an aircraft did on a day.",
    ),
}
_DTYPES = {"string": pl.String, "integer": pl.Int64, "number": pl.Float64}


def write_view(
    settings: Settings,
    view: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    view_hash: str | None = None,
    schema: ViewSchema | None = None,
) -> None:
    """Write rows of a view, without and with values, with the columns of its schema."""
    schema = schema or SCHEMAS[view]
    fields = [*schema.entity, *schema.columns]
    dtypes: dict[str, Any] = {field.name: _DTYPES[field.type] for field in fields}
    frame = pl.DataFrame(list(rows), schema=dtypes | {"event_time": pl.Datetime("us", "UTC")})
    entity = tuple(field.name for field in schema.entity)
    with open_online_store(settings.online_uri) as store:
        store.write(view, entity, frame, view_hash=view_hash or HASHES[view], schema=schema)


def fill(settings: Settings, now: datetime | None = None) -> datetime:
    """Rows that are present, with a null, and expired; give the instant of the present ones."""
    at = (now or datetime.now(UTC)) - timedelta(minutes=5)
    write_view(
        settings,
        WEATHER,
        [
            {"origin": "EWR", "temp": 39.5, "visib": None, "event_time": at},
            {"origin": "JFK", "temp": 41.0, "visib": 10.0, "event_time": at - 7 * HOUR},
        ],
    )
    write_view(settings, ROTATION, [{"tailnum": "N1", "day": 5, "legs": 2, "temp": 1.5, "event_time": at - 900 * HOUR}])
    return at


def board(**changes: Any) -> FeatureService:
    """The service: both views, one under other names and with a key that is computed from the request."""
    declared: dict[str, Any] = {
        "name": SERVICE,
        "description": "For the departure board.",
        "owner": "team:web",
        "views": (
            ServedView(
                name=WEATHER, view=WEATHER, view_hash=HASHES[WEATHER], keys={"origin": "origin"},
                features=("temp", "visib"), ttl_seconds=6 * 3600.0,
            ),
            ServedView(
                name="rotation", view=ROTATION, view_hash=HASHES[ROTATION], keys={"tailnum": "aircraft", "day": "day"},
                features=("legs",),
            ),
        ),
        "inputs": (
            Input(name="aircraft", type="string", required=False),
            Input(name="departure", type="timestamp", example="2013-07-05T12:00:00Z"),
            Input(name="distance", type="number", minimum=0.0, default=100.0, required=False),
        ),
        "derived": (
            Derived(name="day", type="integer", tree=compile_tree(pl.col("departure").dt.day().cast(pl.Int64))),
            Derived(name="km", type="number", tree=compile_tree(pl.col("distance") * 1.5)),
        ),
    }  # fmt: skip
    return FeatureService(**{**declared, **changes})


def publish_service(settings: Settings, service: FeatureService | None = None) -> FeatureService:
    """Publish a service, as its asset does."""
    store = FeatureServiceStore(ReleaseStore(settings.releases_dir))
    return store.publish(service or board(), by="pytest")
