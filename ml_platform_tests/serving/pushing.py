"""A server whose model looks up a view that a lake computes: rows can be pushed to it."""

from datetime import datetime
from typing import Any

import msgspec
import polars as pl

from ml_platform.features.online.open import open_online_store
from ml_platform.features.online.publish import publish_view
from ml_platform.features.views.compute import compute_view
from ml_platform.features.views.view import FeatureColumn, FeatureView
from ml_platform.lake.storage.tables import Lake
from ml_platform.registry.manifest import Manifest
from ml_platform.settings import Settings
from ml_platform_tests.serving.releases import KNOWN_AT, VIEWS, bundle, fill_online_store, publish

VIEW = "origin_weather"
COLUMNS = VIEWS[VIEW][1]


def weather_view(**changes: Any) -> FeatureView:
    """The view that the tests' model looks up, as a query; `changes` replace its keys."""
    declared: dict[str, Any] = {
        "name": VIEW,
        "description": "Weather at the origin.",
        "owner": "weather@example.com",
        "entity": ("origin",),
        "ttl": VIEWS[VIEW][2],
        "columns": {name: FeatureColumn(type="number", unit="u", description=f"The {name}.") for name in COLUMNS},
        "sql": f"SELECT origin, seen_at AS event_time, {', '.join(COLUMNS)} FROM raw.weather",
    }
    return FeatureView.model_validate({**declared, **changes})


def observe(lake: Lake, *rows: tuple[str, datetime, float]) -> None:
    """Let the source hold what was observed: origin, instant, a number for every column."""
    frame = pl.DataFrame(
        [(origin, at, *[value] * len(COLUMNS)) for origin, at, value in rows],
        schema={"origin": pl.String, "seen_at": pl.Datetime("us", "UTC"), **dict.fromkeys(COLUMNS, pl.Float64)},
        orient="row",
    )
    lake.append("raw/weather", frame)


def release(settings: Settings, view: FeatureView, version: int = 1) -> None:
    """Release a version of the model that was trained on this definition of the view."""
    manifest = msgspec.json.decode(bundle(version)["manifest.json"], type=Manifest)
    lookups = tuple(
        msgspec.structs.replace(lookup, view_hash=view.hash) if lookup.view == view.name else lookup
        for lookup in manifest.lookups
    )
    publish(settings, version, lookups=lookups)


def refresh(settings: Settings, lake: Lake, view: FeatureView) -> None:
    """Compute the view and bring it into the online store, as its assets do."""
    compute_view(lake, view)
    with open_online_store(settings.online_uri) as store:
        publish_view(lake, view, store)


def set_up(settings: Settings, lake: Lake, view: FeatureView) -> None:
    """A computed and published view, and a released model."""
    fill_online_store(settings)
    observe(lake, ("EWR", KNOWN_AT, 10.0), ("JFK", KNOWN_AT, 20.0))
    refresh(settings, lake, view)
    release(settings, view)


def row(origin: str, at: datetime, value: float | None, **changes: Any) -> dict[str, Any]:
    """A row to push."""
    return {"origin": origin, "event_time": at.isoformat(), **dict.fromkeys(COLUMNS, value), **changes}
