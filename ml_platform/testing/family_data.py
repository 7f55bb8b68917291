"""Rows that families of estimators are checked on: drawn by chance, the same every time."""

from dataclasses import dataclass

import numpy as np

from ml_platform.registry.manifest import Feature
from ml_platform.spec.types import Task

FEATURES = (
    Feature(name="signal", kind="numeric", source="input"),
    Feature(name="noise", kind="numeric", source="input"),
    Feature(name="rarely", kind="numeric", source="input"),  # two of five are null
    Feature(name="flag", kind="numeric", source="input"),
    Feature(name="place", kind="categorical", source="input", categories=tuple("abcdefghij")),
)
LARGE = (
    Feature(name="epoch_seconds", kind="numeric", source="input"),
    Feature(name="account", kind="numeric", source="input"),
    Feature(name="day", kind="numeric", source="input"),  # as yyyymmdd
    Feature(name="pressure", kind="numeric", source="input"),  # in pascals
    Feature(name="tiny", kind="numeric", source="input"),
    Feature(name="huge", kind="numeric", source="input"),
    Feature(name="nowhere", kind="categorical", source="input", categories=()),
)


@dataclass(frozen=True)
class FamilyData:
    """Rows of a task: the matrix (rows × features) and the labels (rows,)."""

    task: Task
    features: tuple[Feature, ...]
    X: np.ndarray
    y: np.ndarray


def draw(task: Task, rows: int) -> FamilyData:
    """Numbers, nulls, a flag and a category, of which all but `noise` decide the label."""
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, len(FEATURES)))
    X[:, 2] = np.where(random.random(rows) < 0.4, np.nan, X[:, 2])
    X[:, 3] = random.random(rows) < 0.3
    X[:, 4] = random.integers(-2, 10, rows)
    value = 2 * X[:, 0] - np.nan_to_num(X[:, 2], nan=1.0) + X[:, 3] + 0.2 * X[:, 4] + random.normal(0, 0.5, rows)
    return FamilyData(task, FEATURES, X, _labels(task, value))


def many_categories(task: Task, categories: int) -> FamilyData:
    """One feature with very many categories, most of which occur once."""
    random = np.random.default_rng(1)
    features = (
        FEATURES[0],
        Feature(name="many", kind="categorical", source="input", categories=tuple(map(str, range(categories)))),
    )
    codes = np.concatenate([np.arange(categories), random.integers(-2, 50, 500)])
    X = np.column_stack([random.normal(size=len(codes)), random.permutation(codes)]).astype(np.float64)
    return FamilyData(task, features, X, _labels(task, X[:, 0] + (X[:, 1] % 7 - 3)))


def many_classes(classes: int) -> FamilyData:
    """A multiclass task with very many classes."""
    random = np.random.default_rng(2)
    y = random.permutation(np.arange(8 * classes) % classes).astype(np.float64)
    X = np.column_stack([y + random.normal(size=len(y)), random.normal(size=(len(y), 4))])
    X[:, 4] = y % 10
    return FamilyData("multiclass", FEATURES, X, y)


def large_numbers(task: Task) -> FamilyData:
    """Numbers far from zero, of which only the last digits say something, and some that float32 cannot hold."""
    random, rows = np.random.default_rng(3), 1_000
    seconds, pressure = random.integers(0, 86_400, rows), random.normal(0, 3, rows)
    X = np.column_stack(
        [
            1_700_000_000.0 + seconds,
            random.integers(10_000_000, 99_999_999, rows),
            20_240_100 + random.integers(1, 31, rows),
            101_325 + pressure,
            random.normal(0, 1e-9, rows),
            random.normal(0, 1e39, rows),
            random.integers(-2, 0, rows),
        ]
    ).astype(np.float64)
    X[:50, 3] = np.nan
    return FamilyData(task, LARGE, X, _labels(task, seconds / 43_200 - 1 + pressure / 3))


def draw_rare(task: Task, rows: int) -> FamilyData:
    """Rows of which one in twenty is of a class that the features tell well, but not for certain."""
    data, random = draw("regression", rows), np.random.default_rng(4)
    value = data.y / 30 + random.normal(0, 1.5, rows)
    rare = value > np.quantile(value, 0.95)
    y = np.where(rare, 2.0, random.random(rows) < 0.4) if task == "multiclass" else rare.astype(np.float64)
    return FamilyData(task, data.features, data.X, y)


def draw_monotone(task: Task, rows: int) -> FamilyData:
    """Labels that rise with `signal` and fall with `rarely`, under noise that a model without constraints follows."""
    data, random = draw("regression", rows), np.random.default_rng(8)
    value = np.tanh(data.X[:, 0]) - np.tanh(np.nan_to_num(data.X[:, 2])) + random.normal(0, 1.0, rows)
    return FamilyData(task, data.features, data.X, _labels(task, value))


def draw_skewed(task: Task, rows: int, *, seed: int) -> FamilyData:
    """A regression whose spread grows with `signal` and is skewed, so that no quantile is the mean."""
    random = np.random.default_rng(seed)
    X = np.column_stack([random.random(rows), *random.normal(size=(3, rows)), random.integers(-2, 10, rows)])
    y = 50 + 10 * X[:, 0] + (1 + 4 * X[:, 0]) * random.exponential(3, rows)
    return FamilyData(task, FEATURES, X, y)


def _labels(task: Task, value: np.ndarray) -> np.ndarray:
    if task == "regression":
        return 30 * value
    if task == "binary":
        return (value > np.median(value)).astype(np.float64)
    return np.digitize(value, np.quantile(value, [0.3, 0.7])).astype(np.float64)
