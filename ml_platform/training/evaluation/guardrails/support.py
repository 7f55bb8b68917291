"""Whether the holdout can tell at all: enough rows, rows of the rarer classes, and blocks."""

from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import GuardrailResult, Support
from ml_platform.training.evaluation.blocks import blocks_in_words
from ml_platform.training.evaluation.guardrails.result import measured


def support_guardrails(spec: ModelSpec, support: Support) -> list[GuardrailResult]:
    """Hold rows, rows of other classes than the most frequent, and blocks to their smallest numbers."""
    rule = spec.promotion
    results = [
        measured(
            rule,
            "rows",
            support.rows,
            rule.min_rows,
            f"the holdout has {support.rows:,} rows, promotion.min_rows wants {rule.min_rows:,}",
            at_least=True,
        )
    ]
    if support.class_rows is not None:
        said = (
            f"{support.class_rows:,} holdout rows are of another class than the most frequent, "
            f"promotion.min_class_rows wants {rule.min_class_rows:,}"
        )
        results.append(measured(rule, "class_rows", support.class_rows, rule.min_class_rows, said, at_least=True))
    few = support.blocks >= rule.min_blocks and support.effective_blocks < rule.min_blocks / 2
    there = blocks_in_words(support.blocks, rule.block)
    said = (
        f"a few of {there} hold most holdout rows: they tell as much as {support.effective_blocks:.1f} equally large "
        f"ones, half of promotion.min_blocks = {rule.min_blocks} is wanted"
        if few
        else f"the holdout has {there}, promotion.min_blocks wants {rule.min_blocks}"
    )
    enough = support.blocks >= rule.min_blocks and not few
    results.append(measured(rule, "blocks", support.blocks, rule.min_blocks, said, passed=enough, at_least=True))
    return results


def shortages(spec: ModelSpec, support: Support) -> list[str]:
    """Say what there is too little of for an interval to mean something; nothing where the rows suffice."""
    reasons = [result.reason for result in support_guardrails(spec, support) if not result.passed]
    if reasons:
        reasons[-1] += "; lengthen split.holdout" + (
            ", or set promotion.block: rows if each row stands for itself" if spec.promotion.block != "rows" else ""
        )
    return reasons
