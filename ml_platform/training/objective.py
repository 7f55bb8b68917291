"""What a fit minimises beside the labels: weights of rows and of classes, a quantile, and features that act one way."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl

from ml_platform.registry.manifest import Feature, Label
from ml_platform.spec.model import ModelSpec

_SIGNS = {"increasing": 1, "decreasing": -1}


@dataclass(frozen=True)
class Objective:
    """How a family is to fit, the same for every trial and for the training.

    Attributes
    ----------
    weights, validation_weights
        Weight of each training and validation row (rows,); None for one each.
    class_weights
        Weight of each class, in the order of the labels; None for one each. Scores are corrected for them.
    quantile
        What a regression gives; None for the mean.
    monotone
        1 or -1 for each feature with which scores only rise or only fall, else 0; empty for none.
    """

    weights: np.ndarray | None = None
    validation_weights: np.ndarray | None = None
    class_weights: tuple[float, ...] | None = None
    quantile: float | None = None
    monotone: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        features: Sequence[Feature],
        rows: pl.DataFrame,
        y: np.ndarray,
        *,
        classes: Sequence[Label] = (),
        validation: pl.DataFrame | None = None,
    ) -> Self:
        """Read off a spec and its rows how to fit.

        Parameters
        ----------
        spec
            The model.
        features
            Columns of the matrix.
        rows, y
            Training rows, all of positive weight, and their encoded labels (rows,).
        classes
            Of a multiclass model.
        validation
            Rows to stop early on.

        Raises
        ------
        ValueError
            When `monotone` names a column that is no numeric feature, or `class_weights` a class that no row has.
        """
        weights = row_weights(rows, spec)
        totals: np.ndarray = np.zeros(0)
        if spec.class_weights is not None:
            totals = np.bincount(y.astype(np.int64), weights=weights, minlength=len(classes) or 2)
        return cls(
            weights=weights,
            validation_weights=None if validation is None else row_weights(validation, spec),
            class_weights=class_weights_of(spec, totals, classes),
            quantile=spec.quantile,
            monotone=monotone_signs(spec.monotone, features),
        )

    def digest(self) -> str:
        """Digest of all of it: of two that are equal the same."""
        digest = hashlib.blake2b(repr((self.class_weights, self.quantile, self.monotone)).encode(), digest_size=16)
        for weights in (self.weights, self.validation_weights):
            digest.update(b"none" if weights is None else np.ascontiguousarray(weights).tobytes())
        return digest.hexdigest()

    def combined(self, y: np.ndarray, weights: np.ndarray | None) -> np.ndarray | None:
        """Weights of rows with those of their classes (rows,); None where all are one.

        A class that is not known weighs 0.
        """
        if self.class_weights is None:
            return weights
        of_class = np.array([*self.class_weights, 0.0])[y.astype(np.int64)]  # -1 picks the last
        return of_class if weights is None else weights * of_class


PLAIN = Objective()


def weighted_rows(rows: pl.DataFrame, spec: ModelSpec) -> pl.DataFrame:
    """The rows that count: those with a weight above 0, or all where the spec has no weights."""
    return rows if spec.weight is None else rows.filter(pl.col(spec.weight) > 0)


def row_weights(rows: pl.DataFrame, spec: ModelSpec) -> np.ndarray | None:
    """Weights of rows (rows,), as the spine gives them; None where the spec has none."""
    return None if spec.weight is None else rows.get_column(spec.weight).cast(pl.Float64).to_numpy()


def class_weights_of(spec: ModelSpec, totals: np.ndarray, classes: Sequence[Label]) -> tuple[float, ...] | None:
    """Weight of each class: as given, or by its share of the (weighted) rows, so that all count alike together.

    Parameters
    ----------
    spec
        The model.
    totals
        Sum of the weights of the rows of each class (classes,).
    classes
        Of a multiclass model.

    Raises
    ------
    ValueError
        When `class_weights` names a class that no row has.
    """
    names = ["false", "true"] if spec.task == "binary" else [str(name) for name in classes]
    if spec.class_weights is None:
        return None
    if spec.class_weights == "balanced":
        return tuple((totals.sum() / (len(names) * totals)).tolist())
    if wrong := sorted(set(spec.class_weights) - set(names)):
        raise ValueError(f"{spec.name}: class_weights names {wrong}, which no training row has; classes are {names}")
    return tuple(spec.class_weights.get(name, 1.0) for name in names)


def monotone_signs(monotone: Mapping[str, str], features: Sequence[Feature]) -> tuple[int, ...]:
    """Sign of each feature as `Objective.monotone` has them (raises ValueError for what is no numeric feature)."""
    if not monotone:
        return ()
    numeric = [feature.name for feature in features if feature.categories is None]
    if wrong := sorted(set(monotone) - set(numeric)):
        raise ValueError(f"monotone: {wrong} are no numeric features; there are {', '.join(numeric)}")
    return tuple(_SIGNS.get(monotone.get(feature.name, ""), 0) for feature in features)
