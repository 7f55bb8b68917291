"""The checks of a training set's inputs: feature views are fresh, and no feature lost its values."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import dagster as dg

from ml_platform.features.training_sets.documents import TrainingSetRef
from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.metadata import table
from ml_platform.spec.model import ModelSpec

if TYPE_CHECKING:
    import polars as pl

    from ml_platform.features.training_sets.null_shares import NullCount
    from ml_platform.features.views.freshness import Freshness
    from ml_platform.lake.storage.tables import Lake

CHECKS = {
    "inputs_fresh": "Every feature view was computed from what its sources have by now (`input_checks` in defs.yaml).",
    "inputs_whole": "No feature's share of nulls jumped since the last accepted set (`input_checks` in defs.yaml).",
}


class Verdict(NamedTuple):
    """What a check found."""

    name: str
    failures: Sequence[str]
    warnings: Sequence[str]
    metadata: Mapping[str, dg.MetadataValue | str | int]


def check_inputs(
    lake: "Lake",
    spec: ModelSpec,
    views: Mapping[str, FeatureView],
    ref: TrainingSetRef,
    frame: "pl.DataFrame | pl.LazyFrame",
    *,
    accepted_because: str,
) -> list[dg.AssetCheckResult]:
    """Judge the inputs of a training set; one that passes, or was accepted, is what the next is compared with.

    Parameters
    ----------
    lake
        Where the tables are.
    spec
        The model.
    views
        Feature views by name.
    ref, frame
        The training set and its rows.
    accepted_because
        Why failures do not stop what follows; empty if they do.
    """
    from ml_platform.features.training_sets.null_shares import accept

    verdicts = [_fresh(lake, spec, views, ref), _whole(lake, spec, ref, frame)]
    if accepted_because or not any(verdict.failures for verdict in verdicts):
        accept(lake, spec.name, ref.version, _counts(spec, ref, frame))
    return [_result(verdict, accepted_because) for verdict in verdicts]


def _fresh(lake: "Lake", spec: ModelSpec, views: Mapping[str, FeatureView], ref: TrainingSetRef) -> Verdict:
    from ml_platform.features.views.freshness import check_freshness

    freshness: Freshness = check_freshness(
        lake, ref.tables, views, versions=ref.tables, max_lag=spec.input_checks.max_lag
    )
    warnings = [
        f"nobody recorded what features/{name} was computed from; materialise it once" for name in freshness.unknown
    ]
    return Verdict("inputs_fresh", freshness.reasons, warnings, {"views": ", ".join(freshness.views) or "none"})


def _whole(lake: "Lake", spec: ModelSpec, ref: TrainingSetRef, frame: "pl.DataFrame | pl.LazyFrame") -> Verdict:
    from ml_platform.features.training_sets.null_shares import find_jumps, last_accepted, wholly_null

    counts, before = _counts(spec, ref, frame), last_accepted(lake, spec.name)
    jumps = find_jumps(counts, before, spec.input_checks)
    warnings = [f"{name} is null in every row" for name in wholly_null(counts)]
    known = {(count.part, count.feature): count for count in before}
    ranked = sorted(counts, key=lambda count: -count.share)
    shares = [
        {"feature": now.feature, "part": now.part, "null share": now.share, "before": old.share if old else None}
        for now, old in ((count, known.get((count.part, count.feature))) for count in ranked)
        if now.nulls
    ]
    metadata: dict[str, dg.MetadataValue | str | int] = {"compared with a set before": "yes" if before else "no"}
    if shares:
        metadata["nulls"] = table(shares[:30])
    return Verdict("inputs_whole", [jump.reason for jump in jumps], warnings, metadata)


def _counts(spec: ModelSpec, ref: TrainingSetRef, frame: "pl.DataFrame | pl.LazyFrame") -> "list[NullCount]":
    from ml_platform.features.training_sets.null_shares import count_nulls

    names = [info.name for info in ref.features]
    return count_nulls(frame, names, timestamp=spec.timestamp, newest=spec.split.holdout)


def _result(verdict: Verdict, accepted_because: str) -> dg.AssetCheckResult:
    description = "; ".join([*verdict.failures, *verdict.warnings])
    failed = bool(verdict.failures)
    if failed and accepted_because:
        description = f"accepted because {accepted_because}: {description}"
    elif failed:
        description += ". If this is right, run again with `accept_inputs_because` in the run's configuration"
    blocks = failed and not accepted_because
    return dg.AssetCheckResult(
        check_name=verdict.name,
        passed=not verdict.failures and not verdict.warnings,
        severity=dg.AssetCheckSeverity.ERROR if blocks else dg.AssetCheckSeverity.WARN,
        description=description or None,
        metadata={"failures": len(verdict.failures), "warnings": len(verdict.warnings), **verdict.metadata},
    )
