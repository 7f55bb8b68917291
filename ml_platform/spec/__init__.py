"""What a model's `defs.yaml` declares: every key with its type, default and meaning."""

from typing import TYPE_CHECKING

from ml_platform.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from ml_platform.spec.model import Lookup

__all__ = [
    "Lookup",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "model": ["Lookup"],
    },
)
