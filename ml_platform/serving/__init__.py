"""The FastAPI app that serves predictions; it needs only the release store and the online store of the platform."""

from typing import TYPE_CHECKING

from ml_platform.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from ml_platform.serving.app import create_app
    from ml_platform.serving.prediction.hooks import HookRequest, Hooks, Row
    from ml_platform.serving.prediction.responses import Prediction

__all__ = [
    "HookRequest",
    "Hooks",
    "Prediction",
    "Row",
    "create_app",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "app": ["create_app"],
        "prediction.hooks": ["HookRequest", "Hooks", "Row"],
        "prediction.responses": ["Prediction"],
    },
)
