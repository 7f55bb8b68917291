"""Which definition a view's table was computed by: a record per change, so that old rows never pass for new ones."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import polars as pl

from ml_platform.lake.tables import Lake

if TYPE_CHECKING:
    from ml_platform.features.views import FeatureView

TABLE = "governance/feature_views"
_SCHEMA: dict[str, Any] = {"view": pl.String, "hash": pl.String, "version": pl.Int64, "at": pl.Datetime("us", "UTC")}


class ViewChanged(ValueError):
    """A view's table or a model stands on another definition of the view than the present one."""


def record_definition(lake: Lake, view: "FeatureView", version: int) -> None:
    """Note that the view's table is of its present definition from a version on; nothing when that is known."""
    if computed_hash(lake, view.name) == view.hash:
        return
    row = {"view": view.name, "hash": view.hash, "version": version, "at": datetime.now(UTC)}
    lake.append(TABLE, pl.DataFrame([row], schema=_SCHEMA))


def computed_hash(lake: Lake, view: str, version: int | None = None) -> str | None:
    """Hash of the definition that a version of the view's table is of, the newest when None; None when not recorded."""
    if not lake.exists(TABLE):
        return None
    records = lake.read(TABLE).filter(pl.col("view") == view)
    if version is not None:
        records = records.filter(pl.col("version") <= version)
    newest = records.sort("version", "at").select("hash").last().collect().get_column("hash").to_list()
    return newest[0] if newest else None


def require_definition(lake: Lake, view: "FeatureView", version: int) -> None:
    """Refuse a version of the view's table that an older definition computed.

    Raises
    ------
    ViewChanged
        Naming the view, both definitions, and what to do.
    """
    found = computed_hash(lake, view.name, version)
    if found is not None and found != view.hash:
        raise ViewChanged(
            f"feature view '{view.name}': version {version} of {view.table} was computed by the definition "
            f"{found[:12]}, which is {view.hash[:12]} by now; materialise {view.table} again"
        )
