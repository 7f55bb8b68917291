"""All guardrails of a comparison, in one list."""

from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import GuardrailResult, SliceResult, Support
from ml_platform.training.evaluation.contenders import Contender, JudgedRows
from ml_platform.training.evaluation.guardrails.calibration import calibration_guardrail
from ml_platform.training.evaluation.guardrails.fairness import fairness_guardrails
from ml_platform.training.evaluation.guardrails.slices import slice_guardrails
from ml_platform.training.evaluation.guardrails.stability import stability_guardrails
from ml_platform.training.evaluation.guardrails.support import support_guardrails


def compared_guardrails(
    spec: ModelSpec,
    rows: JudgedRows,
    *,
    own: Contender,
    champion: Contender | None,
    reference: str,
    slices: tuple[SliceResult, ...],
    support: Support,
) -> tuple[GuardrailResult, ...]:
    """Judge a challenger by its answers to the holdout.

    Parameters
    ----------
    spec
        The model: its bounds.
    rows
        The holdout.
    own, champion
        The challenger's scores, and those of what serves; None before the first release.
    reference
        What the challenger has to beat, in words.
    slices, support
        As they were measured.
    """
    return (
        *support_guardrails(spec, support),
        *slice_guardrails(spec, reference, slices),
        *calibration_guardrail(spec, rows, own),
        *fairness_guardrails(spec, rows, own),
        *stability_guardrails(spec, rows, own, champion),
    )
