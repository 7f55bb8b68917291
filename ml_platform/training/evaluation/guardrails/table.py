"""Guardrails as rows of texts, for tables in the Dagster UI and lines in a terminal."""

from collections.abc import Sequence

from ml_platform.training.documents import Evaluation, GuardrailResult
from ml_platform.training.evaluation.power import in_words

_COLUMNS = ("guardrail", "value", "bound", "verdict")


def guardrail_rows(results: Sequence[GuardrailResult]) -> list[dict[str, str]]:
    """One row for each: what was found, what it is held to, the verdict, and the reason in words.

    Examples
    --------
    >>> held = GuardrailResult(name="latency", value=0.03, bound=5.0, passed=True, reason="fast")
    >>> guardrail_rows([held])
    [{'guardrail': 'latency', 'value': '0.03', 'bound': '≤ 5', 'verdict': 'held', 'reason': 'fast'}]
    """
    return [
        {
            "guardrail": result.title + (" (optional)" if result.optional else ""),
            "value": _value(result),
            "bound": "" if result.bound is None else f"{'≥' if result.at_least else '≤'} {_number(result.bound)}",
            "verdict": result.verdict,
            "reason": result.reason,
        }
        for result in results
    ]


def guardrail_lines(results: Sequence[GuardrailResult]) -> list[str]:
    """Lines of a terminal, with the reasons of those that do not hold.

    Examples
    --------
    >>> held = GuardrailResult(name="latency", value=0.03, bound=5.0, passed=True, reason="fast")
    >>> for line in guardrail_lines([held]):
    ...     print(line)
    guardrail  value  bound  verdict
    latency    0.03   ≤ 5    held
    """
    rows = guardrail_rows(results)
    table = [dict(zip(_COLUMNS, _COLUMNS, strict=True)), *rows]
    widths = {column: max(len(row[column]) for row in table) for column in _COLUMNS}
    lines = ["  ".join(f"{row[column]:<{widths[column]}}" for column in _COLUMNS).rstrip() for row in table]
    unusual = [row for row in rows if row["verdict"] in {"broken", "not computed"}]
    return lines + [f"{row['guardrail']}, {row['verdict']}: {row['reason']}" for row in unusual]


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    """Lines of a terminal below the verdict: every guardrail, and what so many blocks can show."""
    power = evaluation.power
    return [
        *(guardrail_lines(evaluation.guardrails) if evaluation.guardrails else ()),
        *([f"Power, at a first try: {in_words(power)}."] if power else ()),
    ]


def _value(result: GuardrailResult) -> str:
    if result.value is None:
        return "–"
    if result.lower is None:
        return _number(result.value)
    between = f"{result.lower:.3g} to {result.upper:.3g}" if result.upper is not None else f"from {result.lower:.3g}"
    return f"{_number(result.value)} ({between})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
