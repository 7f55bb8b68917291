"""Whether what is predicted happens as often as predicted: the expected calibration error, with an interval.

The error is a sum of absolute gaps, so chance alone makes it positive, and more so on few rows. Its interval allows for
that: the error found differs from the true one by at most the sum of the absolute errors of the gaps, whose
distribution follows from how gaps differ between blocks of rows. A calibrated model's interval begins at 0 or below,
and a bound is broken in at most 2.5 % of holdouts of a model that keeps it.
"""

from dataclasses import dataclass

import numpy as np

from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import GuardrailResult
from ml_platform.training.evaluation.cluster_interval import Replicates
from ml_platform.training.evaluation.contenders import Contender, JudgedRows
from ml_platform.training.evaluation.guardrails.result import measured, not_computed

BINS = 10
_DRAWS = 4_000


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error with its interval."""

    value: float
    lower: float
    upper: float
    by_chance: float  # what a model without any would show on average


def calibration_error(
    y: np.ndarray, score: np.ndarray, *, blocks: np.ndarray, confidence: float = 0.95, quantile: float | None = None
) -> CalibrationError | None:
    """Expected calibration error, over ten bins of equally many rows.

    Parameters
    ----------
    y
        Labels (rows,): 0 and 1, or classes from 0, -1 for one that is not known; of a quantile the numbers.
    score
        Probabilities (rows,), or (rows × classes), of which the mean over classes is taken; of a quantile its
        predictions (rows,), whose error is the gap between the share of labels at or below it and the quantile.
    blocks
        Block of each row (rows,).
    confidence
        Of the two-sided interval.
    quantile
        Of a regression that gives one.

    Returns
    -------
    CalibrationError or None
        None where the rows make fewer than two blocks.

    Examples
    --------
    >>> p, days = np.tile([0.2, 0.8], 500), np.repeat(np.arange(20), 50)
    >>> y = (np.arange(1000) % 10 < 5).astype(float)
    >>> round(calibration_error(y, p, blocks=days).value, 3)
    0.4
    """
    replicates = Replicates.of(blocks, None)
    if replicates is None:
        return None
    columns = score[:, None] if score.ndim == 1 else score
    cells, gaps = [], []
    for number in range(columns.shape[1]):
        happened = y <= score if quantile is not None else (y > 0.5 if score.ndim == 1 else y == number)
        predicted = quantile if quantile is not None else columns[:, number]
        bins = _bins(columns[:, number])
        cells.append(np.eye(BINS)[bins])
        gaps.append(cells[-1] * (happened - predicted)[:, None])
    counts = replicates.sums(np.hstack(cells)) / len(y)  # groups × cells
    sums = replicates.sums(np.hstack(gaps)) / len(y)
    total, share = sums.sum(axis=0), counts.sum(axis=0)
    deviations = sums - counts * np.where(share > 0, total / np.where(share > 0, share, 1.0), 0.0)
    groups = replicates.groups
    rng = np.random.default_rng(0)
    errors = rng.standard_normal((_DRAWS, groups)) @ deviations * np.sqrt(groups / (groups - 1))
    errors /= np.sqrt(rng.chisquare(groups - 1, (_DRAWS, 1)) / (groups - 1))  # t, as the errors are estimated too
    sizes = np.abs(errors).sum(axis=1) / columns.shape[1]
    value, reach = float(np.abs(total).sum() / columns.shape[1]), float(np.quantile(sizes, (1 + confidence) / 2))
    return CalibrationError(value, max(0.0, value - reach), min(1.0, value + reach), float(sizes.mean()))


def _bins(score: np.ndarray) -> np.ndarray:
    """Number of each row's bin; equal scores are in the same one."""
    edges = np.unique(np.quantile(score, np.arange(1, BINS) / BINS))
    return np.searchsorted(edges, score, side="right")


def calibration_guardrail(spec: ModelSpec, rows: JudgedRows, own: Contender) -> list[GuardrailResult]:
    """Hold the expected calibration error to its bound; nothing for a regression of the mean."""
    if spec.task == "regression" and spec.quantile is None:
        return []
    promotion, bound = spec.promotion, spec.promotion.guardrails.max_calibration_error
    found = calibration_error(
        rows.y, own.scores, blocks=rows.blocks, confidence=promotion.confidence, quantile=spec.quantile
    )
    if found is None:
        why = f"the rows make fewer than two blocks (promotion.block: {promotion.block})"
        return [not_computed(promotion, "calibration", bound, why)]
    said = (
        f"the expected calibration error is {found.value:.4f} ({100 * promotion.confidence:.4g}% interval "
        f"{found.lower:.4f} to {found.upper:.4f}; chance alone makes {found.by_chance:.4f})"
    )
    if bound is not None:
        said += f", {bound:g} is allowed"
    return [
        measured(promotion, "calibration", found.value, bound, said, lower=found.lower, upper=found.upper),
    ]
