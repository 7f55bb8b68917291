"""Registry: tracking, versions, the promotion gate and the release store."""

from typing import TYPE_CHECKING

from ml_platform.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from ml_platform.registry.pins import pinned_versions
    from ml_platform.registry.releases import ReleaseStore
    from ml_platform.registry.traffic import TrafficChange

__all__ = [
    "ReleaseStore",
    "TrafficChange",
    "pinned_versions",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "pins": ["pinned_versions"],
        "releases": ["ReleaseStore"],
        "traffic": ["TrafficChange"],
    },
)
