"""What an import is of: the model's folder, and what who imports it says."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from ml_platform.features.views.view import FeatureView
from ml_platform.model_import.declaration import Declaration
from ml_platform.spec.model import ModelSpec


@dataclass(frozen=True)
class Folder:
    """A model's folder in `defs/`, with what it belongs to."""

    spec: ModelSpec
    path: Path
    views: Mapping[str, FeatureView]


@dataclass(frozen=True)
class Claims:
    """What who imports a model says and wants.

    Attributes
    ----------
    by
        User.
    trained_until
        Instant (UTC) of the newest row that the model was trained on; None where that is not known.
    declared
        What its file does not say.
    rows
        Rows to compare graph and library on, beside those of the training set; with the features' columns.
    tolerance
        Largest difference of a score that is allowed, in place of the library's usual one.
    """

    by: str
    trained_until: datetime | None
    declared: Declaration
    rows: pl.DataFrame | None = None
    tolerance: float | None = None
