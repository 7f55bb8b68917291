"""What a model's calibration does to scores and to their explanations; the graph does the same (training writes it)."""

from collections.abc import Sequence

import msgspec
import numpy as np

from ml_platform.inference.explainer import Explainer, Explanations
from ml_platform.registry.manifest import Calibration, Label


def calibrated(calibration: Calibration | None, score: np.ndarray) -> np.ndarray:
    """Calibrate probabilities: of the positive class (rows,), or of all (rows × classes); None leaves them.

    Examples
    --------
    >>> halved = Calibration(slope=1.0, shifts=(-np.log(2),), floor=1e-12, fitted_on="validation", fitted_from="",
    ...                      fitted_until="", rows=0, error_before=0.0, error_after=0.0)
    >>> calibrated(halved, np.array([0.5])).round(4).tolist()
    [0.3333]
    """
    if calibration is None:
        return score
    raw = calibration.slope * log_odds(score, calibration.floor) + np.array(calibration.shifts)
    if score.ndim == 1:
        answers: np.ndarray = 1 / (1 + np.exp(-raw))
        return answers
    shares = np.exp(raw - raw.max(axis=1, keepdims=True))
    normalised: np.ndarray = shares / shares.sum(axis=1, keepdims=True)
    return normalised


def log_odds(score: np.ndarray, floor: float) -> np.ndarray:
    """Log-odds of probabilities (rows,), or logarithms of those of all classes (rows × classes)."""
    held = np.minimum(np.maximum(score, floor), 1 - floor)
    odds: np.ndarray = np.log(held) - np.log(1 - held) if score.ndim == 1 else np.log(held)
    return odds


def for_classes(calibration: Calibration | None, known: Sequence[Label], wanted: Sequence[Label]) -> Calibration | None:
    """A calibration for a model of the same kind with other classes: one that is new has no shift of its own."""
    if calibration is None or tuple(known) == tuple(wanted) or not wanted:
        return calibration
    shifts = dict(zip(map(str, known), calibration.shifts, strict=True))
    return msgspec.structs.replace(calibration, shifts=tuple(shifts.get(str(name), 0.0) for name in wanted))


class CalibratedExplainer:
    """Explains calibrated log-odds: what was explained without calibration, times the slope, plus the shift."""

    probabilities = False

    def __init__(self, explainer: Explainer, calibration: Calibration) -> None:
        self.method = explainer.method
        self._explainer = explainer
        self._slope, self._shifts = calibration.slope, np.array(calibration.shifts)

    def explain(self, matrix: np.ndarray) -> Explanations:
        """See `Explainer.explain`."""
        found = self._explainer.explain(matrix)
        return Explanations(self._slope * found.base + self._shifts, self._slope * found.contributions)
