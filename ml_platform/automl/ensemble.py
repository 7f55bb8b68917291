"""Greedy ensemble selection (Caruana et al., 2004): the weighted average of trials that is best on validation rows."""

from collections.abc import Callable, Mapping

import numpy as np

from ml_platform.automl.plain.blending import blend

MOST_ROUNDS = 30


def select_ensemble(
    scores: Mapping[str, np.ndarray], measure: Callable[[np.ndarray], float], *, higher_is_better: bool
) -> dict[str, float]:
    """Choose weights of trials, one round at a time: each adds the trial that makes the average best.

    Parameters
    ----------
    scores
        Trial → its scores of the validation rows.
    measure
        Metric of scores of these rows.
    higher_is_better
        Its direction.

    Returns
    -------
    dict
        Trial → weight, largest first; the weights add up to 1. A single trial when no average is better.

    Examples
    --------
    >>> y = np.array([1.0, 2.0, 3.0])
    >>> scores = {"low": y - 1, "high": y + 1, "far": y + 5}
    >>> select_ensemble(scores, lambda score: float(np.abs(y - score).mean()), higher_is_better=False)
    {'low': 0.5, 'high': 0.5}
    """
    sign = 1.0 if higher_is_better else -1.0
    counts = dict.fromkeys(scores, 0)
    total = np.zeros_like(next(iter(scores.values())))
    best, best_counts = -np.inf, dict(counts)
    for number in range(1, MOST_ROUNDS + 1):
        gains = {name: sign * measure((total + score) / number) for name, score in scores.items()}
        chosen = max(gains, key=lambda name: gains[name])
        counts[chosen] += 1
        total = total + scores[chosen]
        if gains[chosen] > best:
            best, best_counts = gains[chosen], dict(counts)
    rounds = sum(best_counts.values())
    weights = {name: count / rounds for name, count in best_counts.items() if count}
    return dict(sorted(weights.items(), key=lambda item: -item[1]))


def blended(scores: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Average scores as the ensemble does."""
    return blend([scores[name] for name in weights], list(weights.values()))
