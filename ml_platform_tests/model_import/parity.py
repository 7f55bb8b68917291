"""Holds a model's graph to its library, on rows made to break a careless export."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ml_platform.model_import.foreign import Bound, ForeignModel
from ml_platform.registry.manifest import Feature
from ml_platform.spec.types import Task
from ml_platform.training.export.parity import check_parity

SHOPS = ("north", "south", "west")


def number(name: str) -> Feature:
    return Feature(name=name, kind="numeric", source="input")


def text(name: str, categories: Sequence[str] = SHOPS) -> Feature:
    return Feature(name=name, kind="categorical", source="input", categories=tuple(categories))


def check(model: ForeignModel, task: Task, features: Sequence[Feature], X: np.ndarray, positive: int = 1) -> Bound:
    """Bind a model and compare graph and library; returns what was bound."""
    bound = model.bind(task, features, positive)
    check_parity(bound.native, bound.onnx, task, features, X, tolerance=bound.tolerance)
    return bound


def world(rows: int = 400) -> dict[str, Any]:
    """Two numbers with nulls and a text, as data frame and as matrix of codes, with labels of each task."""
    import pandas as pd

    random = np.random.default_rng(5)
    weight, load = random.normal(10, 4, rows), random.gamma(2.0, 1.0, rows)
    shop = random.integers(0, 3, rows)
    value = weight + 3 * load * (shop == 1) - 4 * shop + random.normal(0, 1, rows)
    weight[::11], load[::13] = np.nan, np.nan
    shops = np.array(SHOPS, dtype=object)[shop]
    shops[::17] = np.nan
    codes = np.where(np.arange(rows) % 17 == 0, -2.0, shop)
    return {
        "frame": pd.DataFrame({"weight": weight, "load": load, "shop": pd.Series(shops, dtype=object)}),
        "X": np.column_stack([weight, load, codes]),
        "features": [number("weight"), number("load"), text("shop")],
        "value": value,
        "late": (value > np.median(value)).astype(int),
        "outcome": np.select([value > 12, value < 6], ["late", "early"], "on time").astype(object),
    }
