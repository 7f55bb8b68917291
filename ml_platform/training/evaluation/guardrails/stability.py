"""How much changes for those who ask: decisions that flip, and scores that move, against the champion's.

A new version may be better on average and yet answer many rows otherwise, on which people and programs have come to
rely. Both numbers are of the same rows for both models; their intervals over blocks say how sure they are for others.
"""

import numpy as np

from ml_platform.spec.guardrails import GuardrailName
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import GuardrailResult
from ml_platform.training.evaluation.cluster_interval import ClusterInterval, Replicates
from ml_platform.training.evaluation.contenders import Contender, JudgedRows
from ml_platform.training.evaluation.guardrails.result import measured, not_applicable, not_computed

_BINS = 10
_PRIOR = 0.5  # rows that each bin has beforehand, so that an empty one gives a number


def changed_decisions(
    own: np.ndarray, other: np.ndarray, *, blocks: np.ndarray, confidence: float = 0.95
) -> ClusterInterval | None:
    """Share of rows whose decisions (rows,) differ; None where the rows make fewer than two blocks.

    Examples
    --------
    >>> found = changed_decisions(np.tile([1, 0], 50), np.ones(100), blocks=np.repeat(np.arange(20), 5))
    >>> found.estimate
    0.5
    """
    replicates = Replicates.of(blocks, None)
    if replicates is None:
        return None
    counts = replicates.table((own != other).astype(np.int64), 2)
    left_out = counts.sum(axis=0) - np.vstack([np.zeros(2), counts])
    return replicates.interval(left_out[:, 1] / left_out.sum(axis=1), confidence, (0.0, 1.0))


def score_shift(
    own: np.ndarray, other: np.ndarray, *, blocks: np.ndarray, confidence: float = 0.95
) -> ClusterInterval | None:
    """Population stability index of scores against another model's, on the deciles of the latter's.

    Parameters
    ----------
    own, other
        Scores (rows,), or (rows × classes), of which the mean over classes is taken.
    blocks
        Block of each row (rows,).
    confidence
        Of the two-sided interval.

    Examples
    --------
    >>> scores = np.linspace(0, 1, 1000)
    >>> found = score_shift(scores**2, scores, blocks=np.arange(1000) % 20)
    >>> 0.2 < found.estimate < 0.4
    True
    """
    replicates = Replicates.of(blocks, None)
    if replicates is None:
        return None
    own, other = (scores[:, None] if scores.ndim == 1 else scores for scores in (own, other))
    counts = []
    for new, old in zip(own.T, other.T, strict=True):
        edges = np.unique(np.quantile(old, np.arange(1, _BINS) / _BINS))
        counts += [replicates.table(np.searchsorted(edges, scores, side="right"), _BINS) for scores in (new, old)]
    sums = np.hstack(counts)
    left_out = (sums.sum(axis=0) - np.vstack([np.zeros(sums.shape[1]), sums])).reshape(len(sums) + 1, -1, 2, _BINS)
    share = (left_out + _PRIOR) / (left_out + _PRIOR).sum(axis=3, keepdims=True)
    new_share, old_share = share[:, :, 0], share[:, :, 1]
    values = ((new_share - old_share) * np.log(new_share / old_share)).sum(axis=2).mean(axis=1)
    return replicates.interval(values, confidence, (0.0, np.inf))


def stability_guardrails(
    spec: ModelSpec, rows: JudgedRows, own: Contender, champion: Contender | None
) -> list[GuardrailResult]:
    """Hold what changes to its bounds; with no champion nothing does."""
    promotion, bounds = spec.promotion, spec.promotion.guardrails
    wanted: dict[GuardrailName, float | None] = {}
    if spec.task != "regression":
        wanted["changed_decisions"] = bounds.max_changed_decisions
    wanted["score_shift"] = bounds.max_score_shift
    if champion is None:
        why = "nothing serves yet that would be replaced"
        return [not_applicable(promotion, name, bound, why) for name, bound in wanted.items()]
    results = []
    for name, bound in wanted.items():
        sides = (own.scores, champion.scores) if name == "score_shift" else (_decisions(own), _decisions(champion))
        compare = score_shift if name == "score_shift" else changed_decisions
        found = compare(*sides, blocks=rows.blocks, confidence=promotion.confidence)
        if found is None:
            why = f"the rows make fewer than two blocks (promotion.block: {promotion.block})"
            results.append(not_computed(promotion, name, bound, why))
            continue
        said = _in_words(name, found) + (f", {bound:g} is allowed" if bound is not None else "")
        results.append(measured(promotion, name, found.estimate, bound, said, lower=found.lower, upper=found.upper))
    return results


def _in_words(name: GuardrailName, found: ClusterInterval) -> str:
    what, digits = "the scores' population stability index against the champion's is", ".3f"
    if name == "changed_decisions":
        what, digits = "the share of rows with another answer than the champion's is", ".1%"
    return (
        f"{what} {found.estimate:{digits}} ({100 * found.confidence:.4g}% interval {found.lower:{digits}} to "
        f"{found.upper:{digits}})"
    )


def _decisions(side: Contender) -> np.ndarray:
    if side.scores.ndim > 1:
        return side.scores.argmax(axis=1)
    return side.scores >= (0.5 if side.threshold is None else side.threshold)
