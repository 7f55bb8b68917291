"""Rows of a Polars frame → the float64 matrix that models see, and labels → numbers.

The scorer does the same for one request at a time (`ml_platform.inference.scorer`); a test holds the two together.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import polars as pl

from ml_platform.features.training_sets.documents import FeatureInfo
from ml_platform.features.training_sets.labels import plain_labels
from ml_platform.inference.missing_values import infinite_as_missing
from ml_platform.registry.manifest import MISSING_CODE, UNSEEN_CODE, Feature, Label
from ml_platform.spec.model import ModelSpec

MIN_CATEGORY_ROWS = 20  # a category seen less often teaches nothing that a new one would not contradict
MAX_CATEGORIES = 256  # the most frequent; the rest count as unseen
UNKNOWN_LABEL = -1.0  # of a class that the model does not know
_PRIOR_ROWS = 20.0  # weight of the overall mean in a category's mean, in rows


class FeatureEncoder:
    """Encodes rows by the manifest's features: numbers as they are, categories as their position, null as NaN or code.

    Infinite numbers are missing, see `infinite_as_missing`.

    Categories are ordered by the mean of the target on the rows that `fit` saw (shrunk to the overall mean), so that a
    tree's `code <= threshold` parts the risky from the safe. For multiclass they are in alphabetical order.

    Examples
    --------
    >>> infos = [FeatureInfo(name="carrier", kind="categorical", source="input")]
    >>> frame = pl.DataFrame({"carrier": ["UA"] * 30 + ["EV"] * 30})
    >>> encoder = FeatureEncoder.fit(frame, infos, np.array([1.0] * 30 + [0.0] * 30))
    >>> encoder.features[0].categories
    ('EV', 'UA')
    >>> encoder.transform(pl.DataFrame({"carrier": ["UA", "XX", None]})).ravel().tolist()
    [1.0, -1.0, -2.0]
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)

    @classmethod
    def fit(cls, frame: pl.DataFrame, infos: Sequence[FeatureInfo], target: np.ndarray | None) -> Self:
        """Learn the categories of each categorical feature; `target` (rows,) orders them, None for the alphabet."""
        names = [info.name for info in infos if info.kind == "categorical"]
        return cls.of_categories(infos, {name: _categories(frame.get_column(name), target) for name in names})

    @classmethod
    def of_categories(cls, infos: Sequence[FeatureInfo], categories: Mapping[str, tuple[str, ...]]) -> Self:
        """Make an encoder of features whose categories are known, see `choose_categories`."""
        return cls(
            tuple(
                Feature(
                    name=info.name,
                    kind=info.kind,
                    source=info.source,
                    categories=categories[info.name] if info.kind == "categorical" else None,
                    description=info.description,
                    unit=info.unit,
                )
                for info in infos
            )
        )

    def transform(self, frame: pl.DataFrame) -> np.ndarray:
        """Matrix (rows × features, float64, C order) of a frame that has the features' columns.

        Raises
        ------
        ValueError
            When a column is missing or has a type that its kind cannot have.
        """
        if missing := [feature.name for feature in self.features if feature.name not in frame.columns]:
            raise ValueError(f"feature columns missing from the rows: {missing}; create the training set again")
        matrix = np.empty((frame.height, len(self.features)), dtype=np.float64)
        for position, feature in enumerate(self.features):
            column = frame.get_column(feature.name)
            matrix[:, position] = _numbers(column) if feature.categories is None else _codes(column, feature.categories)
        return infinite_as_missing(matrix)


def feature_columns(frame: pl.DataFrame, features: Sequence[Feature]) -> pl.DataFrame:
    """Feature columns as tables of scored rows keep them: numeric as Float64, categorical as String."""
    return frame.select(
        pl.col(feature.name).cast(pl.String if feature.kind == "categorical" else pl.Float64) for feature in features
    )


def label_classes(labels: pl.Series) -> tuple[Label, ...]:
    """Classes of a multiclass target: integers in their order, everything else as text, sorted by name.

    Examples
    --------
    >>> label_classes(pl.Series([10.0, 9.0, None])), label_classes(pl.Series(["b", "a"]))
    ((9, 10), ('a', 'b'))
    """
    known = plain_labels(labels, "multiclass", labels.name).drop_nulls().unique()
    return tuple(sorted((known if known.dtype.is_integer() else known.cast(pl.String)).to_list()))


def encode_labels(labels: pl.Series, spec: ModelSpec, classes: tuple[Label, ...] = ()) -> np.ndarray:
    """Labels (rows,) as float64: 0/1 for binary, position in `classes` for multiclass, the value for regression.

    A class that is not among `classes` is `UNKNOWN_LABEL`, which every metric takes for an error of the model.

    Raises
    ------
    ValueError
        When a label is null, not finite, or outside what the task allows.
    """
    if labels.null_count():
        raise ValueError(
            f"target '{spec.target}': {labels.null_count()} labels are null; the training set must not hold them"
        )
    labels = plain_labels(labels, spec.task, spec.target)
    if spec.task == "multiclass":
        positions = {str(name): position for position, name in enumerate(classes)}
        names = labels.cast(pl.String).to_list()
        return np.array([positions.get(name, UNKNOWN_LABEL) for name in names], dtype=np.float64)
    return labels.cast(pl.Float64).to_numpy().astype(np.float64)


def _categories(column: pl.Series, target: np.ndarray | None) -> tuple[str, ...]:
    names = column.cast(pl.String).drop_nulls().unique().sort().to_list()
    codes = _codes(column, tuple(names))
    present = codes >= 0
    positions = codes[present].astype(np.int64)
    counts = np.bincount(positions, minlength=len(names))
    if target is None:
        return choose_categories(names, counts)
    sums = np.bincount(positions, weights=target[present], minlength=len(names))
    return choose_categories(names, counts, sums, float(target.mean()) if len(target) else 0.0)


def choose_categories(
    names: Sequence[str], counts: np.ndarray, sums: np.ndarray | None = None, mean: float = 0.0
) -> tuple[str, ...]:
    """Choose the categories that a model knows, in the order of their codes.

    Parameters
    ----------
    names
        All values of the feature, sorted.
    counts, sums
        Rows with each value, and the sum of the target on them (values,); without sums the order is the alphabet's.
    mean
        Of the target on all rows.

    Examples
    --------
    >>> choose_categories(["EV", "UA"], np.array([30, 40]), np.array([20.0, 10.0]), 0.5)
    ('UA', 'EV')
    """
    frequent = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))[:MAX_CATEGORIES]
    categories = sorted(i for i in frequent if counts[i] >= MIN_CATEGORY_ROWS)
    if sums is None:
        return tuple(names[i] for i in categories)
    means = (sums + _PRIOR_ROWS * mean) / (counts + _PRIOR_ROWS)
    return tuple(names[i] for i in sorted(categories, key=lambda i: (means[i], names[i])))


def _numbers(column: pl.Series) -> np.ndarray:
    if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        raise ValueError(
            f"feature '{column.name}': wanted a number or boolean, found {column.dtype}; cast it in its definition"
        )
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _codes(column: pl.Series, categories: tuple[str, ...]) -> np.ndarray:
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        raise ValueError(f"feature '{column.name}': wanted strings, found {column.dtype}; cast it in its definition")
    text = column.cast(pl.String)
    codes = text.to_frame().select(
        pl.when(pl.col(column.name).is_null())
        .then(pl.lit(MISSING_CODE))
        .otherwise(
            pl.col(column.name).replace_strict(
                pl.Series(categories, dtype=pl.String),
                pl.Series(range(len(categories)), dtype=pl.Float64),
                default=UNSEEN_CODE,
                return_dtype=pl.Float64,
            )
        )
    )
    return codes.to_series().to_numpy()
