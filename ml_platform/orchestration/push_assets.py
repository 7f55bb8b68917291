"""Rows pushed to feature views: an asset per view that takes them into the lake, and the sensor that sees them come."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.automation import sensor_status
from ml_platform.orchestration.execution import in_process_executor
from ml_platform.orchestration.metadata import ingested, table
from ml_platform.orchestration.resources import Platform

JOB = "pushed_features"
RETRY_AFTER = timedelta(minutes=10)  # a run that failed would fail again at once


def pushed_key(view: FeatureView) -> dg.AssetKey:
    """Asset key of the rows pushed to a view."""
    return dg.AssetKey(["pushed", view.name])


def pushed_rows(view: FeatureView) -> dg.AssetsDefinition:
    """Build `pushed/<view>`."""

    @dg.asset(
        key=pushed_key(view),
        description=(
            f"Rows of `{view.name}` that were pushed to serving (`POST /features/{view.name}`), each once: from the "
            f"workers' log files into the lake. Whatever reads the view reads them beside `{view.table}`."
        ),
        group_name="features",
        kinds={"fastapi", "deltalake"},
        owners=[view.owner],
        tags=dict(view.tags),
    )
    def pushed(platform: Platform) -> dg.MaterializeResult:
        from ml_platform.features.online.pushed_rows import PUSHED_AT, ingest_pushed, pushed_table

        lake = platform.lake
        reports = ingest_pushed(lake, platform.settings.push_log_dir, view.name)
        newest = next((report for report in reports if report.table == pushed_table(view)), None)
        others = [{"table": one.table, "new rows": one.rows} for one in reports if one is not newest]
        return dg.MaterializeResult(
            metadata={
                "definition": view.hash[:12],
                **(ingested(lake, newest, PUSHED_AT) if newest else {"new rows": 0}),
                **({"rows of older definitions": table(others)} if others else {}),
            }
        )

    return pushed


def push_defs(views: Sequence[FeatureView]) -> dg.Definitions:
    """Build the job that ingests pushed rows, and the sensor that starts it for the views that have any."""
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(*(pushed_key(view) for view in views)),
        description="Take the rows that were pushed to feature views into the lake.",
        executor_def=in_process_executor,
    )

    @dg.sensor(
        name=f"{JOB}_sensor",
        job=job,
        minimum_interval_seconds=60,
        default_status=sensor_status(),
        description="Takes pushed rows into the lake as soon as there are any, in one run at a time.",
    )
    def sensor(context: dg.SensorEvaluationContext, platform: Platform) -> Iterator[dg.RunRequest | dg.SkipReason]:
        from ml_platform.features.online.pushed_rows import has_pushed

        folder = platform.settings.push_log_dir
        waiting = [view for view in views if has_pushed(folder, view.name)]
        last = next(iter(context.instance.get_run_records(dg.RunsFilter(job_name=JOB), limit=1)), None)
        if not waiting:
            yield dg.SkipReason("nothing was pushed since the last run")
        elif last is not None and not last.dagster_run.is_finished:
            yield dg.SkipReason("a run is taking pushed rows into the lake")
        elif last is not None and last.dagster_run.is_failure and (retry_at := _retry_at(last)) > datetime.now(UTC):
            when = f"{retry_at:%Y-%m-%d %H:%M} UTC"
            yield dg.SkipReason(f"run {last.dagster_run.run_id} failed: see why; the next try is after {when}")
        else:
            yield dg.RunRequest(asset_selection=[pushed_key(view) for view in waiting])

    return dg.Definitions(jobs=[job], sensors=[sensor])


def _retry_at(last: dg.RunRecord) -> datetime:
    return last.create_timestamp + RETRY_AFTER
