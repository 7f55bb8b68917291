"""Feature views, point-in-time joins, features of the request, and the online store."""

from typing import TYPE_CHECKING

from ml_platform.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from ml_platform.features.expressions.request_features import RequestFeature
    from ml_platform.features.training_sets.leakage import find_leakage
    from ml_platform.features.training_sets.notebook_api import TrainingSet, create_training_set, open_lake
    from ml_platform.features.views.polars_view import polars_view

__all__ = [
    "RequestFeature",
    "TrainingSet",
    "create_training_set",
    "find_leakage",
    "open_lake",
    "polars_view",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "expressions.request_features": ["RequestFeature"],
        "training_sets.leakage": ["find_leakage"],
        "training_sets.notebook_api": ["TrainingSet", "create_training_set", "open_lake"],
        "views.polars_view": ["polars_view"],
    },
)
