"""Records by which definition a view's table was computed, so that old rows are never taken for new ones."""

from datetime import UTC, datetime
from typing import Any

import polars as pl

from ml_platform.features.views.view import FeatureView
from ml_platform.lake.storage.commits import origin
from ml_platform.lake.storage.tables import Lake

TABLE = "governance/feature_views"
_SCHEMA: dict[str, Any] = {"view": pl.String, "hash": pl.String, "version": pl.Int64, "at": pl.Datetime("us", "UTC")}


class ViewChanged(ValueError):
    """A view's table was computed, or a model trained, with another definition of the view than the present one."""


def record_definition(lake: Lake, view: FeatureView, version: int) -> None:
    """Record that the view's table has the view's present definition from a version on, unless it is recorded."""
    if computed_hash(lake, view.name, version) == view.hash:
        return
    row = {"view": view.name, "hash": view.hash, "version": version, "at": datetime.now(UTC)}
    lake.append(TABLE, pl.DataFrame([row], schema=_SCHEMA))


def computed_hash(lake: Lake, view: str, version: int | None = None) -> str | None:
    """Hash of the definition that computed a version (the newest if None) of a view's table; None if not recorded.

    A restored version was computed by the definition that computed it at first.
    """
    table, lake = f"features/{view}", lake.without_guard()  # which definition it was is no row of the view
    if not lake.exists(TABLE) or not lake.exists(table):
        return None
    snapshot = lake.snapshot(table)
    computed = origin(snapshot, snapshot.version() if version is None else version)
    records = lake.read(TABLE).filter(pl.col("view") == view, pl.col("version") <= computed)
    newest = records.sort("version", "at").select("hash").last().collect().get_column("hash").to_list()
    return newest[0] if newest else None


def require_definition(lake: Lake, view: FeatureView, version: int) -> None:
    """Refuse a version of the view's table that another definition computed.

    Raises
    ------
    ViewChanged
        If so; the message names the view, both definitions, and what to do.
    """
    computed = computed_hash(lake, view.name, version)
    if computed is not None and computed != view.hash:
        raise ViewChanged(
            f"feature view '{view.name}': version {version} of {view.table} was computed by the definition "
            f"{computed[:12]}, but the definition is {view.hash[:12]} now; materialise {view.table} again"
        )
