"""Tables that a stream fills: an asset that says how the stream does, and the sensor that has their views computed."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from ml_platform.features.streaming.status import FeatureStreamStatus, read_status
from ml_platform.features.streaming.tables import streamed_tables
from ml_platform.features.views.view import FeatureView
from ml_platform.orchestration.automation import sensor_status
from ml_platform.orchestration.metadata import sample, table
from ml_platform.orchestration.resources import Platform
from ml_platform.spec.types import duration

JOB = "streamed_tables"
CHECK = "stream_current"


def stream_defs(views: Mapping[str, FeatureView]) -> dg.Definitions:
    """Build `raw/<table>` of every table that a stream fills, with its check, and what has its views computed."""
    tables = streamed_tables(views)
    if not tables:
        return dg.Definitions()
    assets = [_streamed_table(name, of) for name, of in tables.items()]
    return dg.Definitions.merge(dg.Definitions(assets=assets), _refreshing(tables))


def _key(name: str) -> dg.AssetKey:
    return dg.AssetKey(name.split("/"))


def _streamed_table(name: str, views: Sequence[FeatureView]) -> dg.AssetsDefinition:
    key, first = _key(name), views[0]
    assert first.stream is not None
    lateness, stream = duration(first.stream.lateness), first.stream

    @dg.asset(
        key=key,
        description=(
            f"Events of a stream, each once: `ml-platform stream features {first.name}` lands them. An event that "
            f"arrives more than {lateness} after its time has `__too_late` and counts in no window. "
            f"Messages that are no events: `quarantine/{name}`. This asset records what has landed."
        ),
        group_name="raw",
        kinds={stream.source.type, "deltalake"},
        owners=sorted({view.owner for view in views}),
        check_specs=[
            dg.AssetCheckSpec(
                CHECK,
                asset=key,
                description="The process that lands events runs, and is no further behind than `stream.max_lag`.",
            )
        ],
    )
    def streamed_table(platform: Platform) -> dg.MaterializeResult:
        lake, status = platform.lake, read_status(platform.settings.feature_streams_dir, name)
        if not lake.exists(name):
            raise dg.Failure(f"{name} has no event yet: is `ml-platform stream features {first.name}` running?")
        rows = lake.read(name).tail(5).collect()
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": lake.snapshot(name).count(),
                "delta version": lake.version(name),
                "sample": sample(rows),
                **_facts(status),
            },
            data_version=dg.DataVersion(str(lake.version(name))),
            check_results=[_check(key, status, first)],
        )

    return streamed_table


def _facts(status: FeatureStreamStatus | None) -> dict[str, dg.MetadataValue]:
    if status is None:
        return {}
    reasons = [{"reason": reason, "messages": number} for reason, number in status.reasons.items()]
    facts = {
        "state": dg.MetadataValue.text(status.problem() or "running"),
        "messages that wait": dg.MetadataValue.int(status.lag),
        "events": dg.MetadataValue.int(status.events),
        "late events": dg.MetadataValue.int(status.late),
        "too late events": dg.MetadataValue.int(status.too_late),
        "refused messages": dg.MetadataValue.int(status.refused),
        "newest event": dg.MetadataValue.text(str(status.newest_event)),
        "watermark": dg.MetadataValue.text(str(status.watermark)),
    }
    return {**facts, **({"refused": table(reasons)} if reasons else {})}


def _check(key: dg.AssetKey, status: FeatureStreamStatus | None, view: FeatureView) -> dg.AssetCheckResult:
    assert view.stream is not None
    problem = "no process has run here" if status is None else status.problem()
    if status is not None and problem is None and status.lag and status.last_message_at is not None:
        behind = datetime.now(UTC) - status.last_message_at
        if behind > view.stream.max_lag:
            problem = f"{status.lag:,} messages wait, and the newest one taken is of {_without_fraction(behind)} ago"
    advice = f". Start it: ml-platform stream features {view.name}" if status is None else ""
    return dg.AssetCheckResult(
        check_name=CHECK,
        asset_key=key,
        passed=problem is None,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{problem}{advice}" if problem else "It runs and is not behind.",
        metadata=_facts(status),
    )


def _without_fraction(span: object) -> str:
    """A span of time without its fraction of a second."""
    return str(span).partition(".")[0]


def _refreshing(tables: Mapping[str, Sequence[FeatureView]]) -> dg.Definitions:
    """Build the job that computes the views of streamed tables, and the sensor that starts it for new rows."""
    selections = {name: [_key(name), *(_key(view.table) for view in views)] for name, views in tables.items()}
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.assets(*(key for keys in selections.values() for key in keys)),
        description="Record what streams have landed, and compute the views of those tables.",
    )

    @dg.sensor(
        name=f"{JOB}_sensor",
        job=job,
        minimum_interval_seconds=60,
        default_status=sensor_status(),
        description="Has the views of a streamed table computed when it has new rows, twice per `stream.max_lag`.",
    )
    def sensor(context: dg.SensorEvaluationContext, platform: Platform) -> Iterator[dg.RunRequest | dg.SkipReason]:
        last = next(iter(context.instance.get_run_records(dg.RunsFilter(job_name=JOB), limit=1)), None)
        if last is not None and not last.dagster_run.is_finished:
            yield dg.SkipReason("a run is computing views of streamed tables")
            return
        due = [name for name, views in tables.items() if _is_due(context.instance, platform, name, views[0])]
        if not due:
            yield dg.SkipReason("no streamed table has new rows, or its views were computed a moment ago")
            return
        yield dg.RunRequest(asset_selection=[key for name in due for key in selections[name]])

    return dg.Definitions(jobs=[job], sensors=[sensor])


def _is_due(instance: dg.DagsterInstance, platform: Platform, name: str, view: FeatureView) -> bool:
    assert view.stream is not None
    if not platform.lake.exists(name):
        return False
    event = instance.get_latest_materialization_event(_key(name))
    if event is None or event.asset_materialization is None:
        return True
    recorded = event.asset_materialization.metadata.get("delta version")
    is_old = datetime.now(UTC).timestamp() - event.timestamp >= view.stream.max_lag.total_seconds() / 2
    return is_old and (recorded is None or recorded.value != platform.lake.version(name))
