"""Calibration as a step of training: learned on validation rows, by a model that has learned from earlier ones alone.

The model that serves is fitted on training and validation rows together, and the gate's holdout is left for the gate.
So the same candidate is fitted once more without the validation rows, and its scores of these are calibrated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ml_platform.inference.calibration import calibrated
from ml_platform.inference.matrix import encode_labels
from ml_platform.registry.manifest import Calibration, Label
from ml_platform.spec.model import ModelSpec
from ml_platform.training.candidate_fit import Fitted
from ml_platform.training.data.split import TrainingRows
from ml_platform.training.distributed.choice import fit_before_validation
from ml_platform.training.documents import Trial
from ml_platform.training.evaluation.contenders import aligned
from ml_platform.training.evaluation.metrics import choose_threshold
from ml_platform.training.uncertainty.platt import fit_platt


@dataclass(frozen=True)
class CalibratedFit:
    """A fitted model with its calibration, if it got one, and the threshold that suits it."""

    fitted: Fitted
    threshold: float | None
    told: str  # what was done, in words; empty where nothing was asked for


def calibrate(fitted: Fitted, rows: TrainingRows, candidate: Trial) -> CalibratedFit:
    """Calibrate a model that was fitted on training and validation rows, if its spec asks for it.

    A threshold that is chosen on validation rows is chosen again there, of calibrated probabilities; one that
    `defs.yaml` names stays what it is, a probability.
    """
    spec, parts = fitted.spec, rows.parts
    if spec.calibration == "none":
        return CalibratedFit(fitted, candidate.threshold, "")
    try:
        params = fitted.fitted_params(candidate.params)
        earlier = fit_before_validation(rows, spec, candidate.family, params)
        score = aligned(earlier.predict(parts.validation), earlier.classes, fitted.classes)
        found, threshold, told = calibration_of(spec, parts.validation, score, fitted.classes)
    except ValueError as error:  # too few rows, or training rows of a single class
        return CalibratedFit(fitted, candidate.threshold, f"Not calibrated: {error}.")
    return CalibratedFit(replace(fitted, calibration=found), threshold, told)


def calibration_of(
    spec: ModelSpec, rows: pl.DataFrame, score: np.ndarray, classes: Sequence[Label]
) -> tuple[Calibration, float | None, str]:
    """Learn a calibration of validation rows, and choose the threshold of calibrated probabilities on them.

    Raises
    ------
    NotCalibratable
        When they are too few, or the score ranks them the wrong way.
    """
    y = encode_labels(rows.get_column(spec.target), spec, tuple(classes))
    first, last = rows.get_column(spec.timestamp).min(), rows.get_column(spec.timestamp).max()
    found = fit_platt(spec.task, y, score, fitted_on="validation", first=first, last=last)  # type: ignore[arg-type]
    threshold = choose_threshold(spec.threshold, y, calibrated(found, score)) if spec.task == "binary" else None
    return found, threshold, in_words(found)


def in_words(calibration: Calibration) -> str:
    """What a calibration is, and what it does on the rows that it was learned on."""
    shifts = ", ".join(f"{shift:+.3f}" for shift in calibration.shifts)
    first, last = calibration.fitted_from[:10], calibration.fitted_until[:10]
    return (
        f"Calibrated by Platt scaling: slope {calibration.slope:.3f}, shift {shifts}, learned on {calibration.rows:,} "
        f"{calibration.fitted_on} rows from {first} to {last}, on which the expected calibration error goes from "
        f"{calibration.error_before:.4f} to {calibration.error_after:.4f}."
    )
