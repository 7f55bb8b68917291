"""Intervals and prediction sets of a level, from the numbers that a model's manifest or its adapted document holds."""

import numpy as np

from ml_platform.registry.manifest import Conformal

LOWEST, HIGHEST = 0.5, 0.99
LEVELS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)  # of which others lie between


def interval_bounds(conformal: Conformal, level: float) -> tuple[float, float]:
    """What is added to a regression's score: from the lower to the upper end of its interval.

    Examples
    --------
    >>> known = Conformal(levels=(0.8, 0.9), lower=(-2.0, -4.0), upper=(1.0, 2.0), rows=0, first="", last="")
    >>> interval_bounds(known, 0.9)
    (-4.0, 2.0)
    """
    levels = conformal.levels
    return float(np.interp(level, levels, conformal.lower)), float(np.interp(level, levels, conformal.upper))


def set_cutoff(conformal: Conformal, level: float) -> float:
    """Probability from which a class is in the set of a level."""
    return float(np.interp(level, conformal.levels, conformal.cutoffs))


def class_sets(conformal: Conformal, level: float, score: np.ndarray) -> np.ndarray:
    """Which classes are in the set of each row (rows × classes, bool); the most probable one always is.

    Parameters
    ----------
    score
        Probabilities: of true (rows,), whose classes are false and true, or of all (rows × classes).
    """
    every = np.column_stack([1 - score, score]) if score.ndim == 1 else score
    chosen: np.ndarray = every >= set_cutoff(conformal, level)
    chosen[np.arange(len(every)), every.argmax(axis=1)] = True
    return chosen
