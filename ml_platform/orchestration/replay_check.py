"""The check that runs the newest version over logged requests, before somebody lets it serve."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.metadata import in_short, numbers, table
from ml_platform.orchestration.model_asset import key
from ml_platform.orchestration.resources import Platform
from ml_platform.spec.model import ModelSpec

if TYPE_CHECKING:
    from ml_platform.monitoring.replay.documents import ReplayReport

CHECK = "replay"


class ReplayConfig(dg.Config):
    """Run configuration of the check."""

    version: int | None = Field(None, description="The challenger; the newest registered version when empty.")
    days: int = Field(7, ge=1, description="Days of logged requests, up to the newest answer.")


def replay_check_key(spec: ModelSpec) -> dg.AssetCheckKey:
    """Key of the model's replay check."""
    return dg.AssetCheckKey(key(spec, "registered_version"), CHECK)


def replay_check(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> dg.AssetChecksDefinition:
    """Build the check of `<model>/registered_version` on logged requests."""

    @dg.asset_check(
        asset=key(spec, "registered_version"),
        name=CHECK,
        description="The newest version answers the logged requests of the last week no worse than the champion.",
    )
    def replay(config: ReplayConfig, platform: Platform) -> dg.AssetCheckResult:
        from ml_platform.monitoring.replay.keep import keep
        from ml_platform.monitoring.replay.replay import Challenger
        from ml_platform.monitoring.replay.replay import replay as run_replay
        from ml_platform.promotion.declared import DeclaredModel

        store = platform.releases
        endpoint, known = store.endpoint(spec.name), store.versions(spec.name)
        version = config.version or max(known, default=0)
        if version not in known:
            raise dg.Failure(f"{spec.name}: no version {version} is registered; there are {sorted(known) or 'none'}")
        if endpoint is None:
            return _not_run("nothing serves, so there is no champion and no log")
        if known[version] in {target.digest for target in endpoint.targets if target.mode == "live"}:
            return _not_run(f"version {version} serves already")
        report = run_replay(
            platform.lake,
            store,
            DeclaredModel(spec, folder, views),
            Challenger(known[version], f"version {version}", version),
            days=config.days,
            shadow=any(target.version == version for target in endpoint.targets),
        )
        path = keep(store, platform.tracker, report)
        return _result(report, path)

    return replay


def _not_run(reason: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, description=reason, metadata={"rows": 0})


def _result(report: "ReplayReport", path: Path) -> dg.AssetCheckResult:
    from ml_platform.monitoring.replay.pages import parts_of

    found, comparison = report.difference, report.comparison
    facts = [
        {"subject": title, "figure": name, "value": value} for title, rows in parts_of(report) for name, value in rows
    ]
    figures = {
        "decisions that change": found.changed if found else None,
        "mean difference": found.mean if found else None,
        "gain": comparison.gain if comparison else None,
        "gain lower bound": comparison.lower if comparison else None,
        "gain upper bound": comparison.upper if comparison else None,
    }
    return dg.AssetCheckResult(
        passed=report.verdict != "worse",
        severity=dg.AssetCheckSeverity.WARN,
        description=in_short([f"{report.challenger}: {report.verdict}", *report.reasons, *report.missing]),
        metadata={
            "verdict": report.verdict,
            "rows": report.logged,
            "refused": report.refused,
            **numbers({name: value for name, value in figures.items() if value is not None}),
            **({"figures": table(facts)} if facts else {}),
            "report": dg.MetadataValue.path(str(path)),
        },
    )
