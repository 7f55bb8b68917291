"""Runs a challenger over the logged requests of some days, and says how it does beside the champion.

Features are those that were served. Where labels have come, both are scored on the rows that neither has learned
from; the interval of the gain takes the rows of one day for alike. Nothing is released, and no table is written.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from ml_platform.lake.storage.damage import reading_files_of
from ml_platform.lake.storage.tables import Lake
from ml_platform.monitoring.champion import get_champion, load_scorer
from ml_platform.monitoring.replay.contestant import Contestant
from ml_platform.monitoring.replay.documents import LabelledComparison, ReplayReport, ReplayVerdict
from ml_platform.monitoring.replay.labelled import (
    Labels,
    compare_labelled,
    labelled_pairs,
    new_from,
    why_no_labels,
)
from ml_platform.monitoring.replay.pairs import replayed_pairs, shadow_pairs, window_of
from ml_platform.monitoring.replay.tally import Tally
from ml_platform.promotion.declared import DeclaredModel
from ml_platform.registry.releases import ReleaseStore
from ml_platform.training.evaluation.contenders import all_classes
from ml_platform.training.evaluation.evaluate import one_row_latency_ms


@dataclass(frozen=True)
class Challenger:
    """Which version is run: a registered one, or a run's candidate.

    Attributes
    ----------
    digest
        Its bundle.
    name
        In words.
    version
        Number in the registry; None for a candidate.
    """

    digest: str
    name: str
    version: int | None = None


def replay(
    lake: Lake,
    store: ReleaseStore,
    declared: DeclaredModel,
    challenger: Challenger,
    *,
    days: int = 7,
    shadow: bool = False,
) -> ReplayReport:
    """Answer the logged requests of the last days by a challenger, and compare with the champion.

    Parameters
    ----------
    lake, store
        Hold the log and the bundles.
    declared
        The model: its spine gives the labels.
    challenger
        What is run.
    days
        Up to the newest logged answer.
    shadow
        Compare what the challenger answered as a shadow, instead of running it now.

    Returns
    -------
    ReplayReport
        `better` or `worse` when the interval of the gain says so, `no difference shown` when it holds 0, and
        `insufficient data` with what is missing.

    Raises
    ------
    LookupError
        When nothing serves, or the challenger's bundle is gone.
    ValueError
        When the challenger is the champion, or there are no days.
    BundleRefused
        When a bundle is damaged.
    TableDamaged
        When files of the log, or of what gives the labels, are.
    """
    if days < 1:
        raise ValueError(f"days: wanted a number from 1 on, found {days}")
    spec, started = declared.spec, time.perf_counter()
    target, _ = get_champion(store, spec.name)
    if target.digest == challenger.digest:
        raise ValueError(f"{challenger.name} is the champion itself: name another version")
    store.read_bundle(challenger.digest)
    scorers = load_scorer(store, target.digest), load_scorer(store, challenger.digest)
    both = tuple(Contestant(scorer, lake, store, declared.views) for scorer in scorers)
    if scorers[1].manifest.task != scorers[0].manifest.task or scorers[1].manifest.model != spec.name:
        raise ValueError(
            f"{challenger.name} is of {scorers[1].manifest.model} ({scorers[1].manifest.task}): no challenger"
        )
    report = ReplayReport(
        model=spec.name,
        champion_version=target.version,
        champion_digest=target.digest,
        challenger=challenger.name,
        challenger_version=challenger.version,
        challenger_digest=challenger.digest,
        source="shadow" if shadow else "replay",
        at=datetime.now(UTC),
        latency_ms=one_row_latency_ms(scorers[1], store),
        champion_latency_ms=one_row_latency_ms(scorers[0], store),
        verdict="insufficient data",
        reasons=("no request was logged",),
        missing=(f"logged requests: `inference_log/{spec.name}` has none; let the server answer, then materialise it",),
    )
    tally, classes = Tally(spec.task), all_classes(scorers)
    with reading_files_of(f"inference_log/{spec.name}", "the tables of its spine"):
        window = window_of(lake, spec.name, days)
        if window is None:
            return report
        log, since, until = window
        if shadow:
            versions = target.version, challenger.version or 0
            pairs = shadow_pairs(lake, spec.name, log, both[0], both[1], versions, classes, tally)
        else:
            pairs = replayed_pairs(log, both[0], both[1], classes, tally)
        labels = Labels.read(lake, declared, scorers[0].manifest, log)
        sample, counted = labelled_pairs(pairs, labels, new_from(scorers))
    report = report.model_copy(
        update={
            "since": since,
            "until": until,
            "logged": tally.logged,
            "weight": tally.logged_weight,
            "answered": tally.answered,
            "refused": tally.refused,
            "refusals": dict(tally.refusals.most_common()),
            "flagged": dict(tally.flagged.most_common()),
            "unscored": tally.unscored,
            "incomparable": dict(tally.incomparable.most_common()),
            "difference": tally.difference(),
            "labelled": counted.labelled,
            "notes": (*both[1].notes, *_sampled(tally)),
        }
    )
    comparison, missing = compare_labelled(spec, sample, scorers, classes)
    missing = (
        [*_why_no_rows(tally, shadow=shadow), *why_no_labels(counted, scorers), *missing] if not comparison else []
    )
    verdict, reasons = _verdict(comparison, missing)
    return report.model_copy(
        update={
            "comparison": comparison,
            "missing": tuple(missing),
            "verdict": verdict,
            "reasons": tuple(reasons),
            "seconds": time.perf_counter() - started,
        }
    )


def _verdict(comparison: LabelledComparison | None, missing: list[str]) -> tuple[ReplayVerdict, list[str]]:
    if comparison is None:
        return "insufficient data", [f"not judged: {missing[0] if missing else 'no row was answered by both'}"]
    verdict: ReplayVerdict = (
        "better" if comparison.lower > 0 else "worse" if comparison.upper < 0 else "no difference shown"
    )
    return verdict, [
        f"{comparison.metric} {comparison.challenger:.4f} against {comparison.champion:.4f} on {comparison.rows:,} "
        f"labelled rows of {comparison.days} days: gain {comparison.gain:+.4f}, {comparison.confidence:.0%} interval "
        f"{comparison.lower:+.4f} to {comparison.upper:+.4f}, rows of one day being alike"
    ]


def _why_no_rows(tally: Tally, *, shadow: bool) -> list[str]:
    if tally.rows:
        return []
    if not tally.logged:
        return [
            "logged requests of these days that the champion answered" if shadow else "logged requests of these days"
        ]
    reasons = [f"{reason} ({count:,} rows)" for reason, count in tally.incomparable.most_common()]
    if tally.refused:
        reasons.append(f"the challenger refuses {tally.refused:,} of {tally.logged:,} rows by its own contract")
    return reasons or ["no row has a finite score of both"]


def _sampled(tally: Tally) -> list[str]:
    if not tally.logged or tally.logged_weight <= tally.logged * 1.001:
        return []
    each = tally.logged_weight / tally.logged
    return [f"the log is a sample: each of its rows stands for {each:.3g} answered ones, and counts as many"]
