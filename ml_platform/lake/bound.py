"""The project's lake as whoever speaks may see it: what commands, notebooks and jobs open in place of a bare `Lake`."""

from importlib import import_module
from typing import Any, TypedDict

from ml_platform.lake.access import Guard, Reads
from ml_platform.lake.storage.tables import Lake
from ml_platform.settings import Settings

# By name: who may what is decided in a room above, and this is where every path to a table begins.
_GUARDED = "ml_platform.governance.access.guarded"


class Binding(TypedDict):
    """What a `Lake` is given beside its place."""

    guard: Guard | None
    reads: Reads | None
    path: str


def bound_lake(settings: Settings, path: str, *, principal: str | None = None) -> Lake:
    """Open the lake as a principal may see it; everything of it where no access policy is in force.

    Parameters
    ----------
    settings
        Where the lake is, and the key of who speaks (`ML_PLATFORM_KEY`).
    path
        How its tables are reached, for the audit: `sql`, `notebook`, `batch` …
    principal
        Who reads, as `user:<name>` or `service:<name>`; who speaks when None.

    Raises
    ------
    AccessDenied
        When a key is wanted, and there is none that is valid.
    """
    return Lake(settings.lake_uri, **binding(settings, path, principal=principal))


def binding(settings: Settings, path: str, *, principal: str | None = None) -> Binding:
    """What binds a lake to a principal, see `bound_lake`."""
    guarded: Any = import_module(_GUARDED)
    return {
        "guard": guarded.guard_for(settings, principal),
        "reads": guarded.reads_for(settings, principal),
        "path": path,
    }
