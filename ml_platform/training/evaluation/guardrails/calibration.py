"""Whether what is predicted happens as often as predicted: the expected calibration error, with an interval.

The error is a sum of absolute gaps, so chance alone makes it positive, and more so on few rows. Its interval allows for
that: the error found differs from the true one by at most the sum of the absolute errors of the gaps, whose
distribution follows from how gaps differ between blocks of rows. A calibrated model's interval begins at 0 or below,
and a bound is broken in at most 2.5 % of holdouts of a model that keeps it.
"""

from dataclasses import dataclass

import numpy as np

from ml_platform.spec.model import ModelSpec
from ml_platform.spec.types import Task
from ml_platform.training.documents import GuardrailResult
from ml_platform.training.evaluation.calibration import BINS, bins_of, said_and_happened
from ml_platform.training.evaluation.cluster_interval import Replicates
from ml_platform.training.evaluation.contenders import Contender, JudgedRows
from ml_platform.training.evaluation.guardrails.result import measured, not_computed

_DRAWS = 4_000


@dataclass(frozen=True)
class CalibrationError:
    """Expected calibration error with its interval."""

    value: float
    lower: float
    upper: float
    by_chance: float  # what a model without any would show on average


def calibration_error(
    task: Task,
    y: np.ndarray,
    score: np.ndarray,
    *,
    blocks: np.ndarray,
    confidence: float = 0.95,
    quantile: float | None = None,
) -> CalibrationError | None:
    """Expected calibration error (`evaluation.calibration`), with an interval over blocks.

    Parameters
    ----------
    task
        Kind of model.
    y
        Labels (rows,), as `encode_labels` gives them.
    score
        Probabilities (rows,), or (rows × classes), of which the most probable class counts; of a quantile its
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
    >>> round(calibration_error("binary", y, p, blocks=days).value, 3)
    0.4
    """
    replicates = Replicates.of(blocks, None)
    if replicates is None:
        return None
    if quantile is None:
        probability, outcome = said_and_happened(task, y, score)
        place = bins_of(probability)
    else:
        probability, outcome, place = np.full(len(y), quantile), y <= score, bins_of(score)
    counts = replicates.table(place, BINS) / len(y)  # groups × bins
    sums = replicates.table(place, BINS, outcome - probability) / len(y)
    total, share = sums.sum(axis=0), counts.sum(axis=0)
    deviations = sums - counts * (total / np.where(share > 0, share, 1.0))
    groups, rng = replicates.groups, np.random.default_rng(0)
    errors = rng.standard_normal((_DRAWS, groups)) @ deviations * np.sqrt(groups / (groups - 1))
    errors /= np.sqrt(rng.chisquare(groups - 1, (_DRAWS, 1)) / (groups - 1))  # t, as the errors are estimated too
    sizes = np.abs(errors).sum(axis=1)
    value, reach = float(np.abs(total).sum()), float(np.quantile(sizes, (1 + confidence) / 2))
    return CalibrationError(value, max(0.0, value - reach), min(1.0, value + reach), float(sizes.mean()))


def calibration_guardrail(spec: ModelSpec, rows: JudgedRows, own: Contender) -> list[GuardrailResult]:
    """Hold the expected calibration error to its bound; nothing for a regression of the mean."""
    if spec.task == "regression" and spec.quantile is None:
        return []
    promotion, bound = spec.promotion, spec.promotion.guardrails.max_calibration_error
    found = calibration_error(
        spec.task, rows.y, own.scores, blocks=rows.blocks, confidence=promotion.confidence, quantile=spec.quantile
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
