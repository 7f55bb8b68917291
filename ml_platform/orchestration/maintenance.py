"""Upkeep of the lake as an asset: every night, with what each table was freed of."""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from ml_platform.lake.maintenance import TableUpkeep, maintain
from ml_platform.orchestration.execution import scheduled
from ml_platform.orchestration.metadata import table
from ml_platform.orchestration.resources import Platform
from ml_platform.registry.pins import pinned_versions

KEY = dg.AssetKey(["maintenance", "lake"])
CHECK = "pinned_versions_readable"


@dg.asset(
    key=KEY,
    group_name="maintenance",
    kinds={"deltalake"},
    owners=["team:platform"],
    description=(
        "Small files of every table merged, files deleted that no version within the retention "
        "(ML_PLATFORM_LAKE_RETENTION_DAYS) needs. Versions that a released model was trained on are kept for good."
    ),
    check_specs=[
        dg.AssetCheckSpec(
            CHECK, asset=KEY, description="Every table version that a released model was trained on can still be read."
        )
    ],
)
def lake_maintenance(platform: Platform) -> dg.MaterializeResult:
    """Compact and vacuum all tables."""
    days = platform.settings.lake_retention_days
    done = maintain(platform.lake, retention=timedelta(days=days), keep=pinned_versions(platform.releases))
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
        check_results=[_check(done)],
    )


def maintenance_defs() -> dg.Definitions:
    """Build the asset, its job and its schedule."""
    return scheduled(
        lake_maintenance,
        job_name="lake_maintenance",
        cron="30 3 * * *",
        description="Compact and vacuum every table of the lake.",
    )


def _row(one: TableUpkeep) -> dict[str, str | int]:
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


def _check(done: Sequence[TableUpkeep]) -> dg.AssetCheckResult:
    lost = [f"{one.table} at {version}" for one in done for version in one.versions_lost]
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=not lost,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"Released models were trained on versions that are gone: {', '.join(lost)}. Those models serve on; they "
            "cannot be reproduced. Were the tables deleted or vacuumed by hand?"
            if lost
            else "Nothing that a released model stands on was lost."
        ),
    )
