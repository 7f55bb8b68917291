"""Binds a model to its folder, and compares the graph that is made of it with its library."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.inference.calibration import calibrated
from ml_platform.inference.matrix import FeatureEncoder
from ml_platform.model_import.binding import (
    bind_classes,
    bind_features,
    nullable_features,
)
from ml_platform.model_import.claims import Claims, Folder
from ml_platform.model_import.foreign import Bound, ForeignModel
from ml_platform.model_import.refused import ImportRefused
from ml_platform.model_import.source import Source
from ml_platform.model_import.unanswered_values import check_refusals, without_refused
from ml_platform.registry.manifest import Calibration, Label
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import (
    ParityReport,
)
from ml_platform.training.export.parity import ParityError, compare, nasty_rows

_PARITY_ROWS = 2000


@dataclass(frozen=True)
class ImportedModel:
    """A model bound to its folder, as a bundle is made of it.

    Attributes
    ----------
    spec
        The folder's model.
    encoder
        What makes its matrix.
    classes
        Multiclass: labels in the order of the probabilities.
    positive
        Binary: place of the class that means true among the model's own.
    family_name
        Of the bundle.
    bound
        The library's scores, and the graph.
    calibration
        What its probabilities are mapped by, once it is judged here.
    """

    spec: ModelSpec
    encoder: FeatureEncoder
    classes: tuple[Label, ...]
    positive: int
    family_name: str
    bound: Bound
    calibration: Calibration | None = None

    def predict(self, rows: pl.DataFrame) -> np.ndarray:
        """The library's own scores, calibrated where it is."""
        return calibrated(self.calibration, self.bound.native(self.encoder.transform(rows)))


def bind_model(  # noqa: PLR0917 - private
    folder: Folder, ref: TrainingSetRef, source: Source, model: ForeignModel, claims: Claims, rows: pl.DataFrame
) -> tuple[ImportedModel, np.ndarray]:
    """Bind a model to the features and classes of its folder, and write its graph.

    Returns
    -------
    tuple
        The bound model, and for each feature whether it refuses far values and nulls.

    Raises
    ------
    ImportRefused
        When it does not fit, cannot be exported, or does not answer.
    """
    spec = folder.spec
    features = bind_features(model, ref.features, rows, claims.declared, source.inputs)
    classes, positive = bind_classes(model, spec, rows.get_column(spec.target), claims.declared)
    encoder = FeatureEncoder(features)
    try:
        bound = model.bind(spec.task, features, positive)
    except ImportRefused:
        raise
    except Exception as error:  # whatever an object of another version is short of
        raise ImportRefused(f"{model.summary} cannot be exported: {error}") from error
    if claims.tolerance is not None:
        bound = replace(bound, tolerance=claims.tolerance)
    imported = ImportedModel(spec, encoder, classes, positive, f"imported {source.kind.flavor}", bound)
    if not _answers_at_all(imported, rows):
        _raise_reason(imported, rows)
    nullable = nullable_features(spec, folder.path, rows)
    return imported, check_refusals(spec, bound, encoder, rows.tail(_PARITY_ROWS), nullable)


def _answers_at_all(imported: ImportedModel, rows: pl.DataFrame) -> bool:
    """Whether the library answers to some row without nulls."""
    names = [one.name for one in imported.encoder.features]
    complete = rows.drop_nulls(names)
    scores = None
    if complete.height:
        try:
            scores = imported.predict(complete.tail(1))
        except Exception:  # noqa: BLE001 - the reason is raised by `_raise_reason`
            return False
    return scores is None or scores.shape == _shape(imported, 1)


def _raise_reason(imported: ImportedModel, rows: pl.DataFrame) -> None:
    names = [one.name for one in imported.encoder.features]
    try:
        scores = imported.predict(rows.drop_nulls(names).tail(1))
    except Exception as error:
        raise ImportRefused(
            f"the library does not answer to a row of the training set: {type(error).__name__}: {error}. Names, order "
            f"and types of the inputs are {', '.join(f'{one.name} ({one.kind})' for one in imported.encoder.features)}"
        ) from error
    raise ImportRefused(
        f"the model answers with {scores.shape[1:] or 'one number'} a row, wanted "
        f"{_shape(imported, 1)[1:] or 'one number'} "
        f"for {imported.spec.task}"
    )


def _shape(imported: ImportedModel, rows: int) -> tuple[int, ...]:
    return (rows, len(imported.classes)) if imported.spec.task == "multiclass" else (rows,)


def check_library_parity(
    imported: ImportedModel, claims: Claims, rows: pl.DataFrame, refused: np.ndarray
) -> ParityReport:
    """Compare the graph with the library on real, given and extreme rows (raises ImportRefused)."""
    spec, bound, features = imported.spec, imported.bound, imported.encoder.features
    real = imported.encoder.transform(rows.sort(spec.timestamp).tail(_PARITY_ROWS))
    parts = [real]
    if claims.rows is not None:
        parts.append(_given_rows(imported, claims.rows))
    compared = [without_refused(np.vstack(parts), features, refused)]
    numbers = np.array([one.categories is None for one in features])
    try:
        if bound.extremes and not refused[numbers, 1].any():
            far = without_refused(nasty_rows(bound.onnx, features, real, seed=spec.tuning.seed), features, refused)
            answers = bound.native(far).reshape(len(far), -1)
            compared.append(far[np.isfinite(answers).all(axis=1)])  # an exponent of a far value is infinite
        rows_compared = np.vstack(compared)
        return compare(
            bound.native,
            bound.onnx,
            spec.task,
            features,
            rows_compared,
            tolerance=bound.tolerance,
            real=len(compared[0]),
        )
    except ParityError as error:
        raise ImportRefused(str(error)) from error
    except Exception as error:
        raise ImportRefused(f"graph and library cannot be compared: {type(error).__name__}: {error}") from error


def _given_rows(imported: ImportedModel, rows: pl.DataFrame) -> np.ndarray:
    if rows.is_empty():
        raise ImportRefused("--rows has no rows: give some that the model can answer to")
    try:
        return imported.encoder.transform(rows)
    except (ValueError, pl.exceptions.PolarsError) as error:
        raise ImportRefused(f"--rows: {error}. It has the columns {', '.join(rows.columns)}") from error


def check_answers(imported: ImportedModel, holdout: pl.DataFrame) -> None:
    """Refuse answers that are no scores of the task, or always the same (raises ImportRefused)."""
    scores = imported.predict(holdout)
    wrong = ~np.isfinite(scores.reshape(len(scores), -1)).all(axis=1)
    if wrong.any():
        raise ImportRefused(
            f"the model gives no finite number for {wrong.sum():,} of {len(scores):,} rows of the holdout"
        )
    if imported.spec.task != "regression":
        sums = scores.sum(axis=1) if scores.ndim > 1 else scores
        outside = scores.min() < 0 or scores.max() > 1 or (scores.ndim > 1 and np.abs(sums - 1).max() > 1e-3)
        if outside:
            raise ImportRefused(
                f"the model's answers are no probabilities: they go from {scores.min():.4g} to {scores.max():.4g}. If "
                "they are log-odds, say so by --link sigmoid (two classes) or --link softmax"
            )
    if len(scores) > 1 and (scores == scores[:1]).all():
        raise ImportRefused(
            f"the model answers {scores[0]} for every one of {len(scores):,} rows of the holdout: check the order and "
            "the units of its inputs"
        )
