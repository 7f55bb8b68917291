"""Nightly upkeep as assets: of the lake, and of the registry with the release store; each says what it did."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import dagster as dg

from ml_platform.orchestration.execution import scheduled
from ml_platform.orchestration.metadata import table
from ml_platform.orchestration.resources import Platform
from ml_platform.promotion.sweep import GRACE, sweep_bundles

if TYPE_CHECKING:
    from ml_platform.lake.storage.maintenance import TableUpkeep

VERSIONS_CHECK = "pinned_versions_readable"
ALIASES_CHECK = "aliases_follow_what_serves"


def _maintenance_asset(
    name: str, *, kind: str, description: str, check: str, check_description: str
) -> Callable[[Callable[[Platform], dg.MaterializeResult]], dg.AssetsDefinition]:
    """Make a function the asset `maintenance/<name>` with one check."""
    key = dg.AssetKey(["maintenance", name])
    return dg.asset(
        key=key,
        group_name="maintenance",
        kinds={kind},
        owners=["team:platform"],
        description=description,
        check_specs=[dg.AssetCheckSpec(check, asset=key, description=check_description)],
    )


@_maintenance_asset(
    "lake",
    kind="deltalake",
    description=(
        "Small files of every table merged, files deleted that no version within the retention "
        "(ML_PLATFORM_LAKE_RETENTION_DAYS) needs. Versions that a released model was trained on are kept for good."
    ),
    check=VERSIONS_CHECK,
    check_description="Every table version that a released model was trained on can still be read.",
)
def lake_maintenance(platform: Platform) -> dg.MaterializeResult:
    """Compact and vacuum all tables."""
    from ml_platform.lake.storage.maintenance import maintain
    from ml_platform.registry.lost_data import note_lost_data
    from ml_platform.registry.pins import pinned_versions

    days = platform.settings.lake_retention_days
    done = maintain(platform.lake, retention=timedelta(days=days), keep=pinned_versions(platform.releases))
    note_lost_data(platform.lake, platform.releases)  # cards say so
    return dg.MaterializeResult(
        metadata={
            "files freed": sum(one.files_freed for one in done),
            "bytes freed": sum(one.bytes_freed for one in done),
            "files merged": sum(one.files_merged for one in done),
            "files written": sum(one.files_written for one in done),
            "tables": len(done),
            "retention (days)": days,
            "by table": table([_row(one) for one in done]),
        },
        check_results=[_versions_readable(done)],
    )


@_maintenance_asset(
    "registry",
    kind="mlflow",
    description=(
        "Aliases and stages set to what serves, MLflow runs closed whose process was killed, bundles removed that no "
        f"version names after {GRACE.days} days."
    ),
    check=ALIASES_CHECK,
    check_description="Aliases and stages said what serves before this run corrected them.",
)
def registry_maintenance(platform: Platform) -> dg.MaterializeResult:
    """Reconcile, close and sweep."""
    from ml_platform.promotion.reconcile import reconcile_registry

    tracker, store = platform.tracker, platform.releases
    models = sorted({entry.name for entry in tracker.client.search_registered_models(max_results=1000)})
    corrected = [{"model": name, "change": change} for name in models for change in reconcile_registry(tracker, name)]
    closed = tracker.close_dead_runs()
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
                check_name=ALIASES_CHECK,
                passed=not corrected,
                severity=dg.AssetCheckSeverity.WARN,
                description="; ".join(f"{row['model']}: {row['change']}" for row in corrected) or "Nothing was wrong.",
                metadata={"corrections": len(corrected)},
            )
        ],
    )


def maintenance_defs() -> dg.Definitions:
    """Build the assets, each with its job and its schedule."""
    return dg.Definitions.merge(
        scheduled(
            lake_maintenance,
            job_name="lake_maintenance",
            cron="30 3 * * *",
            description="Compact and vacuum every table of the lake.",
        ),
        scheduled(
            registry_maintenance,
            job_name="registry_maintenance",
            cron="50 3 * * *",
            description=(
                "Correct aliases and stages, close runs of killed processes, remove bundles that nothing names."
            ),
        ),
    )


def _row(one: "TableUpkeep") -> dict[str, str | int]:
    return {
        "table": one.table,
        "files freed": one.files_freed,
        "bytes freed": one.bytes_freed,
        "files merged": one.files_merged,
        "files written": one.files_written,
        "version": one.version,
        "versions kept for models": ", ".join(map(str, one.versions_kept)),
        "versions lost": ", ".join(map(str, one.versions_lost)),
        "left for the next time": one.busy or "",
    }


def _versions_readable(done: "Sequence[TableUpkeep]") -> dg.AssetCheckResult:
    lost = [f"{one.table} at {version}" for one in done for version in one.versions_lost]
    return dg.AssetCheckResult(
        check_name=VERSIONS_CHECK,
        passed=not lost,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"Released models were trained on versions that are gone: {', '.join(lost)}. Those models serve on; they "
            "cannot be reproduced. Were the tables deleted or vacuumed by hand?"
            if lost
            else "Nothing that a released model stands on was lost."
        ),
    )
