"""The small world of orders, whose model several workers are to train."""

from typing import Any

from ml_platform.training.data.cuts import Cuts, cut_by_time
from ml_platform.training.data.stored_rows import StoredRows
from ml_platform.training.documents import TrainedModel
from ml_platform_tests.toy_world import Shops

SPREAD: dict[str, Any] = {"families": ["lightgbm", "xgboost"], "training": {"workers": 2, "executor": "ray"}}


def stored_rows(world: Shops, trained: TrainedModel, **changes: Any) -> tuple[StoredRows, Cuts]:
    """Training set of the world's model, as it stays in the lake, with the bounds of its parts."""
    spec = world.respecified(**SPREAD, **changes).spec
    stored = StoredRows.of(world.lake, spec, trained.training_set)
    assert stored is not None
    return stored, cut_by_time(stored.scan(), spec)
