"""Who reads the catalogue, and what they may know of: with no keys and no grants, everybody sees everything."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml_platform.lake.storage.tables import Lake
    from ml_platform.settings import Settings


def lake_of(settings: "Settings", reader: str | None) -> "Lake":  # noqa: ARG001 - whom a guard would ask about
    """The lake as a reader may see it."""
    from ml_platform.lake.storage.tables import Lake

    return Lake(settings.lake_uri)
