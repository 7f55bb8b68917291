"""From one model's spec to all that Dagster runs for it: assets, checks, jobs, sensors, schedules."""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.automation import schedule_status
from ml_platform.orchestration.endpoint_jobs import endpoint_jobs
from ml_platform.orchestration.execution import in_process_executor
from ml_platform.orchestration.model_asset import CHAIN, key
from ml_platform.orchestration.recalibration_asset import recalibration_asset
from ml_platform.orchestration.release_assets import release_assets
from ml_platform.orchestration.replay_check import replay_check, replay_check_key
from ml_platform.orchestration.resources import Platform
from ml_platform.orchestration.retraining import TRIGGER_TAG, retraining_schedule, retraining_sensor
from ml_platform.orchestration.retraining_history import definitions_digest, retrain_job
from ml_platform.orchestration.scoring_assets import scoring_assets
from ml_platform.orchestration.skew_check import skew_check, skew_check_key
from ml_platform.orchestration.stream_check import stream_check_defs, stream_check_key
from ml_platform.orchestration.training_assets import training_assets
from ml_platform.spec.model import ModelSpec

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
    replayed = dg.AssetSelection.checks(replay_check_key(spec))
    chain = dg.AssetSelection.assets(*(key(spec, name) for name in CHAIN)) - replayed
    skew = dg.AssetSelection.checks(skew_check_key(spec))
    watched = dg.AssetSelection.assets(*(key(spec, name) for name in WATCH)) - skew
    if spec.stream is not None:
        watched -= dg.AssetSelection.checks(stream_check_key(spec))  # its sensor looks each minute
    retrain = dg.define_asset_job(
        retrain_job(spec),
        selection=chain,
        description=f"Training set to release of {spec.name}; the gate decides what serves.",
    )
    definitions = definitions_digest(spec, folder, views)
    sensor = retraining_sensor(spec, retrain.name, definitions)
    return dg.Definitions.merge(
        dg.Definitions(
            assets=[
                *training_assets(spec, folder, views, definitions),
                *release_assets(spec, folder, views),
                *scoring_assets(spec, folder, views),
                recalibration_asset(spec, folder),
            ],
            asset_checks=[skew_check(spec, views), replay_check(spec, folder, views)],
            jobs=[retrain, *endpoint_jobs(spec)],
            schedules=retraining_schedule(spec, retrain.name, definitions),
            sensors=[sensor] if sensor else [],
        ),
        _scoring(spec),
        stream_check_defs(spec),
        _routine(
            spec,
            "watch",
            watched,
            spec.monitoring.schedule,
            f"Ingest the inference log of {spec.name}, then measure performance and drift.",
        ),
        _routine(
            spec,
            "recalibrate",
            dg.AssetSelection.assets(key(spec, "recalibration")),
            spec.recalibration.schedule,
            f"Bring probabilities and intervals of {spec.name} up to date with the labels, without training.",
        ),
        _routine(
            spec,
            "replay",
            replayed,
            None,
            f"Run the newest version of {spec.name} over logged requests, beside the champion.",
        ),
        _routine(
            spec, "skew", skew, spec.skew.schedule, f"Compare what serving computed for {spec.name} with the lake."
        ),
    )


def _scoring(spec: ModelSpec) -> dg.Definitions:
    """Batch scoring, scheduled each day unless the data has ended."""
    job = dg.define_asset_job(
        f"{spec.name}_score",
        selection=dg.AssetSelection.assets(key(spec, "predictions")),
        description=f"Batch predictions of {spec.name} for one or more days.",
        executor_def=in_process_executor,
    )
    if spec.scoring.daily_at is None or spec.scoring.end is not None:
        return dg.Definitions(jobs=[job])
    hour, minute = map(int, spec.scoring.daily_at.split(":"))
    schedule = dg.build_schedule_from_partitioned_job(
        job,
        name=f"{spec.name}_scoring_schedule",
        hour_of_day=hour,
        minute_of_hour=minute,
        description=job.description,
        default_status=schedule_status(),
    )
    return dg.Definitions(jobs=[job], schedules=[schedule])


def _routine(
    spec: ModelSpec, name: str, selection: dg.AssetSelection, cron: str | None, description: str
) -> dg.Definitions:
    """A light job on a released model, and its schedule."""
    job = dg.define_asset_job(
        f"{spec.name}_{name}", selection=selection, description=description, executor_def=in_process_executor
    )
    return dg.Definitions(jobs=[job], schedules=_schedule(spec, name, job.name, cron))


def _schedule(spec: ModelSpec, purpose: str, job_name: str, cron: str | None) -> list[dg.ScheduleDefinition]:
    if cron is None:
        return []

    @dg.schedule(
        name=f"{spec.name}_{purpose}_schedule",
        job_name=job_name,
        cron_schedule=cron,
        description=f"Starts {job_name}, once a version is released.",
        default_status=schedule_status(),
    )
    def schedule(platform: Platform) -> dg.RunRequest | dg.SkipReason:
        if platform.releases.endpoint(spec.name) is None:
            return dg.SkipReason(f"nothing of {spec.name} is released yet; run {spec.name}_retrain first")
        return dg.RunRequest(tags={TRIGGER_TAG: f"{spec.name}/schedule"})

    return [schedule]
