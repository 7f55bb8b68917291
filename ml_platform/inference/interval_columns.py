"""Intervals and sets of classes as columns of a table of scored rows."""

from typing import Any

import numpy as np
import polars as pl

from ml_platform.inference.intervals import class_sets, interval_bounds
from ml_platform.registry.manifest import Conformal, Manifest


def interval_columns(manifest: Manifest, conformal: Conformal, level: float, scores: np.ndarray) -> list[pl.Series]:
    """The columns `lower` and `upper` of a regression's scores, `prediction_set` of a classifier's.

    Parameters
    ----------
    scores
        As the version gives them: (rows,), or probabilities (rows × classes).
    """
    if manifest.task == "regression":
        low, high = interval_bounds(conformal, level)
        return [pl.Series("lower", scores + low), pl.Series("upper", scores + high)]
    names: list[Any] = [str(name) for name in manifest.classes] or [False, True]
    dtype: pl.DataType = pl.String() if manifest.classes else pl.Boolean()
    if not len(scores):
        return [pl.Series("prediction_set", [], dtype=pl.List(dtype))]
    chosen = class_sets(conformal, level, scores)
    columns = [
        pl.select(pl.when(pl.Series(chosen[:, place])).then(pl.lit(name, dtype=dtype)).alias(str(place))).to_series()
        for place, name in enumerate(names)
    ]
    sets = pl.DataFrame(columns).select(pl.concat_list(pl.all()).list.drop_nulls().alias("prediction_set"))
    return [sets.to_series()]
