"""From one model's spec to all that Dagster runs for it: assets, checks, jobs, sensors, schedules."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from ml_platform.features.views import FeatureView
from ml_platform.orchestration.endpoint_jobs import endpoint_jobs
from ml_platform.orchestration.model_asset import CHAIN, key
from ml_platform.orchestration.release_assets import release_assets
from ml_platform.orchestration.resources import Platform
from ml_platform.orchestration.retraining import TRIGGER_TAG, retraining_sensor
from ml_platform.orchestration.scoring_assets import scoring_assets
from ml_platform.orchestration.skew_check import skew_check, skew_check_key
from ml_platform.orchestration.training_assets import training_assets
from ml_platform.spec import ModelSpec

WATCH = ("inference_log", "performance", "drift_report")


def build_model_defs(spec: ModelSpec, folder: Path, views: Mapping[str, FeatureView]) -> dg.Definitions:
    """Build the Dagster definitions of one model.

    Parameters
    ----------
    spec
        The model as declared.
    folder
        Its folder, with the spine and the request features.
    views
        The project's feature views by name.
    """
    retrain = dg.define_asset_job(
        f"{spec.name}_retrain",
        selection=dg.AssetSelection.assets(*(key(spec, name) for name in CHAIN)),
        description=f"Training set to release of {spec.name}; the gate decides what serves.",
    )
    score = dg.define_asset_job(
        f"{spec.name}_score",
        selection=dg.AssetSelection.assets(key(spec, "predictions")),
        description=f"Batch predictions of {spec.name} for one or more days.",
        executor_def=dg.in_process_executor,
    )
    watch = dg.define_asset_job(
        f"{spec.name}_watch",
        selection=dg.AssetSelection.assets(*(key(spec, name) for name in WATCH))
        - dg.AssetSelection.checks(skew_check_key(spec)),
        description=f"Ingest the inference log of {spec.name}, then measure performance and drift.",
        executor_def=dg.in_process_executor,
    )
    skew = dg.define_asset_job(
        f"{spec.name}_skew",
        selection=dg.AssetSelection.checks(skew_check_key(spec)),
        description=f"Compare what serving computed for {spec.name} with the lake.",
        executor_def=dg.in_process_executor,
    )
    days_end = spec.scoring.end  # data that has ended is scored by hand
    if spec.scoring.daily_at and days_end is None:
        hour, minute = map(int, spec.scoring.daily_at.split(":"))
        daily = [
            dg.build_schedule_from_partitioned_job(
                score,
                name=f"{spec.name}_scoring_schedule",
                hour_of_day=hour,
                minute_of_hour=minute,
                description=score.description,
                default_status=dg.DefaultScheduleStatus.RUNNING,
            )
        ]
    else:
        daily = []
    sensor = retraining_sensor(spec, retrain.name)
    return dg.Definitions(
        assets=[*training_assets(spec, folder, views), *release_assets(spec), *scoring_assets(spec, folder, views)],
        asset_checks=[skew_check(spec, folder, views)],
        jobs=[retrain, score, watch, skew, *endpoint_jobs(spec)],
        schedules=[
            *daily,
            *_schedule(
                spec, "retraining", retrain.name, retrain.description, spec.retraining.schedule, needs_release=False
            ),
            *_schedule(spec, "watch", watch.name, watch.description, spec.monitoring.schedule),
            *_schedule(spec, "skew", skew.name, skew.description, spec.skew.schedule),
        ],
        sensors=[sensor] if sensor else [],
    )


def _schedule(
    spec: ModelSpec,
    purpose: str,
    job_name: str,
    description: str | None,
    cron: str | None,
    *,
    needs_release: bool = True,
) -> list[dg.ScheduleDefinition]:
    if cron is None:
        return []

    @dg.schedule(
        name=f"{spec.name}_{purpose}_schedule",
        job_name=job_name,
        cron_schedule=cron,
        description=description,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def schedule(platform: Platform) -> dg.RunRequest | dg.SkipReason:
        if needs_release and platform.releases.endpoint(spec.name) is None:
            return dg.SkipReason(f"nothing of {spec.name} is released yet; run {spec.name}_retrain first")
        return dg.RunRequest(tags={TRIGGER_TAG: f"{spec.name}/schedule"})

    return [schedule]
