"""Promotion: registered versions, the release of one, traffic, rollback, and the registry kept in step."""

from typing import TYPE_CHECKING

from ml_platform.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from ml_platform.promotion.promote import RegistryBehind, change_traffic, promote_version, rollback, sync_registry

__all__ = [
    "RegistryBehind",
    "change_traffic",
    "promote_version",
    "rollback",
    "sync_registry",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "promote": ["RegistryBehind", "change_traffic", "promote_version", "rollback", "sync_registry"],
    },
)
