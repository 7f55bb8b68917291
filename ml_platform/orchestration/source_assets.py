"""Raw tables declared in YAML as assets: a file is read whole, a folder and a database by what is new in them."""

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from ml_platform.lake.sources.source_spec import SourceSpec
from ml_platform.orchestration.automation import schedule_status, sensor_status
from ml_platform.orchestration.metadata import sample
from ml_platform.orchestration.raw_assets import (
    CHECK,
    MAX_QUARANTINED_SHARE,
    contract_result,
    contract_schema,
    ingest_facts,
    raw_table_asset,
)
from ml_platform.orchestration.resources import Platform

if TYPE_CHECKING:
    from ml_platform.lake.ingestion.ingest import IngestReport
    from ml_platform.lake.sources.incremental_folder import FolderFiles
    from ml_platform.lake.storage.tables import Lake

FILES_TAG = "ml_platform/files"
MAX_RUNS = 3  # for the same files: more would fail like these
UNCHANGED = "files_unchanged"

Load: TypeAlias = "Callable[[Lake, Callable[[str], None]], IngestReport]"


def source_table_defs(spec: SourceSpec) -> dg.Definitions:
    """Build the asset of a declared table, its schedule if it has one, and the sensor that watches its folder."""
    from ml_platform.lake.sources.from_spec import raw_table, source_of
    from ml_platform.lake.sources.incremental_folder import load_new_files
    from ml_platform.lake.sources.sql_database import load_changes

    if spec.folder is not None:
        asset = _growing_asset(spec, lambda lake, tell: load_new_files(lake, spec, progress=tell))
    elif spec.sql is not None and spec.sql.cursor is not None:
        asset = _growing_asset(spec, lambda lake, tell: load_changes(lake, spec, progress=tell))
    else:
        asset = raw_table_asset(raw_table(spec), owners=[spec.owner])
    short = spec.name.replace("/", "_")
    if spec.schedule is None:
        return dg.Definitions(assets=[asset], sensors=[_folder_sensor(spec, asset)] if spec.folder else [])
    job = dg.define_asset_job(
        f"{short}_load", selection=[asset], description=f"Load {source_of(spec)} into {spec.name}."
    )
    schedule = dg.ScheduleDefinition(
        name=f"{short}_schedule",
        job=job,
        cron_schedule=spec.schedule,
        description=job.description,
        default_status=schedule_status(),
    )
    return dg.Definitions(assets=[asset], jobs=[job], schedules=[schedule])


def _growing_asset(spec: SourceSpec, load: Load) -> dg.AssetsDefinition:
    from ml_platform.lake.sources.from_spec import source_of

    key, contract = dg.AssetKey(spec.name.split("/")), spec.schema_class()
    checks = [
        dg.AssetCheckSpec(
            CHECK,
            asset=key,
            description=f"No new row broke the contract; an error above {MAX_QUARANTINED_SHARE:.0%} of the rows read.",
        )
    ]
    if spec.folder is not None:
        checks.append(dg.AssetCheckSpec(UNCHANGED, asset=key, description="No file has changed since it was read."))

    @dg.asset(
        key=key,
        description=f"{spec.description}\n\nNew rows from {source_of(spec)}. Rejected rows: `quarantine/{spec.name}`.",
        group_name="raw",
        kinds={"deltalake", "postgresql" if spec.sql else "file"},
        owners=[spec.owner],
        metadata={"dagster/column_schema": contract_schema(contract)},
        check_specs=checks,
    )
    def source_table(context: dg.AssetExecutionContext, platform: Platform) -> dg.MaterializeResult:
        from ml_platform.lake.sources.incremental_folder import list_files
        from ml_platform.lake.sources.sql_database import last_cursor

        lake = platform.lake
        report = load(lake, context.log.info)
        files = list_files(lake, spec) if spec.folder else None
        facts: dict[str, dg.MetadataValue | int | str] = (
            {"files read": len(files.read + files.changed)} if files else {}
        )
        if spec.sql is not None:
            facts["read up to"] = str(last_cursor(lake, spec) or "nothing yet")
        return dg.MaterializeResult(
            metadata={
                "dagster/column_schema": contract_schema(contract),
                **ingest_facts(report, lake.read(spec.name, version=report.version)),
                "sample": sample(lake.read(spec.name, version=report.version).head(5).collect()),
                **facts,
            },
            check_results=[contract_result(report), *([_unchanged(files)] if files else [])],
        )

    return source_table


def _unchanged(files: "FolderFiles") -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=UNCHANGED,
        passed=not files.changed,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"Changed after they were read, and not read again: {', '.join(files.changed[:20])}. Put the new rows "
            "into a file of another name."
            if files.changed
            else "Every file is as it was read."
        ),
    )


def _folder_sensor(spec: SourceSpec, asset: dg.AssetsDefinition) -> dg.SensorDefinition:
    from ml_platform.lake.sources.from_spec import source_of

    @dg.sensor(
        name=f"{spec.name.replace('/', '_')}_files",
        target=[asset],
        minimum_interval_seconds=30,
        default_status=sensor_status(),
        description=f"Loads the files of {source_of(spec)} that '{spec.name}' has not read yet.",
    )
    def sensor(context: dg.SensorEvaluationContext, platform: Platform) -> Iterator[dg.RunRequest | dg.SkipReason]:
        from ml_platform.lake.sources.incremental_folder import list_files

        files = list_files(platform.lake, spec)
        if not files.new:
            waiting = f"; {len(files.unsettled)} may still be being written" if files.unsettled else ""
            yield dg.SkipReason(f"no new files, {len(files.read)} were read{waiting}")
            return
        # A file that was repaired under its name is another one, so it is tried again.
        states = "\n".join(f"{name}@{files.changed_at[name]}" for name in files.new)
        batch = hashlib.sha256(states.encode()).hexdigest()[:16]
        runs = context.instance.get_runs(dg.RunsFilter(tags={FILES_TAG: batch}))
        if any(not run.is_finished for run in runs):
            yield dg.SkipReason(f"a run is loading these {len(files.new)} files")
        elif len(runs) >= MAX_RUNS:
            yield dg.SkipReason(
                f"{len(runs)} runs could not load all of {', '.join(files.new[:5])}; see the newest, then materialise "
                f"{spec.name} by hand"
            )
        else:
            yield dg.RunRequest(run_key=f"{batch}:{len(runs)}", tags={FILES_TAG: batch})

    return sensor
