"""The gate's guardrail on requests that were really sent: what a replay finds of a challenger."""

from ml_platform.lake.storage.damage import TableDamaged
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.replay.documents import ReplayReport
from ml_platform.monitoring.replay.keep import keep
from ml_platform.monitoring.replay.replay import Challenger, replay
from ml_platform.promotion.declared import DeclaredModel
from ml_platform.registry.releases import ReleaseStore
from ml_platform.registry.tracking import Tracker
from ml_platform.training.documents import GuardrailResult
from ml_platform.training.evaluation.guardrails.result import measured, not_applicable, not_computed


def replay_guardrail(
    lake: Lake, store: ReleaseStore, declared: DeclaredModel, digest: str, *, tracker: Tracker
) -> tuple[GuardrailResult, ...]:
    """Hold a challenger to `promotion.guardrails.replay`; nothing where that is not declared.

    The number is the loss to the champion in the gate's metric, on labelled logged rows that neither has learned from.
    It breaks its bound where its whole interval is above it. Without a log, labels or days enough it is not computed.
    The report is kept as of any replay.

    Parameters
    ----------
    lake, store
        Hold the log and the bundles.
    declared
        The model: its bounds, and the spine that gives the labels.
    digest
        The challenger's bundle.
    tracker
        Keeps the report with the challenger's run.
    """
    spec = declared.spec
    promotion, rule = spec.promotion, spec.promotion.guardrails.replay
    if rule is None:
        return ()
    bound = rule.max_loss
    if store.endpoint(spec.name) is None:
        return (
            not_applicable(promotion, "replay", bound, "nothing serves yet whose requests could be answered again"),
        )
    try:
        report = replay(lake, store, declared, Challenger(digest, f"bundle {digest[:12]}"), days=rule.days)
    except TableDamaged as error:
        return (not_computed(promotion, "replay", bound, str(error)),)
    path = keep(store, tracker, report)
    comparison = report.comparison
    beside = [*_beside(report), f"report: {path.name}"]
    if comparison is None:
        missing = "; ".join(report.missing or report.reasons)
        return (
            not_computed(promotion, "replay", bound, f"insufficient data, wanted are {missing} ({', '.join(beside)})"),
        )
    said = f"{report.verdict}: {'; '.join(report.reasons)}, a loss of {bound:g} is allowed ({', '.join(beside)})"
    return (
        measured(promotion, "replay", -comparison.gain, bound, said, lower=-comparison.upper, upper=-comparison.lower),
    )


def _beside(report: ReplayReport) -> list[str]:
    """What is no verdict, and what a reader wants to know all the same."""
    facts = [f"{report.logged:,} logged rows"]
    if report.refused:
        facts.append(f"{report.refused:,} that it refuses")
    if report.difference is not None and report.difference.changed is not None:
        facts.append(f"{report.difference.changed:.1%} of decisions change")
    return facts
