"""From the scores of models to predictions."""

import numpy as np


def blend(scores: list[np.ndarray], weights: list[float]) -> np.ndarray:
    """Average scores by weight."""
    return np.asarray(sum(weight * score for weight, score in zip(weights, scores, strict=True)))


def from_logarithm(score: np.ndarray, largest: float) -> np.ndarray:
    """Turn log(1 + value) into the value, from 0 up to twice the largest that was learned from."""
    with np.errstate(over="ignore"):
        return np.clip(np.expm1(score), 0.0, 2.0 * largest)
