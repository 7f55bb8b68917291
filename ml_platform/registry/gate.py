"""The promotion gate: from a comparison on the same rows to a decision, with its reasons in words and numbers."""

from collections.abc import Sequence

from ml_platform.spec import ModelSpec
from ml_platform.training.documents import Interval, ParityReport, SliceResult, Window

NAIVE = "naive baseline"
_MOST_SLICES = 3  # named in a reason; the rest are in the table


def decide(
    spec: ModelSpec,
    *,
    reference: str,
    challenger: dict[str, float],
    compared: dict[str, float],
    naive: dict[str, float],
    interval: Interval | None,
    slices: Sequence[SliceResult],
    latency_ms: float,
    parity: ParityReport,
    holdout: Window,
) -> tuple[bool, tuple[str, ...]]:
    """Judge a challenger against its reference (the champion, or the naive baseline before the first release).

    Returns
    -------
    tuple
        Whether to promote, and one reason per condition: what was found, what was wanted, and whether it passed.
    """
    verdicts = [
        _gain(spec, reference, challenger=challenger, compared=compared, interval=interval, holdout=holdout),
        _naive(spec, challenger, naive) if reference != NAIVE else None,
        _slices(spec, reference, slices),
        (
            latency_ms <= spec.promotion.max_latency_ms,
            f"a one-row prediction takes {latency_ms:.3f} ms, {spec.promotion.max_latency_ms:g} ms are allowed",
        ),
        (
            parity.max_difference <= parity.tolerance,
            f"the exported graph differs from the trained model by at most {parity.max_difference:.1e} on "
            f"{parity.rows:,} rows, {parity.tolerance:.0e} are allowed",
        ),
    ]
    judged = [verdict for verdict in verdicts if verdict is not None]
    passed = all(ok for ok, _ in judged)
    summary = f"{'Promote' if passed else 'Do not promote'}: the challenger {'passes' if passed else 'fails'} the gate."
    return passed, (summary, *(f"{'Passed' if ok else 'Failed'}: {text}." for ok, text in judged))


def _gain(
    spec: ModelSpec,
    reference: str,
    *,
    challenger: dict[str, float],
    compared: dict[str, float],
    interval: Interval | None,
    holdout: Window,
) -> tuple[bool, str]:
    rows = f"{holdout.rows:,} unseen rows ({holdout.first:%Y-%m-%d} to {holdout.last:%Y-%m-%d})"
    if interval is None:
        return False, f"{spec.metric} is undefined on {rows}; lengthen split.holdout or choose another metric"
    wanted = spec.promotion.min_gain
    return interval.lower > wanted, (
        f"{spec.metric} {challenger[spec.metric]:.4f} against {compared[spec.metric]:.4f} of the {reference} on "
        f"{rows}: gain {interval.gain:+.4f}, {interval.confidence:.0%} interval {interval.lower:+.4f} to "
        f"{interval.upper:+.4f}, lower bound wanted above {wanted:+g}"
    )


def _naive(spec: ModelSpec, challenger: dict[str, float], naive: dict[str, float]) -> tuple[bool, str] | None:
    if spec.metric not in challenger or spec.metric not in naive:
        return None
    ahead = challenger[spec.metric] - naive[spec.metric]
    passed = ahead > 0 if spec.higher_is_better else ahead < 0
    return passed, f"{spec.metric} {challenger[spec.metric]:.4f} against {naive[spec.metric]:.4f} of the naive baseline"


def _slices(spec: ModelSpec, reference: str, slices: Sequence[SliceResult]) -> tuple[bool, str] | None:
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
