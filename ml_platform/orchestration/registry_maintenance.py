"""Upkeep of the registry and the release store as an asset: every night, with what was corrected and removed."""

import dagster as dg

from ml_platform.orchestration.execution import scheduled
from ml_platform.orchestration.metadata import table
from ml_platform.orchestration.resources import Platform
from ml_platform.registry.reconcile import close_dead_runs, reconcile_registry
from ml_platform.registry.sweep import GRACE, sweep_bundles

KEY = dg.AssetKey(["maintenance", "registry"])
CHECK = "aliases_follow_what_serves"


@dg.asset(
    key=KEY,
    group_name="maintenance",
    kinds={"mlflow"},
    owners=["team:platform"],
    description=(
        "Aliases and stages set to what serves, MLflow runs closed whose process was killed, bundles removed that no "
        f"version names after {GRACE.days} days."
    ),
    check_specs=[
        dg.AssetCheckSpec(
            CHECK, asset=KEY, description="Aliases and stages said what serves before this run corrected them."
        )
    ],
)
def registry_maintenance(platform: Platform) -> dg.MaterializeResult:
    """Reconcile, close and sweep."""
    tracker, store = platform.tracker, platform.releases
    models = sorted({entry.name for entry in tracker.client.search_registered_models(max_results=1000)})
    corrected = [{"model": name, "change": change} for name in models for change in reconcile_registry(tracker, name)]
    closed = close_dead_runs(tracker)
    swept = sweep_bundles(store)
    return dg.MaterializeResult(
        metadata={
            "corrections": len(corrected),
            "runs closed": len(closed),
            "bundles removed": len(swept.bundles),
            "bytes freed": swept.freed_bytes,
            "corrected": table(corrected),
            "removed": table([{"bundle": digest} for digest in swept.bundles]),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name=CHECK,
                passed=not corrected,
                severity=dg.AssetCheckSeverity.WARN,
                description="; ".join(f"{row['model']}: {row['change']}" for row in corrected) or "Nothing was wrong.",
                metadata={"corrections": len(corrected)},
            )
        ],
    )


def registry_maintenance_defs() -> dg.Definitions:
    """Build the asset, its job and its schedule."""
    return scheduled(
        registry_maintenance,
        job_name="registry_maintenance",
        cron="50 3 * * *",
        description="Correct aliases and stages, close runs of killed processes, remove bundles that nothing names.",
    )
