"""How a guardrail's number becomes a result: held, broken, or not computed."""

from ml_platform.spec.guardrails import GuardrailName
from ml_platform.spec.promotion import Promotion
from ml_platform.training.documents import UNCOMPUTED, GuardrailResult


def measured(
    promotion: Promotion,
    name: GuardrailName,
    value: float,
    bound: float | None,
    reason: str,
    *,
    of: str = "",
    passed: bool | None = None,
    lower: float | None = None,
    upper: float | None = None,
    at_least: bool = False,
) -> GuardrailResult:
    """Judge a number.

    Parameters
    ----------
    promotion
        Says which guardrails are optional.
    name, of
        The guardrail, and the columns whose groups it judges.
    value
        What was found.
    bound
        What it is held to; None where it is only shown.
    reason
        What was found and wanted, in words without a full stop.
    passed
        The verdict, where it takes more than the number and its bound.
    lower, upper
        Interval of a number that chance moves. Such a number breaks its bound only where its whole interval does.
    at_least
        Whether the bound is a smallest value.
    """
    if passed is None:
        surest = value if lower is None else lower
        passed = bound is None or (value >= bound if at_least else surest <= bound)
        if passed and lower is not None and bound is not None and value > bound:
            reason += "; more was found, which may be chance"
    return GuardrailResult(
        name=name,
        of=of,
        value=value,
        lower=lower,
        upper=upper,
        bound=bound,
        at_least=at_least,
        passed=passed,
        optional=name in promotion.guardrails.optional,
        reason=reason,
    )


def not_computed(
    promotion: Promotion, name: GuardrailName, bound: float | None, reason: str, *, of: str = ""
) -> GuardrailResult:
    """Say why there is no number: a failure, unless there is no bound or the guardrail is optional."""
    optional = name in promotion.guardrails.optional
    return GuardrailResult(
        name=name,
        of=of,
        value=None,
        bound=bound,
        passed=bound is None or optional,
        optional=optional,
        reason=f"{name} {UNCOMPUTED}: {reason}",
    )


def not_applicable(promotion: Promotion, name: GuardrailName, bound: float | None, reason: str) -> GuardrailResult:
    """Say why there is nothing to hold to a bound yet; that refuses nothing."""
    return GuardrailResult(
        name=name,
        value=None,
        bound=bound,
        passed=True,
        optional=name in promotion.guardrails.optional,
        reason=reason,
    )
