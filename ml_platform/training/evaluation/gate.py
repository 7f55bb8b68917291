"""The promotion gate: from a comparison on the same rows to a decision, with its reasons in words and numbers."""

from collections.abc import Sequence

from ml_platform.spec.model import ModelSpec
from ml_platform.training.documents import Evaluation, Interval, SliceResult, Support
from ml_platform.training.evaluation.blocks import blocks_in_words
from ml_platform.training.evaluation.rule import rule_of

NAIVE = "naive baseline"
_MOST_SLICES = 3  # named in a reason; the rest are in the table

Verdict = tuple[bool, str]


def decide(spec: ModelSpec, compared: Evaluation) -> tuple[bool, tuple[str, ...]]:
    """Judge a challenger against its reference (the champion, or the naive baseline before the first release).

    Parameters
    ----------
    spec
        The model; its `promotion` is the rule.
    compared
        What was measured: metrics of all sides, intervals of the gains, support, tries, slices, latency, parity.

    Returns
    -------
    tuple
        Whether to promote, and one reason per condition: what was found, what was wanted, and whether it passed. Where
        the rows cannot tell, the reasons say "No verdict".
    """
    short = shortages(spec, compared.support) if compared.support else ["there are no rows to compare on"]
    if short:
        return False, (
            "Do not promote: no verdict, the holdout is too small for one.",
            *(f"Failed: {text}." for text in short),
        )
    verdicts = [
        _varies(compared),
        _gain(spec, compared),
        *(
            _ahead(spec, compared, value, interval, name)
            for value, interval, name in (
                (compared.naive.get(spec.metric), compared.over_naive, NAIVE),
                (None, compared.over_chance, "best constant answer"),
            )
            if name != compared.reference
        ),
        _slices(spec, compared.reference, compared.slices),
        (
            compared.latency_ms <= spec.promotion.max_latency_ms,
            f"a one-row prediction takes {compared.latency_ms:.3f} ms, {spec.promotion.max_latency_ms:g} ms are "
            "allowed",
        ),
        (
            compared.parity.max_difference <= compared.parity.tolerance,
            f"the exported graph differs from the trained model by at most {compared.parity.max_difference:.1e} on "
            f"{compared.parity.rows:,} rows, {compared.parity.tolerance:.0e} are allowed",
        ),
    ]
    judged = [verdict for verdict in verdicts if verdict is not None]
    passed = all(ok for ok, _ in judged)
    summary = f"{'Promote' if passed else 'Do not promote'}: the challenger {'passes' if passed else 'fails'} the gate."
    return passed, (summary, *(f"{'Passed' if ok else 'Failed'}: {text}." for ok, text in judged))


def shortages(spec: ModelSpec, support: Support) -> list[str]:
    """Say what there is too little of for an interval to mean something; nothing where the rows suffice."""
    rule, found = spec.promotion, []
    if support.rows < rule.min_rows:
        found.append(f"the holdout has {support.rows:,} rows, promotion.min_rows wants {rule.min_rows:,}")
    if support.class_rows is not None and support.class_rows < rule.min_class_rows:
        found.append(
            f"{support.class_rows:,} holdout rows are of another class than the most frequent, "
            f"promotion.min_class_rows wants {rule.min_class_rows:,}"
        )
    if support.blocks < rule.min_blocks:
        found.append(
            f"the holdout has {blocks_in_words(support.blocks, rule.block)}, promotion.min_blocks wants "
            f"{rule.min_blocks}"
        )
    elif support.effective_blocks < rule.min_blocks / 2:
        found.append(
            f"a few of {blocks_in_words(support.blocks, rule.block)} hold most holdout rows: they tell as much as "
            f"{support.effective_blocks:.1f} equally large ones, half of promotion.min_blocks = {rule.min_blocks} is "
            "wanted"
        )
    if found:
        found[-1] += "; lengthen split.holdout" + (
            ", or set promotion.block: rows if each row stands for itself" if rule.block != "rows" else ""
        )
    return found


def _varies(compared: Evaluation) -> Verdict | None:
    if compared.support is None or not compared.support.constant:
        return None
    return False, "the challenger gives every holdout row the same answer"


def _gain(spec: ModelSpec, compared: Evaluation) -> Verdict:
    holdout, interval, reference = compared.holdout, compared.interval, compared.reference
    sides = compared.naive if reference == NAIVE else (compared.champion or {})
    rows = "the holdout"
    if holdout is not None:
        rows = f"{holdout.rows:,} unseen rows ({holdout.first:%Y-%m-%d} to {holdout.last:%Y-%m-%d})"
    if interval is None or spec.metric not in sides:
        return False, (
            f"{spec.metric} is undefined on {rows}, or without one of their blocks (promotion.block: "
            f"{spec.promotion.block}); lengthen split.holdout or choose another metric"
        )
    rule = rule_of(
        spec.promotion, spec.metric, reference=sides[spec.metric], tries=compared.tries, first=reference == NAIVE
    )
    wanted = f"lower bound wanted above {rule.bound:+g}"
    if rule.min_gain:
        wanted = f"gain wanted of at least {rule.min_gain:+.4g}, {wanted}"
    if compared.tries > 1:
        wanted += (
            f", this sure because other challengers were judged on these rows before (try number {compared.tries:.3g})"
        )
    return rule.allows(interval.gain, interval.lower), (
        f"{spec.metric} {compared.challenger[spec.metric]:.4f} against {sides[spec.metric]:.4f} of the {reference} on "
        f"{rows}: gain {in_words(interval)}, {wanted}"
    )


def in_words(interval: Interval) -> str:
    """Write a gain with its interval.

    Examples
    --------
    >>> in_words(
    ...     Interval(
    ...         gain=0.01, lower=-0.002, upper=0.022, confidence=0.95, standard_error=0.006, blocks=28, block="day"
    ...     )
    ... )
    '+0.0100, 95% interval -0.0020 to +0.0220 over 28 days'
    """
    blocks = blocks_in_words(interval.blocks, interval.block)
    confidence = f"{100 * interval.confidence:.4g}%"
    return f"{interval.gain:+.4f}, {confidence} interval {interval.lower:+.4f} to {interval.upper:+.4f} over {blocks}"


def _ahead(
    spec: ModelSpec, compared: Evaluation, value: float | None, interval: Interval | None, name: str
) -> Verdict | None:
    """Whether the challenger is ahead of an answer that needs no model, by more than chance."""
    if spec.metric not in compared.challenger:
        return None  # the gain says so already
    if interval is None:
        return False, f"{spec.metric} of the {name} is undefined on the holdout"
    against = "" if value is None else f"{spec.metric} {compared.challenger[spec.metric]:.4f} against {value:.4f}: "
    return interval.lower > 0, f"gain over the {name}: {against}{in_words(interval)}, lower bound wanted above 0"


def _slices(spec: ModelSpec, reference: str, slices: Sequence[SliceResult]) -> Verdict | None:
    if not spec.promotion.slices:
        return None
    allowed, columns = spec.promotion.max_slice_loss, ", ".join(spec.promotion.slices)
    if not slices:
        return True, f"no group of {columns} has {spec.promotion.min_slice_rows} rows to be guarded"
    worst = sorted(slices, key=lambda result: -result.loss)
    failed = [result for result in worst if not result.passed]
    named = "; ".join(
        f"{result.column} {result.value}: {result.challenger:.4f} against {result.reference:.4f} on {result.rows:,} "
        "rows"
        for result in (failed or worst[:1])[:_MOST_SLICES]
    )
    if failed:
        return False, f"{len(failed)} of {len(slices)} groups lose more than {allowed:g} to the {reference} ({named})"
    return True, (
        f"none of {len(slices)} groups of {columns} loses more than {allowed:g} to the {reference} (worst: {named})"
    )
