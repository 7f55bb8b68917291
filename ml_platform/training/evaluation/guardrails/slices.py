"""Groups of rows that must not lose: the gate's metric of both sides on each, and how sure a loss is."""

from collections.abc import Sequence

import numpy as np

from ml_platform.spec.guardrails import columns_of_set
from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import GuardrailResult, SliceResult
from ml_platform.training.evaluation.contenders import Contender, JudgedRows, contender, gain_of
from ml_platform.training.evaluation.guardrails.groups import Groups
from ml_platform.training.evaluation.guardrails.result import measured, not_computed
from ml_platform.training.evaluation.metrics import gain

_MOST_SLICES = 3  # named in a reason; the rest are in the table


def group_results(spec: ModelSpec, rows: JudgedRows, own: Contender, other: Contender) -> tuple[SliceResult, ...]:
    """The gate's metric on every large enough group of `promotion.slices` for which it is defined, for both.

    Of many groups that lose nothing, one seems to by chance. So a group fails only where its loss is above what is
    allowed *and* its interval, whose confidence is shared by all groups of the model (Bonferroni), is above 0. A group
    without an interval, as of one that occurs on a single day, is shown and does not fail.
    """
    chosen = [
        (groups, number)
        for groups in (Groups.by(rows.frame, one) for one in spec.promotion.slices)
        for number in np.flatnonzero(groups.sizes >= spec.promotion.min_slice_rows)
    ]
    confidence = 1 - (1 - spec.promotion.confidence) / max(1, len(chosen))
    results = []
    for groups, number in chosen:
        inside = groups.codes == number
        sides = [contender(spec, rows.y[inside], side.scores[inside], side.threshold) for side in (own, other)]
        values = [side.metrics.get(spec.metric) for side in sides]
        if values[0] is None or values[1] is None:
            continue
        loss = -float(gain(spec.metric, values[0], values[1]))
        interval = gain_of(spec, rows.y[inside], rows.blocks[inside], sides[0], sides[1], confidence=confidence)
        lower = None if interval is None else -interval.upper
        results.append(
            SliceResult(
                column=groups.of,
                value=groups.names[number],
                rows=int(inside.sum()),
                challenger=values[0],
                reference=values[1],
                loss=loss,
                lower=lower,
                passed=loss <= spec.promotion.max_slice_loss or lower is None or lower <= 0,
            )
        )
    return tuple(results)


def slice_guardrails(spec: ModelSpec, reference: str, results: Sequence[SliceResult]) -> list[GuardrailResult]:
    """One result for each entry of `promotion.slices`: the largest loss of its groups that fail, else of all."""
    return [
        _guardrail(spec, reference, name, [result for result in results if result.column == name])
        for name in dict.fromkeys(", ".join(columns_of_set(one)) for one in spec.promotion.slices)
    ]


def _guardrail(spec: ModelSpec, reference: str, of: str, results: Sequence[SliceResult]) -> GuardrailResult:
    promotion, allowed = spec.promotion, spec.promotion.max_slice_loss
    guarded = [result for result in results if result.lower is not None]
    if not guarded:
        why = (
            f"no group of {of} has {promotion.min_slice_rows} rows (promotion.min_slice_rows) on which {spec.metric} "
            "has an interval"
        )
        return not_computed(promotion, "slices", allowed, why, of=of)
    worst = sorted(guarded, key=lambda result: (result.passed, -result.loss))
    failed = [result for result in worst if not result.passed]
    named = "; ".join(
        f"{result.value}: {result.challenger:.4f} against {result.reference:.4f} on {result.rows:,} rows"
        for result in (failed or worst[:1])[:_MOST_SLICES]
    )
    if failed:
        said = f"{len(failed)} of {len(guarded)} groups of {of} lose more than {allowed:g} to the {reference} ({named})"
    elif worst[0].loss > allowed:
        said = (
            f"none of {len(guarded)} groups of {of} surely loses to the {reference}; more than {allowed:g}, which may "
            f"be chance: {named}"
        )
    else:
        said = f"none of {len(guarded)} groups of {of} loses more than {allowed:g} to the {reference} (worst: {named})"
    return measured(promotion, "slices", worst[0].loss, allowed, said, of=of, passed=not failed, lower=worst[0].lower)
