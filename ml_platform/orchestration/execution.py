"""How runs execute: one process per step from a warm fork server, or all in one process where that is cheaper."""

from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.executor_definition import multiple_process_executor_requirements

from ml_platform.orchestration.automation import schedule_status, sensor_status
from ml_platform.project import current_project

if TYPE_CHECKING:
    from ml_platform.orchestration.run_meter import MeteredInProcessExecutor
    from ml_platform.orchestration.step_processes import StepProcesses

# What assets import where they use it, so that definitions load without it.
STEP_MODULES = (
    "ml_platform.cost.publish",
    "ml_platform.cost.use_table",
    "ml_platform.features.catalogue.describe",
    "ml_platform.features.catalogue.page",
    "ml_platform.features.online.open",
    "ml_platform.features.online.publish",
    "ml_platform.features.training_sets.label_outliers",
    "ml_platform.features.training_sets.leakage",
    "ml_platform.features.training_sets.null_shares",
    "ml_platform.features.views.compute",
    "ml_platform.features.views.freshness",
    "ml_platform.governance.access.publish_protections",
    "ml_platform.governance.audit_table",
    "ml_platform.governance.ledger_check",
    "ml_platform.governance.read_history",
    "ml_platform.governance.unusual_access",
    "ml_platform.inference.batch",
    "ml_platform.inference.composition.publish",
    "ml_platform.inference.ingest_log",
    "ml_platform.lake.sources.incremental_folder",
    "ml_platform.lake.sources.sql_database",
    "ml_platform.lake.storage.maintenance",
    "ml_platform.monitoring.alerts.conditions",
    "ml_platform.monitoring.drift.detect",
    "ml_platform.monitoring.performance.measure",
    "ml_platform.monitoring.recalibration.recalibrate",
    "ml_platform.monitoring.replay.guardrail",
    "ml_platform.monitoring.replay.keep",
    "ml_platform.monitoring.replay.replay",
    "ml_platform.monitoring.skew.detect",
    "ml_platform.monitoring.stream_health",
    "ml_platform.streams.status",
    "ml_platform.notebook_files.runs",
    "ml_platform.promotion.card",
    "ml_platform.promotion.promote",
    "ml_platform.promotion.reconcile",
    "ml_platform.promotion.versions",
    "ml_platform.registry.card_pages",
    "ml_platform.registry.history",
    "ml_platform.registry.lost_data",
    "ml_platform.registry.pins",
    "ml_platform.training.evaluation.evaluate",
    "ml_platform.training.evaluation.plausibility",
    "ml_platform.training.fit",
    "ml_platform.training.refit",
    "ml_platform.training.search",
)
# Forked steps find these already imported. Without the private module, each step imports Dagster's storage anew, which
# costs several times the step itself; a test notices when a release moves it.
PRELOAD = (  # and the project
    "dagster._core.storage.sqlite_storage",
    "lightgbm",
    "ml_platform.orchestration.load_project",
    "ml_platform.orchestration.step_signals",
    "mlflow",
    "sklearn.pipeline",
    *STEP_MODULES,
)


@dg.executor(name="multiprocess", requirements=multiple_process_executor_requirements())
def _step_processes(_: dg.InitExecutorContext) -> "StepProcesses":
    from ml_platform.orchestration.step_processes import StepProcesses

    return StepProcesses(max_concurrent=2, preload=[*PRELOAD, current_project().definitions])


@dg.executor(name="in_process", config_schema=dg.Permissive({}))
def in_process_executor(_: dg.InitExecutorContext) -> "MeteredInProcessExecutor":
    """Run all steps of a job in its run's own process: what starts within a second and is done within some."""
    from dagster._core.execution.retries import RetryMode

    from ml_platform.orchestration.run_meter import MeteredInProcessExecutor

    return MeteredInProcessExecutor(retries=RetryMode.ENABLED)


def executor() -> dg.ExecutorDefinition:
    """Give the project's default executor: two steps at a time, forked from a process that has imported everything."""
    return _step_processes


def scheduled(asset: dg.AssetsDefinition, *, job_name: str, cron: str, description: str) -> dg.Definitions:
    """Give an asset a job of its own and a schedule that runs it."""
    job = dg.define_asset_job(job_name, selection=[asset], description=description, executor_def=in_process_executor)
    schedule = dg.ScheduleDefinition(
        name=f"{job_name}_schedule",
        job=job,
        cron_schedule=cron,
        description=description,
        default_status=schedule_status(),
    )
    return dg.Definitions(assets=[asset], jobs=[job], schedules=[schedule])


def refresh_sensor() -> dg.AutomationConditionSensorDefinition:
    """Refresh features and the online store when the tables under them have changed."""
    return dg.AutomationConditionSensorDefinition(
        "refresh_features",
        target=dg.AssetSelection.groups("features", "online"),
        description="Brings feature tables and the online store up to date when what they read has changed.",
        default_status=sensor_status(),
        minimum_interval_seconds=60,
    )
